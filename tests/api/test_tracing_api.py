"""What the tracing API does where MLflow has nothing to compare with, or does worse."""

from __future__ import annotations

import json

import pytest
from support.traces import client, traces_of

PREAMBLE = """
import mlflow_fasttrace as mlflow
from mlflow_fasttrace import tracing
mlflow.set_tracking_uri({uri!r})
mlflow.set_experiment({experiment!r})
"""


@pytest.fixture
def run(run_program, server, request):
    """Runs a program on the core; gives the traces that the server then has, by their names."""
    experiment = f"api-{request.node.name}"

    def start(code, **environment):
        preamble = PREAMBLE.format(uri=server.uri, experiment=experiment)
        process = run_program(preamble + code, **environment)
        assert process.returncode == 0, process.out + process.err
        start.out, start.err = process.out, process.err
        return {trace.data.spans[0].name: trace for trace in traces_of(server.uri, experiment)}

    start.experiment = experiment
    return start


def test_switching_off_inside_a_trace_keeps_the_trace(run):
    traces = run("""
with mlflow.start_span("kept"):
    tracing.disable()
    with mlflow.start_span("lost"):
        assert mlflow.get_current_active_span() is None
        tracing.enable()
        with mlflow.start_span("child"):
            pass
        tracing.disable()
    tracing.enable()
    assert mlflow.get_current_active_span().name == "kept"
    with mlflow.start_span("kept too"):
        pass
""")
    assert list(traces) == ["kept"]
    root, *children = traces["kept"].data.spans
    assert [span.name for span in children] == ["child", "kept too"]
    assert all(span.parent_id == root.span_id for span in children)
    assert traces["kept"].info.state.value == "OK"


OFF_FOR_GOOD = """
import mlflow_fasttrace
import {module} as mlflow
{install}
import {module}.tracing
from mlflow.entities import MlflowExperimentLocation
mlflow.set_tracking_uri({uri!r})
experiment = mlflow.set_experiment({experiment!r})

def goes_on(change):
    for _ in range(2):
        mlflow.tracing.disable()
        change()
        with mlflow.start_span("off") as span:
            pass
        assert span.trace_id == "MLFLOW_NO_OP_SPAN_TRACE_ID", change
        mlflow.tracing.enable()
        with mlflow.start_span("on") as span:
            pass
        assert span.trace_id != "MLFLOW_NO_OP_SPAN_TRACE_ID", change

goes_on(lambda: mlflow.set_tracking_uri("http://127.0.0.1:9"))
mlflow.set_tracking_uri({uri!r})
goes_on(lambda: mlflow.set_experiment({experiment!r}))
goes_on(lambda: mlflow.set_experiment(experiment_id=experiment.experiment_id))
goes_on(lambda: mlflow.tracing.set_destination(MlflowExperimentLocation(experiment.experiment_id)))
goes_on(lambda: mlflow.tracing.configure(span_processors=[]))
mlflow.tracing.disable()
mlflow.tracing.reset()
with mlflow.start_span("on") as span:
    pass
assert span.trace_id != "MLFLOW_NO_OP_SPAN_TRACE_ID"
"""


@pytest.mark.parametrize("module", ["mlflow", "mlflow_fasttrace"])
def test_what_is_switched_off_stays_off(run_program, server, module):
    install = "mlflow_fasttrace.install()" if module == "mlflow" else ""
    text = OFF_FOR_GOOD.format(
        module=module, install=install, uri=server.uri, experiment=f"off, {module}"
    )
    process = run_program(text, MLFLOW_FASTTRACE_EXIT_TIMEOUT="0")
    assert process.returncode == 0, process.out + process.err


