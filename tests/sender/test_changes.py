"""An assessment, or a tag, for a trace that another program has in flight waits until the trace is at the server."""

from __future__ import annotations

import time

import mlflow
import mlflow_fasttrace
import pytest
from mlflow_fasttrace._internal.spool.changes import Change, write_change
from mlflow_fasttrace._internal.spool.files import change_paths
from mlflow_fasttrace._internal.spool.overview import all_spools, look_at
from support.bench import record
from support.fault_proxy import FaultProxy, Reply
from support.spools import assert_sender_ends
from support.waiting import wait_until

#: A program with a trace of which nothing has ended until there is a file ``go``.
IN_FLIGHT = """
import os, time
import mlflow_fasttrace as mlflow
mlflow.set_experiment("changed later")
with mlflow.start_span("root") as span:
    open("id.new", "w").write(span.trace_id)
    os.rename("id.new", "id")
    while not os.path.exists("go"):
        time.sleep(0.01)
mlflow.get_trace(span.trace_id)
"""

#: Another one that says something of it.
SAYS = """
{imports}
trace_id = open("id").read()
feedback = mlflow.log_feedback(trace_id=trace_id, name="correct", value=True, rationale="as asked")
mlflow.log_expectation(trace_id=trace_id, name="answer", value={{"is": 42}})
mlflow.set_trace_tag(trace_id, "reviewed", "no")
mlflow.set_trace_tag(trace_id, "reviewed", "yes")
print(feedback.assessment_id)
"""

IMPORTS = {
    "drop-in": "import mlflow_fasttrace as mlflow",
    "installed": "import mlflow, mlflow_fasttrace\nmlflow_fasttrace.install()",
}


@pytest.fixture
def in_flight(own_spool, run_program, tmp_path):
    """Starts the program; gives the id of its trace."""

    def start(uri: str, program: str = IN_FLIGHT) -> str:
        start.program = run_program(program, wait=False, MLFLOW_TRACKING_URI=uri)
        wait_until((tmp_path / "id").exists, what="the trace")
        return (tmp_path / "id").read_text()

    def end() -> None:
        (tmp_path / "go").touch()
        start.program.succeeds()

    start.end = end
    return start


@pytest.mark.parametrize("way", IMPORTS)
@pytest.mark.parametrize("kind", ["server", "sqlite"])
def test_what_is_said_of_another_programs_open_trace_waits_for_it(
    kind, way, server, in_flight, run_program, tmp_path
):
    uri = server.uri if kind == "server" else f"sqlite:///{tmp_path}/store.db"
    trace_id = in_flight(uri)
    said = run_program(SAYS.format(imports=IMPORTS[way]), MLFLOW_TRACKING_URI=uri)
    assert said.returncode == 0, said.err
    assert "the assessment 'correct' waits for it" in said.err.lower()
    in_flight.end()
    info = mlflow.MlflowClient(uri).get_trace(trace_id).info
    assert {a.name: (a.value, a.rationale) for a in info.assessments} == {
        "correct": (True, "as asked"),
        "answer": ({"is": 42}, None),
    }
    assert said.out.split()[-1] in {a.assessment_id for a in info.assessments}
    assert info.tags["reviewed"] == "yes"


def test_what_is_said_of_an_open_trace_that_is_there_in_part_stays(
    server, in_flight, run_program, tmp_path
):
    """Its root's end, and its info, come afterwards."""
    part = 'with mlflow.start_span("leaf"): pass\n    mlflow.flush_trace_async_logging()\n    open("id.new"'
    trace_id = in_flight(server.uri, IN_FLIGHT.replace('open("id.new"', part))
    said = run_program(SAYS.format(imports=IMPORTS["drop-in"]), MLFLOW_TRACKING_URI=server.uri)
    assert said.returncode == 0, said.err
    assert "waits for it" not in said.err
    in_flight.end()
    trace = mlflow.MlflowClient(server.uri).get_trace(trace_id)
    assert {span.name for span in trace.data.spans} == {"root", "leaf"}
    assert trace.info.state == "OK"
    assert {a.name for a in trace.info.assessments} == {"correct", "answer"}
    assert trace.info.tags["reviewed"] == "yes"


@pytest.mark.parametrize("way", IMPORTS)
def test_what_a_forked_child_says_of_its_parents_trace_arrives(way, server, own_spool, run_program):
    program = run_program(
        f"""
import atexit, os
{IMPORTS[way]}
mlflow.set_experiment("changed later")
with mlflow.start_span("root") as span:
    if not (child := os.fork()):
        mlflow.log_feedback(trace_id=span.trace_id, name="correct", value=True)
        mlflow.set_trace_tag(span.trace_id, "reviewed", "yes")
        atexit._run_exitfuncs()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    mlflow.set_trace_tag(span.trace_id, "own", "yes")
mlflow.flush_trace_async_logging()
print(span.trace_id)
""",
        MLFLOW_TRACKING_URI=server.uri,
    )
    assert program.returncode == 0, program.err
    info = mlflow.MlflowClient(server.uri).get_trace(program.out.split()[-1]).info
    assert [a.name for a in info.assessments] == ["correct"]
    assert (info.tags["reviewed"], info.tags["own"]) == ("yes", "yes")


