"""Traces that go in several deliveries: what the server adds up, or takes as final once, is as MLflow's."""

from __future__ import annotations

import errno
import signal

import mlflow_fasttrace as mlflow
import pytest
from mlflow_fasttrace._internal.sender import loop
from mlflow_fasttrace._internal.sender.life import sender_for
from support.fault_proxy import INFO, FaultProxy, Reply, Request
from support.lengths import long_but
from support.servers import OTHER_RELEASES, MlflowServer, python_of_release
from support.spools import assert_sender_ends
from support.traces import traces_of

#: Six calls that cost something, each in a delivery of its own; feedback in the first and the last.
AGENT = """
import time
import mlflow_fasttrace as mlflow

mlflow.set_experiment({experiment!r})

@mlflow.trace(span_type="CHAT_MODEL")
def call(n):
    span = mlflow.get_current_active_span()
    usage = {{"input_tokens": 10, "output_tokens": n, "total_tokens": 10 + n}}
    span.set_attribute("mlflow.chat.tokenUsage", usage)
    span.set_attribute("mlflow.llm.cost", {{"input_cost": 0.01, "output_cost": 0.1, "total_cost": 0.11}})

@mlflow.trace
def agent():
    trace_id = mlflow.get_current_active_span().trace_id
    for n in range(6):
        call(n)
        if n == 0:
            mlflow.log_feedback(trace_id=trace_id, name="q", value=True)
        mlflow.update_current_trace(tags={{"step": str(n)}}, metadata={{"step": str(n)}})
        mlflow.flush_trace_async_logging()
        {then}
    mlflow.log_feedback(trace_id=trace_id, name="r", value=False)
    {end}

agent()
mlflow.flush_trace_async_logging()
"""

#: Their stores add the cost of a span that comes a second time a second time; later ones compute the sum anew.
ADD_REPEATED_COSTS = ("3.12.0", "3.13.0", "3.14.0")


@pytest.fixture(
    scope="module",
    params=long_but(["this"], ["this", *OTHER_RELEASES]),
)
def server(request, tmp_path_factory):
    """A server of this release of MLflow, and of the others whose servers are supported."""
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    if request.param != "this":
        server.python = python_of_release(request.param)
    with server:
        yield server


@pytest.mark.parametrize("store", long_but(["server"], ["server", "sqlite"]))
def test_the_sums_of_a_long_trace_are_whole(server, own_spool, run_program, tmp_path, store):
    uri = server.uri if store == "server" else f"sqlite:///{tmp_path}/mlflow.db"
    experiment = f"long, {store}"
    code = AGENT.format(experiment=experiment, then="", end="")
    process = run_program(code, MLFLOW_TRACKING_URI=uri)
    assert process.returncode == 0, process.err
    (trace,) = traces_of(uri, experiment)
    info = trace.info
    assert info.cost["total_cost"] == pytest.approx(0.66)
    assert info.token_usage == {"input_tokens": 60, "output_tokens": 15, "total_tokens": 75}
    assert [assessment.name for assessment in info.assessments] == ["q", "r"]
    assert info.tags["step"] == info.trace_metadata["step"] == "5"
    assert info.state.value == "OK"
    assert len(trace.data.spans) == 7


def test_the_cost_is_whole_though_another_sender_goes_on(server, own_spool, run_program):
    then = """if n == 2:
            import glob, os
            (lock,) = glob.glob(os.environ["MLFLOW_FASTTRACE_SPOOL_DIR"] + "/*/sender.lock")
            os.kill(int(open(lock).read().split()[0]), 9)"""
    code = AGENT.format(experiment="two senders", then=then, end="")
    process = run_program(code, MLFLOW_TRACKING_URI=server.uri, MLFLOW_FASTTRACE_EXIT_TIMEOUT="30")
    assert process.returncode == 0, process.err
    (trace,) = traces_of(server.uri, "two senders")
    assert trace.info.cost["total_cost"] == pytest.approx(0.66)
    assert trace.info.token_usage == {"input_tokens": 60, "output_tokens": 15, "total_tokens": 75}
    assert [assessment.name for assessment in trace.info.assessments] == ["q", "r"]
    assert trace.info.state.value == "OK"
    assert len(trace.data.spans) == 7