def test_added_traces_arrive_whole(run):
    traces = run("""
with mlflow.start_span("remote root") as span:
    mlflow.update_current_trace(tags={"remote": "yes"}, metadata={"from": "afar"})
    with mlflow.start_span("remote child"):
        pass
remote = mlflow.get_trace(span.trace_id)
with mlflow.start_span("local"):
    mlflow.add_trace(remote)
with mlflow.start_span("around") as target:
    with mlflow.start_span("current"):
        mlflow.add_trace(remote.to_dict(), target=target)
mlflow.add_trace(remote)
for bad in ({"no": "trace"}, 3):
    try:
        mlflow.add_trace(bad)
    except mlflow.exceptions.MlflowException:
        pass
    else:
        raise SystemExit("no trace was taken for one")
""")
    # (MLflow withholds the info of such a trace, at some batch positions: no program to compare.)
    remote = traces.pop("Remote Trace <remote root>")
    root, copy, child = remote.data.spans
    assert copy.parent_id == root.span_id
    assert child.parent_id == copy.span_id
    assert root.start_time_ns == copy.start_time_ns - 1
    assert root.end_time_ns == copy.end_time_ns
    assert remote.info.tags["remote"] == "yes"
    for name in ("local", "around"):
        trace = traces[name]
        parent = {span.name: span.parent_id for span in trace.data.spans}
        ids = {span.name: span.span_id for span in trace.data.spans}
        assert parent["remote root"] == ids[name]
        assert parent["remote child"] == ids["remote root"]
        assert trace.info.tags["remote"] == "yes"
        assert trace.info.tags["mlflow.traceName"] == name
        assert trace.info.tags["mlflow.artifactLocation"].endswith(
            f"{trace.info.trace_id}/artifacts"
        )
        assert trace.info.trace_metadata["from"] == "afar"
        assert trace.info.state.value == "OK"


@pytest.mark.parametrize("module", ["mlflow", "mlflow_fasttrace"])
def test_the_environments_destination_wins_over_a_run(run_program, server, module):
    wanted = client(server.uri).create_experiment(f"destination-{module}")
    process = run_program(
        f"""
import mlflow as pure
import {module} as mlflow
pure.set_tracking_uri({server.uri!r})
pure.set_experiment("destination-of-runs")
with pure.start_run(), mlflow.start_span("in a run"):
    pass
mlflow.flush_trace_async_logging()
""",
        MLFLOW_TRACING_DESTINATION=wanted,
    )
    assert process.returncode == 0, process.out + process.err
    (trace,) = traces_of(server.uri, f"destination-{module}")
    assert "mlflow.sourceRun" in trace.info.trace_metadata


RUNS_IN_THREADS = """
import threading
import mlflow_fasttrace
import mlflow as pure
import {module} as mlflow
{install}
pure.set_tracking_uri({uri!r})
pure.set_experiment({experiment!r})

def record(name):
    with mlflow.start_span(name):
        pass

def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()

def with_a_run():
    with pure.start_run(run_name="second"):
        record("second")
        with pure.start_run(run_name="inner", nested=True):
            record("inner")
        begun.set()
        done.wait()

begun, done = threading.Event(), threading.Event()
with pure.start_run(run_name="first"):
    other = threading.Thread(target=with_a_run)
    other.start()
    begun.wait()
    record("first")
    in_thread(lambda: record("second, of a thread without"))
    done.set()
    other.join()
    in_thread(lambda: record("first, of a thread without"))
record("none")
mlflow.flush_trace_async_logging()
"""


@pytest.mark.parametrize("module", ["mlflow", "mlflow_fasttrace"])
def test_a_trace_belongs_to_the_run_of_its_thread(run_program, server, module):
    """Only where that has none, to the latest of another."""
    experiment = f"runs of threads, {module}"
    install = "mlflow_fasttrace.install()" if module == "mlflow" else ""
    process = run_program(
        RUNS_IN_THREADS.format(
            module=module, install=install, uri=server.uri, experiment=experiment
        )
    )
    assert process.returncode == 0, process.out + process.err
    its = client(server.uri)
    experiment_id = its.get_experiment_by_name(experiment).experiment_id
    runs = {run.info.run_id: run.info.run_name for run in its.search_runs([experiment_id])}
    traces = traces_of(server.uri, experiment)
    assert {
        trace.data.spans[0].name: runs.get(trace.info.trace_metadata.get("mlflow.sourceRun"))
        for trace in traces
    } == {
        "second": "second",
        "inner": "inner",
        "first": "first",
        "second, of a thread without": "second",
        "first, of a thread without": "first",
        "none": None,
    }


def test_attachments_are_uploaded(run, server):
    traces = run("""
from mlflow.tracing.attachments import Attachment
with mlflow.start_span("objects") as span:
    span.set_inputs({"file": Attachment(content_type="application/pdf", content_bytes=b"%PDF")})
    span.set_outputs("data:image/png;base64,aGVsbG8=")
""")
    from mlflow.tracing.attachments import Attachment
    from mlflow.tracing.client import TracingClient

    info = traces["objects"].info
    root = traces["objects"].data.spans[0]
    repository = TracingClient(server.uri)._get_artifact_repo_for_trace(info)
    for reference, content in ((root.inputs["file"], b"%PDF"), (root.outputs, b"hello")):
        parsed = Attachment.parse_ref(reference)
        assert parsed["trace_id"] == info.trace_id
        assert parsed["size"] == len(content)
        assert repository.download_trace_attachment(parsed["attachment_id"]) == content