def test_what_no_program_has_in_flight_is_not_found_at_once(server, own_spool, run_program):
    """As by MLflow. That this program records, and has traces open, makes no difference."""
    program = run_program(
        """
import mlflow_fasttrace as mlflow
mlflow.set_experiment("changed later")
with mlflow.start_span("own"):
    mlflow.log_feedback(trace_id="tr-" + "0" * 32, name="correct", value=True)
""",
        MLFLOW_TRACKING_URI=server.uri,
    )
    assert program.returncode == 1
    assert "RESOURCE_DOES_NOT_EXIST: Trace with ID" in program.err
    assert [path for spool in all_spools() for path in change_paths(spool.folder)] == []


def test_a_change_whose_trace_never_comes_is_set_aside(server, in_flight, own_spool, run_program):
    in_flight(server.uri)
    program = run_program(
        """
import mlflow_fasttrace as mlflow
mlflow.log_feedback(trace_id="tr-" + "0" * 32, name="correct", value=True)
""",
        MLFLOW_TRACKING_URI=server.uri,
    )
    assert program.returncode == 0, program.err
    (spool,) = all_spools()
    (waiting,) = change_paths(spool.folder)
    assert look_at(spool).notes == [
        "1 assessment or tag is waiting for traces that are not at the server yet"
    ]
    in_flight.end()
    assert_sender_ends(own_spool)
    view = look_at(spool)
    assert view.notes == [f"1 assessment or tag is set aside: {waiting}.refused"]
    assert view.last_error["text"] == (
        f"the assessment 'correct' of tr-{'0' * 32} is set aside: its trace never came"
    )


@pytest.fixture
def server_of_bench(server, bench):
    """A proxy before the server, to which the bench delivers."""
    with FaultProxy(server.uri) as proxy:
        bench.to(proxy.uri, "changed later")
        yield proxy


def _assessment(name: str) -> dict:
    feedback = mlflow.entities.Feedback(name=name, value=True)
    feedback.assessment_id = f"a-{name}-{time.time_ns()}"
    return feedback.to_dictionary()


def test_a_change_is_made_once_though_its_answer_is_lost(server, server_of_bench, bench):
    trace_id = _recorded(server, bench)
    lost = []

    def lose_the_first(request):
        if request.path.endswith("/assessments") and not lost:
            lost.append(request)
            return Reply(forward=True, drop=True)
        return None

    server_of_bench.fault = lose_the_first
    write_change(str(bench.folder), Change(trace_id, assessment=_assessment("once")))
    bench.run(until=lambda: not change_paths(str(bench.folder)))
    assert lost
    info = mlflow.MlflowClient(server.uri).get_trace(trace_id).info
    assert [a.name for a in info.assessments] == ["once"]


def test_many_changes_hold_up_no_trace(server, server_of_bench, bench):
    server_of_bench.fault = lambda request: time.sleep(0.02) if "tr-" in request.path else None
    for number in range(100):
        change = Change(f"tr-{number:032x}", tag=("key", "value"))
        write_change(str(bench.folder), change)
    bench.sender.step()
    asked = {request.path for request in server_of_bench.requests if "tr-" in request.path}
    assert 2 <= len(asked) <= 40
    _recorded(server, bench)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"trace_id": 1}',
        '{"trace_id": "tr-1", "tag": ["key"]}',
        '{"trace_id": "tr-1", "tag": ["key", 1]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_change_is_set_aside(server, server_of_bench, bench, content):
    write_change(str(bench.folder), Change("tr-1", tag=("key", "value")))
    (path,) = change_paths(str(bench.folder))
    with open(path, "w") as file:
        file.write(content)
    bench.sender.step()
    assert change_paths(str(bench.folder)) == []
    assert "is no change: " in bench.sender.status.last_error["text"]


def test_a_change_that_the_server_refuses_is_set_aside(server, server_of_bench, bench):
    trace_id = _recorded(server, bench)
    write_change(str(bench.folder), Change(trace_id, tag=("k" * 1000, "value")))
    bench.run(until=lambda: not change_paths(str(bench.folder)))
    assert "is set aside: " in bench.sender.status.last_error["text"]
    assert len(list(bench.folder.glob("change-*.refused"))) == 1


def _recorded(server, bench) -> str:
    """The id of a trace that the server has."""
    record()
    trace_id = mlflow_fasttrace.get_last_active_trace_id()
    bench.run()
    return trace_id