@pytest.mark.parametrize(
    "killed", long_but([True], [False, True]), ids=["one sender", "two senders"]
)
def test_the_cost_is_whole_though_answers_to_parts_are_lost(
    request, server, own_spool, run_program, tmp_path, killed
):
    """The server has taken parts that count as undelivered when the trace has ended: its sender, or the next one,
    sends them again."""
    experiment = f"lost answers {killed}"
    ended = tmp_path / "ended"
    taken = []

    def lose_answers(request: Request):
        if request.path == "/v1/traces" and not ended.exists():
            taken.append(request)
            return Reply(forward=True, drop=True)
        return None

    then = "time.sleep(0.3)"
    kill = "os.kill(int(open(glob.glob(SPOOL + '/*/sender.lock')[0]).read().split()[0]), 9)"
    code = AGENT.format(experiment=experiment, then=then, end="")
    code = code.replace("mlflow.flush_trace_async_logging()\n        ", "").replace(
        "agent()\nmlflow",
        "import glob, os\nSPOOL = os.environ['MLFLOW_FASTTRACE_SPOOL_DIR']\n"
        f"agent()\n{kill if killed else ''}\nopen('ended', 'w').close()\nmlflow",
    )
    with FaultProxy(server.uri, lose_answers) as proxy:
        process = run_program(
            code, MLFLOW_TRACKING_URI=proxy.uri, MLFLOW_FASTTRACE_OPEN_TRACE_SECONDS="0"
        )
        assert process.returncode == 0, process.err
    assert taken
    (trace,) = traces_of(server.uri, experiment)
    if request.node.callspec.params["server"] not in ADD_REPEATED_COSTS:
        assert trace.info.cost["total_cost"] == pytest.approx(0.66)
    assert trace.info.token_usage == {"input_tokens": 60, "output_tokens": 15, "total_tokens": 75}
    assert [assessment.name for assessment in trace.info.assessments] == ["q", "r"]
    assert len(trace.data.spans) == 7


def test_what_is_known_of_a_trace_arrives_though_its_program_is_killed(
    server, own_spool, run_program
):
    """Its spans were delivered before, all of them."""
    end = "import os; os.kill(os.getpid(), 9)"
    code = AGENT.format(experiment="killed in a long trace", then="", end=end)
    process = run_program(code, MLFLOW_TRACKING_URI=server.uri)
    assert process.returncode == -signal.SIGKILL
    assert_sender_ends(own_spool)
    (trace,) = traces_of(server.uri, "killed in a long trace")
    assert trace.info.state.value == "IN_PROGRESS"
    assert trace.info.cost["total_cost"] == pytest.approx(0.66)
    assert trace.info.tags["mlflow.traceName"] == "agent"
    assert trace.info.trace_metadata["mlflow.user"]
    assert len(trace.data.spans) == 6
    assert not list(own_spool.glob("*/open-*"))


def test_feedback_comes_once_though_an_answer_is_lost(server, bench, experiment):
    lost: list[Request] = []

    def fault(request: Request) -> Reply | None:
        if request.path != INFO or len(lost) == 2:
            return None
        lost.append(request)
        return Reply(forward=True, drop=True)

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        with mlflow.start_span("root") as span:
            for name in "q", "r":
                mlflow.log_feedback(trace_id=span.trace_id, name=name, value=True)
        bench.run(seconds=60)
    assert len(lost) == 2
    (trace,) = traces_of(server.uri, experiment)
    assert sorted(assessment.name for assessment in trace.info.assessments) == ["q", "r"]


def calls_that_cost(*names: str, parent) -> None:
    """Ended spans, each of which costs 0.11."""
    for name in names:
        call = mlflow.start_span_no_context(name, parent_span=parent, span_type="CHAT_MODEL")
        cost = {"input_cost": 0.01, "output_cost": 0.1, "total_cost": 0.11}
        call.set_attribute("mlflow.llm.cost", cost)
        call.end()


def assert_costs(uri: str, experiment: str, dollars: float) -> None:
    (trace,) = traces_of(uri, experiment)
    assert trace.info.state.value == "OK"
    assert trace.info.cost["total_cost"] == pytest.approx(dollars)


def all_but_a_span_is_read(bench):
    """Records a trace of two spans that cost something, and gives the sender all of it but one of them.

    Returns:
        The record of that.
    """
    root = mlflow.start_span_no_context("root")
    calls_that_cost("first", "second", parent=root)
    root.end()
    bench.sender.scan()
    (ring,) = bench.sender.intake.rings.values()
    entries = ring.read()
    (unread,) = [entry for entry in entries if b"second" in entry.record]
    bench.sender.assembler.add([entry for entry in entries if entry is not unread])
    return unread


class OfNobody:
    """The reader of a ring whose program is gone, as it seems."""

    def __init__(self, reader):
        self._reader = reader

    def __getattr__(self, name):
        return getattr(self._reader, name)

    def alive(self):
        return False


def test_a_program_is_gone_only_when_all_is_read_that_it_recorded(server, bench, experiment):
    """It may record and be killed between a look at its ring and the delivery of what was there."""
    bench.to(server.uri, experiment)
    root = mlflow.start_span_no_context("root")
    calls_that_cost("first", parent=root)
    bench.sender.scan()
    bench.sender.intake.read()
    calls_that_cost("second", parent=root)
    root.end()
    (ring,) = bench.sender.intake.rings.values()
    ring.reader = OfNobody(ring.reader)
    (trace,) = bench.open_traces()
    trace.since -= 60
    bench.sender.deliver()
    assert not trace.info_was_sent()
    bench.run()
    assert_costs(server.uri, experiment, 0.22)