def test_attachments_beyond_the_limit_are_left_out(run):
    traces = run(
        """
with mlflow.start_span("big") as span:
    span.set_outputs("data:image/png;base64,aGVsbG8=")
with mlflow.start_span("plain") as span:
    span.set_outputs("data:image/png;base64,aGk=")
""",
        MLFLOW_TRACE_MAX_ATTACHMENT_SIZE="4",
    )
    big = traces["big"].data.spans[0]
    assert big.outputs == "[Attachment too large: 5 bytes exceeds 4 bytes limit]"
    assert big.status.status_code.value == "ERROR"
    assert [event.name for event in big.events] == ["exception"]
    assert traces["plain"].data.spans[0].outputs.startswith("mlflow-attachment://")


def test_attachments_can_be_left_inline(run):
    traces = run(
        """
with mlflow.start_span("inline") as span:
    span.set_outputs(["data:image/png;base64,aGVsbG8=", (1, 2)])
""",
        MLFLOW_TRACE_EXTRACT_ATTACHMENTS="false",
    )
    assert traces["inline"].data.spans[0].outputs == ["data:image/png;base64,aGVsbG8=", [1, 2]]


def test_a_sampling_ratio_records_a_share_of_the_traces(run):
    traces = run(
        """
for n in range(400):
    with mlflow.start_span(f"root {n}"):
        with mlflow.start_span("child"):
            pass
""",
        MLFLOW_TRACE_SAMPLING_RATIO="0.5",
    )
    # Six standard deviations around the half.
    assert 140 <= len(traces) <= 260
    assert all(len(trace.data.spans) == 2 for trace in traces.values())


@pytest.mark.parametrize("ratio", ["2", "many"])
def test_a_bad_ratio_records_all_and_says_so(run, ratio):
    traces = run("mlflow.trace(lambda: None, name='root')()", MLFLOW_TRACE_SAMPLING_RATIO=ratio)
    assert list(traces) == ["root"]
    assert "MLFLOW_TRACE_SAMPLING_RATIO" in run.err


def test_a_childs_destination_is_ignored_and_logged(run):
    traces = run("""
from mlflow.entities.trace_location import MlflowExperimentLocation
with mlflow.start_span("root"):
    with mlflow.start_span("child", trace_destination=MlflowExperimentLocation("1"), run_id="r"):
        pass
""")
    assert [span.name for span in traces["root"].data.spans] == ["root", "child"]
    assert "`experiment_id` parameter can only be used for root spans" in run.err
    assert "`run_id` parameter can only be used for root spans" in run.err


def test_what_was_written_is_read_back(run):
    run("""
import json
read = {}
def names(traces):
    return [trace.data.spans[0].name for trace in traces]
with mlflow.start_span("root") as span:
    pass
read["root"] = names([mlflow.get_trace(span.trace_id)])
with mlflow.start_span("tagged") as span:
    pass
mlflow.set_trace_tag(span.trace_id, "k", "v")
read["tag"] = mlflow.get_trace(span.trace_id).info.tags.get("k")
mlflow.delete_trace_tag(span.trace_id, "k")
read["no tag"] = mlflow.get_trace(span.trace_id).info.tags.get("k")
with mlflow.start_span("judged") as span:
    pass
mlflow.log_feedback(trace_id=span.trace_id, name="good", value=True)
with mlflow.start_span("expected") as other:
    pass
mlflow.log_expectation(trace_id=other.trace_id, name="answer", value=4)
read["found"] = sorted(names(mlflow.search_traces(return_type="list")))
for name, one in (("feedback", span), ("expectation", other)):
    assessments = mlflow.get_trace(one.trace_id).info.assessments
    read[name] = [(found.name, found.value) for found in assessments]
print(json.dumps(read))
""")
    assert json.loads(run.out) == {
        "root": ["root"],
        "tag": "v",
        "no tag": None,
        "found": ["expected", "judged", "root", "tagged"],
        "feedback": [["good", True]],
        "expectation": [["answer", 4]],
    }


