"""What one does in MLflow's UI: search, filter, tag, delete, look at a session, at attachments and assessments; with
traces of MLflow's and of the core's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from programs.pages import SIDE
from support.processes import run_programs
from support.traces import client, experiment_id, traces_of

pytestmark = pytest.mark.long

PROGRAMS = ("labels", "contents", "faults")
MODULES = {"pure": "mlflow", "core": "mlflow_fasttrace"}


@pytest.fixture(scope="module", params=MODULES)
def recorded(request, ui):
    """The UI, and the experiment and the traces of each program by their root's name or, for turns of a session, by
    what was said."""
    prefix = f"used-{request.param}"
    run_programs(MODULES[request.param], ui.uri, prefix, *PROGRAMS)
    recorded = SimpleNamespace(ui=ui, experiment={}, traces={})
    for program in PROGRAMS:
        recorded.experiment[program] = experiment_id(ui.uri, f"{prefix}-{program}")
        recorded.traces[program] = {}
        for trace in traces_of(ui.uri, f"{prefix}-{program}"):
            root = next(span for span in trace.data.spans if span.parent_id is None)
            name = root.inputs["text"] if root.name == "turn" else root.name
            # Of two traces with one name the second gets another.
            known = recorded.traces[program]
            known[f"{name} again" if name in known else name] = trace
    return recorded


def ids(recorded, program, *names):
    traces = recorded.traces[program]
    return [traces[name].info.trace_id for name in names or traces]


def opened(recorded, program, name):
    return recorded.ui.trace(recorded.experiment[program], recorded.traces[program][name])


@pytest.fixture
def labels(recorded):
    """The list of the traces with labels, as it is when one comes to it."""
    return recorded.ui.traces(recorded.experiment["labels"], recorded.traces["labels"].values())


def test_the_list_has_what_traces_carry(recorded, labels):
    rows = labels.rows()
    (morning,) = ids(recorded, "labels", "good morning")
    row = rows[morning]
    assert (row["Trace name"], row["User"], row["Session"]) == ("turn", "ada", "monday")
    assert (row["State"], row["Tokens"], row["Source"]) == ("OK", "14", "run.py")
    assert (row["team"], row["reviewed"], row["release"]) == ("north", "no", "7")
    assert row["Tags"] in ("reviewed: no\n+1", "team: north\n+1")
    assert row["Metadata"] == "release: 7"
    (failed,) = ids(recorded, "labels", "fail")
    assert (rows[failed]["State"], rows[failed]["Output"]) == ("Error", "-")
    (otherwise,) = ids(recorded, "labels", "shown otherwise")
    assert (rows[otherwise]["Input"], rows[otherwise]["Output"]) == ("as asked", "as answered")
    (judged,) = ids(recorded, "labels", "judged")
    assert (rows[judged]["good"], rows[judged]["answer"]) == ("True", "Yes")


def test_a_text_is_searched_in_inputs_and_outputs(recorded, labels):
    labels.search("evening")
    labels.wait_for(ids(recorded, "labels", "good evening"))


def test_states_filter(recorded, labels):
    labels.filter_by_state("Error")
    labels.wait_for(ids(recorded, "labels", "fail"))


def test_tags_filter(recorded, labels):
    labels.filter_by_tag("team", "north")
    labels.wait_for(ids(recorded, "labels", "good morning", "how are you"))


def test_a_tag_of_the_list_filters(recorded, labels):
    key, value = labels.filter_by_pill()
    traces = recorded.traces["labels"].values()
    labels.wait_for([trace.info.trace_id for trace in traces if trace.info.tags.get(key) == value])


def test_a_tag_is_added(recorded, labels):
    (chosen,) = ids(recorded, "labels", "shown otherwise")
    labels.select(chosen)
    labels.set_tag("colour", "green")
    recorded.ui.wait_for(
        lambda: labels.rows()[chosen]["Tags"] == "colour: green", "the tag in the list"
    )
    tags = client(recorded.ui.uri).get_trace(chosen).info.tags
    assert tags["colour"] == "green"


def test_sessions_hold_their_turns(recorded, labels):
    labels.group_by_session()
    recorded.ui.wait_for(lambda: set(labels.sessions()) == {"monday", "tuesday"}, "two sessions")
    sessions = labels.sessions()
    assert (sessions["monday"]["State"], sessions["monday"]["Tokens"]) == ("OK", "27")
    assert (sessions["tuesday"]["State"], sessions["tuesday"]["Tokens"]) == ("Error", "20")
    labels.expand("monday")
    turns = ids(recorded, "labels", "good morning", "how are you")
    recorded.ui.wait_for(lambda: set(turns) < set(labels.rows()), "the session's turns")
    rows = labels.rows()
    assert [rows[turn]["Session"] for turn in turns] == ["Turn 1", "Turn 2"]


def test_a_session_reads_as_a_conversation(recorded):
    experiment = recorded.experiment["labels"]
    said = recorded.ui.session(experiment, "monday", "You said: how are you")
    assert said.index("You said: good morning") < said.index("You said: how are you")
    assert "Turn 2" in said


def test_assessments_are_shown(recorded):
    said = opened(recorded, "labels", "judged").open_assessments()
    assert "Feedback (1)" in said
    assert "good\nTrue" in said
    assert "Expectations (1)" in said


@pytest.mark.parametrize(
    ("name", "media"),
    [
        ("look", [("img", SIDE)]),
        ("look again", [("audio", 0.1)]),
        ("draw", [("img", SIDE)]),
        ("files", [("iframe", "application/pdf"), ("audio", 0.1)]),
    ],
)
def test_attachments_are_loaded_and_shown(recorded, name, media):
    panel = opened(recorded, "contents", name)
    assert panel.media(len(media)) == media


def test_an_error_is_shown_with_its_stack_trace(recorded):
    panel = opened(recorded, "faults", "average")
    average, divide = panel.says()["spans"]
    for span in (average, divide):
        said = span["tabs"]["Events\n1"]
        assert "in divide\n    return a / b\n" in said
        assert said.endswith("ZeroDivisionError: division by zero")


def test_selected_traces_are_deleted(recorded):
    ui, experiment = recorded.ui, recorded.experiment["faults"]
    remains = ids(recorded, "faults", "noted")
    tab = ui.traces(experiment, recorded.traces["faults"].values())
    tab.select_all()
    tab.select(*remains)  # which takes it out again
    asked = tab.delete_selected()
    assert "3 traces" in asked
    tab.wait_for(remains)
    left = client(ui.uri).search_traces(locations=[experiment])
    assert [trace.info.trace_id for trace in left] == remains