def test_a_trace_waits_for_spans_that_lie_unread_before_its_end(server, bench, experiment):
    """Its end is in its program's ring, what did not fit there in a segment that nobody has looked for yet."""
    bench.to(server.uri, experiment)
    late = all_but_a_span_is_read(bench)
    (trace,) = bench.open_traces()
    trace.since -= 60
    bench.sender.intake.flush_wanted = True
    bench.sender.deliver()
    assert bench.open_traces() == [trace], "it was sent without a span"
    assert bench.sender.waits_for_spans
    bench.sender.assembler.add([late])
    bench.run()
    assert_costs(server.uri, experiment, 0.22)


def test_a_trace_does_not_wait_for_spans_that_are_nowhere(server, bench, experiment):
    """An earlier sender has delivered them, say."""
    bench.to(server.uri, experiment)
    all_but_a_span_is_read(bench).acknowledge()
    bench.sender.intake.flush_wanted = True
    bench.run(seconds=10)
    assert_costs(server.uri, experiment, 0.11)


def test_where_memory_is_short_spans_go_alone_and_the_info_behind_the_last(
    server, bench, experiment, monkeypatch
):
    monkeypatch.setattr(loop, "MEMORY_BYTES", 1)
    bench.to(server.uri, experiment)
    late = all_but_a_span_is_read(bench)
    bench.sender.deliver()
    (trace,) = bench.open_traces()
    assert (trace.spans, bench.sender.status.spans) == ([], 2)
    bench.sender.deliver()
    assert bench.open_traces() == [trace], "its info was sent"
    bench.sender.assembler.add([late])
    bench.run()
    assert_costs(server.uri, experiment, 0.22)
    assert bench.sender.assembler.memory_bytes == 0


def test_a_trace_waits_for_spans_that_were_packed(server, bench, experiment):
    bench.to(server.uri, experiment)
    root = mlflow.start_span_no_context("root")
    calls_that_cost("first", "second", parent=root)
    bench.sender.scan()
    bench.sender.intake.read()
    (ring,) = bench.sender.intake.rings.values()
    assert bench.sender.packing._pack_ring(ring)
    bench.sender.assembler.drop_done()
    root.end()
    bench.sender.assembler.add(ring.read())
    bench.sender.intake.flush_wanted = True
    bench.sender.deliver()
    assert bench.sender.status.spans == 0
    bench.run()
    assert_costs(server.uri, experiment, 0.22)


def test_the_info_of_a_killed_programs_trace_arrives_though_memory_was_short(
    server, bench, experiment, monkeypatch
):
    """Its spans go while segments lie unread that may have more of it."""
    bench.to(server.uri, experiment)
    intake = bench.sender.intake
    read = intake._read_segments
    monkeypatch.setattr(loop, "MEMORY_BYTES", 1)
    monkeypatch.setattr(intake, "_read_segments", lambda: (read()[0], False))
    root = mlflow.start_span_no_context("root")
    calls_that_cost("first", parent=root)
    bench.sender.scan()
    (ring,) = intake.rings.values()
    ring.reader = OfNobody(ring.reader)
    bench.run(lambda: bench.sender.status.spans == 1)
    (trace,) = traces_of(server.uri, experiment)
    assert "mlflow.traceName" not in trace.info.tags
    monkeypatch.setattr(intake, "_read_segments", read)
    bench.run(lambda: "mlflow.traceName" in traces_of(server.uri, experiment)[0].info.tags)


def test_the_info_arrives_of_a_trace_that_an_earlier_sender_has_begun(server, bench, experiment):
    """Its program is killed, and the next sender finds its last record on disk and more spans in the ring."""
    bench.to(server.uri, experiment)
    root = mlflow.start_span_no_context("root")
    calls_that_cost("first", parent=root)
    bench.sender.intake.flush_wanted = True
    bench.run(lambda: bench.left() == 0 and bench.sender.status.spans == 1)
    calls_that_cost("second", parent=root)
    bench.sender = sender_for(str(bench.folder), bench.rings, server.uri)
    bench.sender.scan()
    (ring,) = bench.sender.intake.rings.values()
    ring.reader = OfNobody(ring.reader)
    bench.sender.intake.flush_wanted = True
    bench.run(lambda: bench.sender.status.spans > 1)
    bench.run()
    (trace,) = traces_of(server.uri, experiment)
    assert trace.info.tags["mlflow.traceName"] == "root"
    assert trace.info.state.value == "IN_PROGRESS"
    assert trace.info.cost["total_cost"] == pytest.approx(0.22)


def test_a_file_that_may_be_readable_soon_counts_as_unread(bench, experiment):
    bench.to("http://127.0.0.1:9", experiment)
    intake = bench.sender.intake

    def up_to() -> float:
        intake.scan()
        intake.read()
        return intake.read_up_to

    first = up_to()
    intake._leave_alone("of a descriptor", OSError(errno.EMFILE, "too many open files"))
    intake._leave_alone("nobody's", PermissionError("it is another user's"))
    intake._forget_left_alone = lambda there: None
    assert up_to() == first
    intake._leave_alone("of a descriptor", OSError(errno.EMFILE, "too many open files"))
    assert up_to() > first