def test_a_trace_that_takes_too_long_is_ended(run):
    traces = run(
        """
import threading
root = mlflow.start_span_no_context("stuck")
child = mlflow.start_span_no_context("late", parent_span=root)
while root.end_time_ns is None:
    threading.Event().wait(0.01)
child.end()
""",
        MLFLOW_TRACE_TIMEOUT_SECONDS="1",
    )
    trace = traces["stuck"]
    assert trace.info.state.value == "ERROR"
    root, child = trace.data.spans
    assert "timed out after 1 seconds" in root.events[0].attributes["exception.message"]
    assert child.name == "late"


def test_with_synchronous_logging_a_trace_is_there_at_its_end(run, server):
    run(
        f"""
from mlflow.tracking import MlflowClient
with mlflow.start_span("root") as span:
    pass
print(MlflowClient({server.uri!r}).get_trace(span.trace_id).data.spans[0].name)
""",
        MLFLOW_ENABLE_ASYNC_TRACE_LOGGING="false",
    )
    assert run.out == "root\n"


def test_traces_belong_to_the_environments_active_model(run):
    traces = run(
        "mlflow.trace(lambda: None, name='root')()", MLFLOW_ACTIVE_MODEL_ID="m-from-outside"
    )
    assert traces["root"].info.trace_metadata["mlflow.modelId"] == "m-from-outside"


def test_what_comes_late_is_kept(run):
    traces = run("""
root = mlflow.start_span_no_context("root")
child = mlflow.start_span_no_context("child", parent_span=root)
root.end()
mlflow.set_trace_tag(root.trace_id, "late", "tag")
child.end(outputs=1)
root.end()
root.set_attribute("after", 1)
assert root.outputs is None
""")
    trace = traces["root"]
    assert [span.name for span in trace.data.spans] == ["root", "child"]
    assert trace.info.tags["late"] == "tag"
    assert "after" not in trace.data.spans[0].attributes


def test_views_of_a_span_write_through(run):
    traces = run("""
with mlflow.start_span("before") as span:
    view = span._span
    view._name = "after"
    view._attributes["plain"] = "text"
    view.set_attribute("json", '{"a": 1}')
    view.add_event("event", {"k": "v"})
    span._attributes.set("own", [1])
    assert span._attributes.get("own") == [1]
    assert view.attributes["json"] == '{"a": 1}'
    assert view.is_recording()
    span.set_attribute("gone", 1)
    del view._attributes["gone"]
assert not view.is_recording()
""")
    span = traces["after"].data.spans[0]
    assert span.attributes["plain"] == "text"
    assert span.attributes["json"] == {"a": 1}
    assert span.attributes["own"] == [1]
    assert "gone" not in span.attributes
    assert [event.name for event in span.events] == ["event"]


def test_spans_that_the_server_refuses_are_kept_as_a_file(run):
    """The server answers 422 to this usage. MLflow's client uploads the trace then; so does ours,
    and the traces beside it go their usual way."""
    traces = run("""
for name, usage in (("bad", {"input_tokens": None}), ("list", [1]), ("fine", {"input_tokens": 3})):
    with mlflow.start_span(name) as span:
        span.set_attribute("mlflow.chat.tokenUsage", usage)
""")
    usages = {
        name: trace.data.spans[0].attributes["mlflow.chat.tokenUsage"]
        for name, trace in traces.items()
    }
    assert usages == {"bad": {"input_tokens": None}, "list": [1], "fine": {"input_tokens": 3}}
    assert "mlflow.trace.spansLocation" not in traces["bad"].info.tags
    assert traces["fine"].info.tags["mlflow.trace.spansLocation"] == "TRACKING_STORE"


def test_a_copy_of_a_span_joins_another_trace(run):
    traces = run("""
with mlflow.start_span("original", span_type="TOOL", attributes={"a": 1}) as span:
    span.set_inputs([1])
with mlflow.start_span("around") as around:
    copy = type(span).from_immutable_span(
        span.to_immutable_span(), parent_span_id=around.span_id, trace_id=around.trace_id
    )
    assert copy.span_id == span.span_id
    copy.end()
""")
    around, copy = traces["around"].data.spans
    original = traces["original"].data.spans[0]
    assert copy.parent_id == around.span_id
    assert (copy.name, copy.inputs, copy.span_type) == ("original", [1], "TOOL")
    assert copy.attributes["a"] == original.attributes["a"] == 1
    assert copy.start_time_ns == original.start_time_ns


def test_a_local_store_gets_attachments_and_assessments(run_program, tmp_path):
    """Attachments and assessments by MLflow's own store, without a server."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    process = run_program(
        PREAMBLE.format(uri=uri, experiment="local")
        + """
from mlflow.entities import Link
with mlflow.start_span("root", links=[Link("ab" * 16, "cd" * 8, {"k": "v"})]) as span:
    span.set_outputs("data:text/plain;base64,aGVsbG8=")
    mlflow.log_feedback(trace_id=span.trace_id, value=True)
"""
    )
    assert process.returncode == 0, process.err
    (trace,) = traces_of(uri, "local")
    assert [assessment.name for assessment in trace.info.assessments] == ["feedback"]
    (link,) = trace.data.spans[0].links
    assert (link.trace_id, link.attributes) == ("ab" * 16, {"k": "v"})
    assert client(uri).get_trace(trace.info.trace_id).data.spans[0].outputs.startswith("mlflow-att")


def test_reading_waits_for_delivery(run):
    run("""
import json
from mlflow.entities import Feedback
read = {}
with mlflow.start_span("root") as span:
    mlflow.update_current_trace(session_id="s-1")
first = mlflow.log_feedback(trace_id=span.trace_id, name="good", value=False)
read["logged"] = mlflow.get_assessment(span.trace_id, first.assessment_id).value
mlflow.update_assessment(span.trace_id, first.assessment_id, Feedback(name="good", value=True))
read["updated"] = mlflow.get_assessment(span.trace_id, first.assessment_id).value
other = mlflow.override_feedback(
    trace_id=span.trace_id, assessment_id=first.assessment_id, value=False
)
read["overridden"] = mlflow.get_assessment(span.trace_id, other.assessment_id).value
mlflow.delete_assessment(span.trace_id, other.assessment_id)
read["left"] = [found.value for found in mlflow.get_trace(span.trace_id).info.assessments]
with mlflow.start_span("second"):
    mlflow.update_current_trace(session_id="s-1")
read["sessions"] = [len(session.traces) for session in mlflow.search_sessions()]
try:
    mlflow.log_issue(trace_id=span.trace_id, issue_id="iss-none")
except mlflow.exceptions.MlflowException as error:
    read["no such issue"] = str(error)
print(json.dumps(read))
""")
    read = json.loads(run.out)
    assert "iss-none" in read.pop("no such issue")
    assert read == {
        "logged": False,
        "updated": True,
        "overridden": False,
        "left": [True],
        "sessions": [2],
    }


def test_assessments_that_cannot_be_logged_do_not_raise(run):
    traces = run("""
with mlflow.start_span("span") as span:
    mlflow.log_feedback(trace_id=span.trace_id, name="nan", value=float("nan"))
    mlflow.log_feedback(trace_id=span.trace_id, name=None, value=1)
    mlflow.log_feedback(trace_id=span.trace_id, name="fine", value=1)
""")
    assert [found.name for found in traces["span"].info.assessments] == ["fine"]
    assert "cannot be logged" in run.err


def test_an_experiment_may_be_given_as_a_number(run):
    traces = run(f"""
from mlflow.entities.trace_location import MlflowExperimentLocation
number = int(mlflow.set_experiment({run.experiment!r}).experiment_id)
tracing.set_destination(MlflowExperimentLocation(number))
with mlflow.start_span("by a number"):
    pass
""")
    assert list(traces) == ["by a number"]


def test_tags_that_come_after_the_end_arrive(run):
    traces = run("""
with mlflow.start_span("span") as span:
    span.end()
    mlflow.update_current_trace(tags={"late": "yes"}, response_preview="late too")
mlflow.flush_trace_async_logging()
with mlflow.start_span("delivered") as span:
    span.end()
    mlflow.flush_trace_async_logging()
    mlflow.update_current_trace(tags={"late": "yes"})
""")
    assert traces["span"].info.tags["late"] == "yes"
    assert traces["span"].info.response_preview == "late too"
    assert traces["delivered"].info.tags["late"] == "yes"
    assert "mlflow.trace.sizeStats" in traces["delivered"].info.trace_metadata


def test_a_name_that_is_not_there_is_an_attribute_error():
    import mlflow_fasttrace

    assert not hasattr(mlflow_fasttrace.tracing, "no_such_name")
