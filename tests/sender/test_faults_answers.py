"""What the sender makes of a server's answers: which are acknowledgements, whose fault a refusal is, when
to come back. The sender runs in the test's process, step by step."""

from __future__ import annotations

import email.utils
import json
import os
import time
from pathlib import Path

import mlflow_fasttrace as mlflow
import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._core import LiveSpan
from mlflow_fasttrace._internal.sender import (
    assemble,
    dead_letters,
    foreground,
    life,
    span_requests,
    verdicts,
)
from mlflow_fasttrace._internal.sender import http as sender_http
from mlflow_fasttrace._internal.sender.answers import Answer
from mlflow_fasttrace._internal.sender.assemble import RememberedTraces
from mlflow_fasttrace._internal.sender.availability import Backoff
from mlflow_fasttrace._internal.sender.exceptions import Unavailable
from mlflow_fasttrace._internal.sender.life import sender_for
from mlflow_fasttrace._internal.spool.folder import Spool
from mlflow_fasttrace._internal.spool.records import SPAN, TRACE
from mlflow_fasttrace._internal.spool.ring_states import ServerState
from support.bench import Bench, record
from support.fault_proxy import (
    HTML,
    INFO,
    JSON,
    PROTOBUF,
    SPANS,
    FaultProxy,
    Reply,
    Request,
    Times,
    TooLarge,
)
from support.records import items_of
from support.traces import client, traces_of
from support.waiting import Patience, refusing_port

# ---- what is an acknowledgement ----


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        (SPANS, Reply(200, b'{"message": "sign in"}', JSON)),
        (SPANS, Reply(200, b"<html>sign in</html>", PROTOBUF)),
        (SPANS, Reply(204, b"", PROTOBUF)),
        (INFO, Reply(200, b'{"trace": null}', JSON)),
        (INFO, Reply(200, b'{"trace": {"trace_info": {"trace_id": "tr-0"}}}', JSON)),
    ],
)
def test_an_answer_that_is_no_acknowledgement_delivers_nothing(
    server, bench, experiment, path, reply
):
    fault = Times(2, reply, path)
    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(3)
        bench.run()
    assert fault.left == 0
    found = traces_of(server.uri, experiment)
    assert [len(trace.data.spans) for trace in found] == [1, 1, 1]
    assert all("mlflow.trace.sizeStats" in trace.info.trace_metadata for trace in found)
    assert not bench.dead_letters()


def test_spans_that_an_otlp_answer_rejects_are_not_delivered(server, bench, experiment):
    """MLflow never says so, but what stands before it may."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 1
    answer.partial_success.error_message = "too old"
    reply = Reply(200, answer.SerializeToString(), PROTOBUF)

    def fault(request: Request) -> Reply | None:
        return reply if request.path == SPANS and b"reject me" in request.body else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(3)
        record(1, inputs="reject me")
        bench.run()
    found = traces_of(server.uri, experiment)
    assert [len(trace.data.spans) for trace in found] == [1] * 4, "one of them as a file"


@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_an_answer_without_an_end_costs_a_bounded_time(
    server, bench, experiment, monkeypatch, pause
):
    """Memory and time that an answer costs have a bound."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    body = b"x" if pause else b"x" * (1 << 20)
    fault = Times(1, Reply(200, body, JSON, endless=True), INFO)
    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(2)
        bench.run()
    assert len(traces_of(server.uri, experiment)) == 2


def test_a_request_has_mlflows_time_limit(server, bench, experiment, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with FaultProxy(server.uri, Times(1, Reply(silent=True), SPANS)) as proxy:
        bench.to(proxy.uri, experiment)
        record(2)
        bench.run(seconds=10)
    assert len(traces_of(server.uri, experiment)) == 2
    assert "does not answer" in caplog.text


# ---- whose fault a refusal is ----


def test_an_experiment_that_is_not_permitted_holds_up_no_other(server, bench, experiment, caplog):
    forbidden = client(server.uri).create_experiment(experiment + " closed")
    denied = [True]

    def fault(request: Request) -> Reply | None:
        wanted = f'"experiment_id": "{forbidden}"'.encode() in request.body
        wanted |= request.headers.get("x-mlflow-experiment-id") == forbidden
        return Reply(403, b"Permission denied") if denied and wanted else None

    with FaultProxy(server.uri, fault) as proxy:
        for n in range(5):
            bench.to(proxy.uri, {"id": forbidden})
            record(1, inputs=n)
            bench.to(proxy.uri, experiment)
            record(1, inputs=n)
        bench.run(lambda: bench.left() == 5)
        assert len(traces_of(server.uri, experiment)) == 5
        assert caplog.text.count("MLFLOW_TRACKING_TOKEN") == 1
        assert not bench.dead_letters()
        denied.clear()
        bench.run()
    assert len(traces_of(server.uri, experiment + " closed")) == 5


def test_an_experiment_that_cannot_be_made_holds_up_no_other(server, bench, experiment):
    answer = Reply(400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}', JSON)

    def fault(request: Request) -> Reply | None:
        create = request.path == "/api/2.0/mlflow/experiments/create"
        return answer if create and b"bad name" in request.body else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment + " bad name")
        record(3)
        bench.to(proxy.uri, experiment)
        record(3)
        bench.run(lambda: bench.left() == 3)
    assert len(traces_of(server.uri, experiment)) == 3
    assert not bench.dead_letters()


def test_a_server_that_lost_its_experiments_gets_all(server, bench, experiment):
    """The server's database is new: the experiment's name has another id."""
    real = "/api/2.0/mlflow/experiments/get-by-name"

    def fault(request: Request) -> Reply | None:
        if request.path.startswith(real) and not stale:
            stale.append(1)
            body = {"experiment": {"experiment_id": "987654321", "name": experiment}}
            return Reply(200, json.dumps(body).encode(), JSON)
        return None

    stale: list[int] = []
    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(5)
        bench.run()
    assert len(traces_of(server.uri, experiment)) == 5
    assert not bench.dead_letters()


def test_an_experiment_that_somebody_else_has_just_made_is_taken(server, bench, experiment, caplog):
    def fault(request: Request) -> Reply | None:
        if request.path == "/api/2.0/mlflow/experiments/create":
            client(server.uri).create_experiment(experiment)
        return None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(3)
        bench.run()
    assert len(traces_of(server.uri, experiment)) == 3
    assert not [line for line in caplog.records if line.levelname == "WARNING"]


def test_what_a_server_says_controls_nothing_in_the_log(server, bench, experiment, caplog):
    said = b"\x1b[2J busy\r\n2026-01-01 ERROR all is lost \xe2\x80\xae \xff"
    with FaultProxy(server.uri, Times(1, Reply(503, said, HTML), INFO)) as proxy:
        bench.to(proxy.uri, experiment)
        record(1)
        bench.run()
    (line,) = [line for line in caplog.messages if "answered 503" in line]
    assert line.endswith(
        "answered 503: \\x1b[2J busy\\r 2026-01-01 ERROR all is lost \\u202e \ufffd"
    )


# ---- what is wrong before anything is sent ----

NO_EXPERIMENTS = {
    "an id with an accent": {"id": "é"},
    "an id of two lines": {"id": "0\n1"},
    "an empty id": {"id": " "},
    "a name that is not UTF-8": {"name": "caf\udce9"},
}


@pytest.fixture(params=["server", "sqlite"])
def any_uri(request, tmp_path, monkeypatch):
    if request.param == "server":
        return request.getfixturevalue("server").uri
    monkeypatch.chdir(tmp_path)  # where the store keeps files
    return f"sqlite:///{tmp_path}/any.db"


@pytest.mark.parametrize("named", NO_EXPERIMENTS)
def test_an_experiment_that_cannot_be_keeps_its_own_traces_alone(any_uri, bench, experiment, named):
    bench.to(any_uri, NO_EXPERIMENTS[named])
    record(2, "bad", children=1)
    bench.to(any_uri, experiment)
    record(3, "good")
    bench.run()
    assert _spans_named(any_uri, experiment, "good") == 3
    assert len(bench.dead_letters()) == 2
    assert all("can be the" in reason for reason in bench.dead_letters())


def test_an_id_from_a_file_is_stripped(any_uri, bench, experiment):
    made = client(any_uri).create_experiment(experiment)
    bench.to(any_uri, {"id": f" {made}\n"})
    record(2, "stripped")
    bench.run()
    assert _spans_named(any_uri, experiment, "stripped") == 2


@pytest.mark.parametrize("method", ["send_info", "send_spans"])
def test_an_error_of_this_package_ends_up_with_the_one_trace_that_causes_it(
    any_uri, bench, experiment, monkeypatch, caplog, method
):
    """No record does it that is known. The next one is not known, either."""
    monkeypatch.setattr(verdicts, "FAILURES_OF_A_TRACE", 2)
    bench.to(any_uri, experiment)
    record(1, "first")
    bench.run()
    destination = bench.sender.delivery.destination

    def failing(own):
        def fail(*args, **kwargs):
            if "poison" in repr(args):
                raise ZeroDivisionError("of this package")
            return own(*args, **kwargs)

        return fail

    for name in (method, "send_new_infos") if method == "send_info" else (method,):
        monkeypatch.setattr(destination, name, failing(getattr(destination, name)))
    record(4, "good", children=1)
    record(1, "poison", inputs="poison")
    record(4, "good", children=1)
    bench.run(lambda: bench.left() == 1)
    assert _spans_named(any_uri, experiment, "good") == 8
    record(1, "later")
    bench.run()
    if method == "send_info":
        assert "ZeroDivisionError: of this package" in bench.dead_letters()[0]
    else:
        assert _spans_named(any_uri, experiment, "poison") == 1, "they went as a file"
    assert "Traceback" in caplog.text
    assert bench.sender.availability.state == ServerState.ANSWERS


def test_another_database_makes_no_dead_letters_of_a_backlog(server, bench):
    """Where no experiment is there the fault is the server's, not that of every trace."""
    with FaultProxy(server.uri) as proxy:
        bench.to(proxy.uri, {"id": "987654321"})
        record(20)
        bench.run(lambda: len(proxy.requests) >= 6)
    assert bench.left() == 20
    assert not bench.dead_letters()


@pytest.mark.parametrize("path", [INFO, SPANS])
@pytest.mark.parametrize("status", [400, 403, 406])
def test_a_guard_that_blocks_some_traces_holds_up_no_other(server, bench, experiment, path, status):
    """The guard's page says nothing of MLflow, and the first traces it sees are those that it blocks."""

    def fault(request: Request) -> Reply | None:
        if request.path == path and b"DROP TABLE" in request.body:
            return Reply(status, b"<html>blocked</html>", HTML)
        return None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(5, "bad", "DROP TABLE")
        record(10, "good")
        bench.run(lambda: bench.left() <= 5)
        assert _spans_named(server.uri, experiment, "good") == 10
        assert not bench.dead_letters(), "not after one try"


@pytest.mark.parametrize("path", [INFO, SPANS])
def test_what_a_guard_blocked_before_holds_up_no_other(server, bench, experiment, path):
    """What was blocked before comes last, and all of it is due at the same time as the others. It is the whole of
    a batch then, which says nothing of the server."""
    first_batch = 13  # to a server that has taken none yet

    def fault(request: Request) -> Reply | None:
        if request.path == path and b"DROP TABLE" in request.body:
            return Reply(403, b"<html>blocked</html>", HTML)
        return None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(5, "bad", "DROP TABLE")
        bench.run(lambda: all(trace.schedule.denials for trace in bench.open_traces()))
        for trace in bench.open_traces():
            trace.schedule.suspect = True  # else it is one of those behind the third
        record(first_batch, "good")
        bench.sender.scan()
        bench.sender.intake.read(with_segments=True)
        for trace in bench.open_traces():
            trace.schedule.not_before = 0.0
        bench.sender.availability.backoff.succeeded()
        bench.sender.step()
        assert [trace.schedule.denials for trace in bench.open_traces()] == [2] * 5
        assert _spans_named(server.uri, experiment, "good") == first_batch
        assert bench.sender.availability.state == ServerState.ANSWERS


def _spans_named(uri: str, experiment: str, name: str) -> int:
    traces = traces_of(uri, experiment)
    return sum(span.name == name for trace in traces for span in trace.data.spans)


REFUSED = Reply(400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "cannot"}', JSON)


def test_what_fails_alone_waits_alone_and_not_for_ever(
    server, bench, experiment, monkeypatch, caplog
):
    """Nothing else comes, so the trace that the server took last is sent once more: that shows whose
    fault the failure is, and changes nothing."""
    monkeypatch.setattr(verdicts, "FAILURES_OF_A_TRACE", 2)

    def fault(request: Request) -> Reply | None:
        bad = request.path == INFO and b"poison" in request.body
        return Reply(500, b'{"error_code": "INTERNAL_ERROR"}', JSON) if bad else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(1, "good", children=2)
        bench.run()
        (before,) = traces_of(server.uri, experiment)
        record(1, "poison")
        bench.run(bench.dead_letters)
        (after,) = traces_of(server.uri, experiment)
    assert after.to_dict() == before.to_dict()
    assert "500" in bench.dead_letters()[0]
    assert bench.left() == 0
    assert bench.sender.availability.state == ServerState.ANSWERS


def test_several_that_fail_become_a_dead_letter_each(server, bench, experiment, monkeypatch):
    monkeypatch.setattr(verdicts, "FAILURES_OF_A_TRACE", 2)

    def fault(request: Request) -> Reply | None:
        return Reply(500) if request.path == INFO and b"poison" in request.body else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(1, "good")
        bench.run()
        record(5, "poison")
        bench.run(lambda: len(bench.dead_letters()) == 5)
    assert bench.left() == 0
    assert all("500" in reason for reason in bench.dead_letters())
    assert [trace.data.spans[0].name for trace in traces_of(server.uri, experiment)] == ["good"]


def test_a_server_that_fails_for_everything_makes_no_dead_letters(
    server, bench, experiment, monkeypatch
):
    monkeypatch.setattr(verdicts, "FAILURES_OF_A_TRACE", 2)
    monkeypatch.setattr(
        "mlflow_fasttrace._internal.sender.availability.random.uniform", lambda a, b: 0.05
    )
    down: list[int] = []

    def fault(request: Request) -> Reply | None:
        return Reply(500) if down and request.method == "POST" else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(1)
        bench.run()
        down.append(1)
        asked = len(proxy.requests)
        record(1)
        bench.run(lambda: len(proxy.requests) - asked >= 12)
        assert not bench.dead_letters()
        assert bench.left() == 1
        down.clear()
        bench.run()
    assert len(traces_of(server.uri, experiment)) == 2


def test_what_fails_alone_holds_up_nothing_new(server, bench, experiment):
    """Whose fault a failure is cannot be known before the server has taken anything; pauses grow."""

    def fault(request: Request) -> Reply | None:
        return Reply(500) if request.path == INFO and b"poison" in request.body else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(1, "poison")
        bench.run(lambda: len([r for r in proxy.requests if fault(r)]) == 2)
        bench.sender.availability.backoff.failed(300.0)
        record(3, "good")
        bench.run(lambda: bench.left() == 1, seconds=10)
    assert len(traces_of(server.uri, experiment)) == 3
    assert not bench.dead_letters()


# ---- dead letters ----


def letters(bench) -> list[list[tuple[int, bytes]]]:
    """The kind and the record of each part of each dead letter."""
    return [
        [(kind, record) for kind, _trace, record in items_of(_core.SegmentReader(str(path)))]
        for path in sorted(bench.folder.glob("refused-*.seg.refused"))
    ]


def retry(bench: Bench, uri: str, experiment: str) -> None:
    """Puts the dead letters back in line, for a sender that knows nothing of them."""
    from mlflow_fasttrace._internal.sender.foreground import retry_refused
    from mlflow_fasttrace._internal.spool.folder import Spool

    waiting = len(letters(bench))
    assert retry_refused(Spool("x", str(bench.folder), bench.rings)) == waiting
    assert not letters(bench)
    bench.sender = None
    bench.to(uri, experiment)
    bench.run(lambda: not list(bench.folder.glob("packed-*.seg")) and bench.left() == 0)


def test_a_second_dead_letter_leaves_the_first(server, bench, experiment):
    refused = [1]

    def fault(request: Request) -> Reply | None:
        return REFUSED if refused and request.path in (INFO, SPANS) else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        with mlflow.start_span("root"):
            record(1, "early")
            bench.sender.intake.flush_wanted = True
            bench.run(lambda: len(letters(bench)) == 1)
            record(1, "later")
            bench.sender.intake.flush_wanted = True
            bench.run(lambda: len(letters(bench)) == 2)
        bench.run(lambda: len(letters(bench)) == 3)
        assert bench.left() == 0
        assert len(bench.dead_letters()) == 3
        (trace_id,) = {
            letter.trace_id for letter in _looked_at(bench).dead_letters if not letter.span_id
        }
        refused.clear()
        retry(bench, proxy.uri, experiment)
    (trace,) = traces_of(server.uri, experiment)
    assert trace.info.trace_id == trace_id
    assert sorted(span.name for span in trace.data.spans) == ["early", "later", "root"]
    assert trace.info.state.value == "OK"


def _looked_at(bench: Bench):
    from mlflow_fasttrace._internal.spool import overview
    from mlflow_fasttrace._internal.spool.folder import Spool

    return overview.look_at(Spool("x", str(bench.folder), bench.rings))


def test_a_dead_letter_of_spans_says_where_they_go(server, bench, experiment):
    """The trace's info, acknowledged before, is in the dead letter too, and is not sent again."""
    refused: list[int] = []

    def fault(request: Request) -> Reply | None:
        return REFUSED if refused and request.path == SPANS else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        around = mlflow.start_span_no_context("root")
        mlflow.start_span_no_context("early", parent_span=around).end()
        bench.sender.intake.flush_wanted = True
        bench.run(lambda: bench.sender.availability.state == ServerState.ANSWERS)
        refused.append(1)
        mlflow.start_span_no_context("late", parent_span=around).end()
        bench.sender.intake.flush_wanted = True
        bench.run(lambda: letters(bench))
        (letter,) = letters(bench)
        assert sorted(kind for kind, _record in letter) == [SPAN, TRACE]
        # The dead letter is all that is left of the trace: no open trace, no ring, no earlier sender.
        for path in bench.folder.glob("open-*.seg"):
            path.unlink()
        refused.clear()
        infos = len([r for r in proxy.requests if r.path == INFO])
        retry(bench, proxy.uri, experiment)
        assert len([r for r in proxy.requests if r.path == INFO]) == infos
    (trace,) = traces_of(server.uri, experiment)
    assert sorted(span.name for span in trace.data.spans) == ["early", "late"]


def test_a_trace_whose_dead_letter_cannot_be_written_stays_in_its_ring(
    server, bench, experiment, monkeypatch, caplog
):
    """The other traces arrive, and the dead letter is tried again."""
    monkeypatch.setattr(dead_letters, "RETRY_SECONDS", 0.5)

    def fault(request: Request) -> Reply | None:
        return REFUSED if request.path == INFO and b"poison" in request.body else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        gone = bench.folder.rename(bench.folder.with_name("gone"))
        record(1, "poison")
        record(3)
        bench.run(lambda: bench.left() == 1)
        bench.run(lambda: len([r for r in proxy.requests if fault(r)]) >= 3)
        assert len(traces_of(server.uri, experiment)) == 3
        (ring,) = bench.sender.intake.rings.values()
        assert ring.reader.tail == 0, "it is still in the ring"
        assert caplog.text.count("cannot be written") == 1
        gone.rename(bench.folder)
        bench.run()
    assert len(bench.dead_letters()) == 1
    assert ring.reader.tail == ring.reader.head


# ---- traces that go on after they were sent as far as they are ----


@pytest.mark.parametrize("way", ["in a ring", "packed", "long after"])
def test_spans_arrive_that_come_after_their_record_was_delivered(server, bench, experiment, way):
    """The sender that delivered the trace's record is gone, or has forgotten it, and the program does not
    say again where the spans go."""
    away: list[int] = []

    def fault(request: Request) -> Reply | None:
        return Reply(503) if away else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        around = mlflow.start_span_no_context("root")
        mlflow.start_span_no_context("early", parent_span=around).end()
        bench.sender.intake.flush_wanted = True
        bench.run(lambda: bench.left() == 0 and bench.sender.status.traces == 1)
        if way == "long after":
            bench.sender.assembler.remembered = RememberedTraces()
        else:
            away.extend([1] if way == "packed" else [])
            bench.sender.availability.state = ServerState.UNKNOWN
        mlflow.start_span_no_context("late", parent_span=around).end()
        if way == "packed":
            bench.sender.intake.flush_wanted = True
            bench.run(lambda: list(bench.folder.glob("packed-*.seg")))
            (ring,) = bench.folder.parent.glob("rings/*.ring")
            ring.unlink()
            away.clear()
        if way != "long after":
            bench.sender = sender_for(str(bench.folder), bench.rings, proxy.uri)
        delivered = bench.sender.status.spans
        bench.sender.intake.flush_wanted = True
        bench.run(lambda: bench.sender.status.spans > delivered, seconds=10)
        infos = [r for r in proxy.requests if r.path == INFO]
        assert len(infos) == (way == "packed"), "it goes where the program is gone"
    (trace,) = traces_of(server.uri, experiment)
    assert sorted(span.name for span in trace.data.spans) == ["early", "late"]
    if way == "packed":
        bench.sender.intake.sweep()
        bench.sender.forget_open_traces()
        assert not list(bench.folder.glob("*.seg"))


def test_an_older_part_of_a_trace_does_not_open_it_again(server, bench, experiment):
    """In a backlog of several files the later part of a trace may come first, and long before the other."""
    bench.to(server.uri, experiment)
    with mlflow.start_span("root"):
        record(1, "early")
    bench.sender.intake.scan()
    (ring,) = bench.sender.intake.rings.values()
    entries = ring.read()
    for part in entries[2:], entries[:2]:
        bench.sender.assembler.add(part)
        bench.sender.intake.flush_wanted = True
        bench.run(lambda part=part: all(entry.done for entry in part))
        bench.sender.assembler.remembered = RememberedTraces()
    (trace,) = traces_of(server.uri, experiment)
    assert sorted(span.name for span in trace.data.spans) == ["early", "root"]
    assert trace.info.state.value == "OK"


def test_records_of_open_traces_go_with_their_end(server, bench, experiment):
    bench.to(server.uri, experiment)
    with mlflow.start_span("root"):
        record(1, "early")
        bench.sender.intake.flush_wanted = True
        bench.run(lambda: list(bench.folder.glob("open-*.seg")))
    bench.run(lambda: bench.left() == 0 and not list(bench.folder.glob("open-*.seg")))
    (trace,) = traces_of(server.uri, experiment)
    assert len(trace.data.spans) == 2


# ---- more than a server takes ----


def test_a_server_that_is_too_slow_for_large_requests_gets_smaller_ones(
    server, bench, experiment, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")

    def fault(request: Request) -> Reply | None:
        slow = request.path == SPANS and len(request.body) > 30_000
        return Reply(silent=True) if slow else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(40, inputs="x" * 1000)
        bench.run(seconds=30)
    assert len(traces_of(server.uri, experiment)) == 40


def test_the_size_that_a_server_takes_is_remembered(server, bench, experiment):
    fault = TooLarge(200_000)
    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(20, inputs="x" * 30_000)
        bench.run()
        refused = len([r for r in proxy.requests if fault(r)])
        record(20, inputs="x" * 30_000)
        bench.run()
        assert len([r for r in proxy.requests if fault(r)]) == refused
    assert len(traces_of(server.uri, experiment)) == 40


@pytest.mark.parametrize("reply", [Reply(500, b'{"error_code": "X"}', JSON), Reply(503)])
def test_a_failure_in_the_middle_of_parts_loses_none(server, bench, experiment, reply):
    parts: list[float] = []

    def fault(request: Request) -> Reply | None:
        if request.path != SPANS:
            return None
        if len(request.body) > 8000:
            return Reply(413, b"", HTML)
        parts.append(time.monotonic())
        return reply if len(parts) > 1 and parts[-1] - parts[0] < 1 else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(1, children=40)
        bench.run()
    (trace,) = traces_of(server.uri, experiment)
    assert len(trace.data.spans) == 41
    assert not bench.dead_letters()


def test_a_trace_with_a_span_that_is_too_large_goes_whole_as_a_file(server, bench, experiment):
    """MLflow reads a trace's file only while none of its spans is in the database."""
    with FaultProxy(server.uri, TooLarge(50_000)) as proxy:
        bench.to(proxy.uri, experiment)
        with mlflow.start_span("root"):
            for size in (10, 100_000, 10, 10):
                with mlflow.start_span("child") as span:
                    span.set_inputs("x" * size)
        bench.run()
    (trace,) = traces_of(server.uri, experiment)
    assert len(trace.data.spans) == 5
    assert not bench.dead_letters()


# ---- files ----


def spans_as_files(request: Request) -> Reply | None:
    return Reply(404, b"<html>Not Found</html>", HTML) if request.path == SPANS else None


def test_spans_that_come_after_the_file_join_it(server, bench, experiment):
    """A forked child's spans, say, must not take the place of the first ones."""
    with FaultProxy(server.uri, spans_as_files) as proxy:
        bench.to(proxy.uri, experiment)
        record(1, "first")
        bench.run()
        # A second part of the trace comes from a sender that knows nothing of the first.
        (trace,) = traces_of(server.uri, experiment)
        assert len(trace.data.spans) == 1
        bench.sender = None
        bench.to(proxy.uri, experiment)
        late = _late_records(bench, trace)
        bench.sender.assembler.add(late)
        bench.run()
    (trace,) = traces_of(server.uri, experiment)
    assert sorted(span.name for span in trace.data.spans) == ["first", "second"]


def _late_records(bench: Bench, trace):
    """A second span's records, as of the first span's trace."""
    from mlflow_fasttrace._internal.sender.sources import Entry

    record(1, "second")
    bench.sender.intake.scan()
    (ring,) = bench.sender.intake.rings.values()
    entries = ring.read()
    wanted = bytes.fromhex(trace.info.trace_id.removeprefix("tr-"))
    changed = []
    for entry in entries:
        content = entry.record.replace(entry.trace_id, wanted)
        moved = Entry(entry.source, entry.position, entry.kind, wanted, content)
        ring.pending[ring.pending.index(entry)] = moved
        changed.append(moved)
    return changed


def test_a_proxy_without_a_backend_is_no_server_without_otlp(server, bench, experiment):
    """The proxy's page for /v1/traces must not turn traces into files, least of all a trace whose first
    spans are in the database: its file would not be read."""
    gone = []

    def fault(request: Request) -> Reply | None:
        away = gone and request.path in (SPANS, "/version")
        return Reply(404, b"404 page not found", HTML) if away else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        with mlflow.start_span("root"):
            record(1, "early")
            bench.sender.intake.flush_wanted = True
            bench.run(lambda: bench.sender.availability.state == ServerState.ANSWERS)
            record(1, "late")
        gone.append(1)
        bench.run(lambda: proxy.requests[-1].path == "/version")
        gone.clear()
        bench.run()
    (trace,) = traces_of(server.uri, experiment)
    assert {span.name for span in trace.data.spans} == {"root", "early", "late"}
    assert bench.sender.delivery.destination.takes_spans


def test_a_trace_in_the_database_waits_where_otlp_is_gone(server, bench, experiment, monkeypatch):
    gone = []
    monkeypatch.setattr(sender_http, "_FILES_SECONDS", 1.0)

    def fault(request: Request) -> Reply | None:
        return spans_as_files(request) if gone else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        with mlflow.start_span("root"):
            record(1, "early")
            bench.sender.intake.flush_wanted = True
            bench.run(lambda: bench.sender.availability.state == ServerState.ANSWERS)
            gone.append(1)
        record(1, "whole")
        bench.run(lambda: bench.left() == 1)
        gone.clear()
        bench.run()
    found = traces_of(server.uri, experiment)
    assert sorted(sorted(s.name for s in t.data.spans) for t in found) == [
        ["early", "root"],
        ["whole"],
    ]
    assert not bench.dead_letters()


@pytest.mark.parametrize("place", ["s3://nowhere/at/all", "file:///proc/nowhere", "odd://x/y"])
def test_traces_arrive_though_their_files_have_no_place(server, bench, experiment, place):
    """An attachment is left out, as in MLflow; its trace and all others arrive."""
    from mlflow.tracing.attachments import Attachment

    closed = client(server.uri).create_experiment(experiment + " closed", artifact_location=place)
    with FaultProxy(server.uri) as proxy:
        bench.to(proxy.uri, {"id": closed})
        with mlflow.start_span("with a picture") as span:
            span.set_inputs({"picture": Attachment(content_type="a/b", content_bytes=b"123")})
        bench.to(proxy.uri, experiment)
        record(3)
        bench.run()
    assert len(traces_of(server.uri, experiment + " closed")) == 1
    assert len(traces_of(server.uri, experiment)) == 3


# ---- when to come back, what is said ----


def test_pauses_grow_and_differ_and_have_a_bound():
    def pause(*seconds) -> float:
        backoff = Backoff()
        backoff.failed(*seconds)
        return backoff._until - time.monotonic()

    assert 0.15 < pause() < 0.35
    assert len({pause() for _ in range(5)}) > 1, "not all at the same moment"
    assert 19 < pause(20.0) < 24
    assert len({round(pause(20.0), 4) for _ in range(5)}) > 1
    assert pause(1e9) < 400
    backoff = Backoff()
    for _ in range(20):
        backoff.failed()
    assert 10 < backoff._until - time.monotonic() < 20
    backoff.succeeded()
    for _ in range(20):
        backoff.failed()
    assert 0.5 < backoff._until - time.monotonic() < 1.5, "it comes and goes"


def test_retry_after_may_be_a_date():
    later = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert 95 < Answer(503, {"Retry-After": later}, b"").retry_after() < 101
    for senseless in ("soon", "-5", "", "Sun, 06 Nov 1994 08:49:37 GMT"):
        assert not Answer(503, {"Retry-After": senseless}, b"").retry_after(), senseless


def test_an_odd_partial_success_is_no_answer_of_otlp():
    json_type = {"Content-Type": "application/json"}
    assert Answer(200, json_type, b'{"partialSuccess": {}}').partial_success() == (0, "None")
    assert Answer(200, json_type, b'{"partialSuccess": [1]}').partial_success() is None


def test_each_reason_is_logged_once(server, bench, experiment, caplog):
    replies = [Reply(503)] * 2 + [Reply(401, b"who are you?")] * 2

    def fault(request: Request) -> Reply | None:
        return replies.pop(0) if replies else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(2)
        bench.run()
    assert caplog.text.count("answered 503") == 1
    assert caplog.text.count("MLFLOW_TRACKING_TOKEN") == 1


def test_an_error_in_the_sender_is_not_its_end(server, bench, experiment, caplog, monkeypatch):
    bench.to(server.uri, experiment)
    failing = [1, 1]
    original = span_requests.SpanRequests.send

    def odd(self, *arguments, **options):
        if failing:
            failing.pop()
            raise KeyError("odd")
        return original(self, *arguments, **options)

    monkeypatch.setattr(span_requests.SpanRequests, "send", odd)
    record(2)
    bench.run()
    assert len(traces_of(server.uri, experiment)) == 2
    assert [record.levelname for record in caplog.records].count("ERROR") == 1


# ---- the way to the server ----


def test_the_uris_credentials_sign_in_and_stay_out_of_the_log(server, bench, experiment, caplog):
    def fault(request: Request) -> Reply | None:
        known = request.headers.get("Authorization") == "Basic bWU6czNjcmV0"
        return None if known else Reply(401, b"who are you?")

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri.replace("//", "//me:s3cret@"), experiment)
        record(2)
        bench.run()
    assert len(traces_of(server.uri, experiment)) == 2
    bench.sender = None
    bench.to(f"http://me:s3cret@127.0.0.1:{refusing_port()}", experiment)
    record(2)
    bench.run(lambda: bench.sender.availability.state == ServerState.UNAVAILABLE)
    assert "does not answer" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_to_where_the_server_moved_is_followed(server, bench, experiment, status):
    def fault(request: Request) -> Reply | None:
        return Reply(status, b"", {"Location": server.uri + request.path})

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(3)
        bench.run()
    assert len(traces_of(server.uri, experiment)) == 3


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_to_a_page_to_sign_in_is_not_followed(server, bench, experiment, status, caplog):
    """The request would become a GET of that page."""
    fault = Times(2, Reply(status, b"", {"Location": "/login"}), INFO)
    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(3)
        bench.run()
        assert not [request for request in proxy.requests if request.path == "/login"]
    assert f"answered {status}" in caplog.text
    assert "/login" in caplog.text
    assert len(traces_of(server.uri, experiment)) == 3


def test_credentials_that_are_renewed_are_used(server, bench, experiment, tmp_path, monkeypatch):
    """MLflow reads ~/.mlflow/credentials with every request."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    file = tmp_path / ".mlflow" / "credentials"
    entry = "[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = {}\n"
    file.write_text(entry.format("old"))

    def fault(request: Request) -> Reply | None:
        known = request.headers.get("Authorization") == "Basic bWU6bmV3"
        return None if known else Reply(401, b"who are you?")

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(2)
        bench.run(lambda: bench.sender.availability.state == ServerState.UNAVAILABLE)
        file.write_text(entry.format("new"))
        bench.run()
    assert len(traces_of(server.uri, experiment)) == 2


def test_beside_a_netrc_a_token_is_sent_as_by_requests(
    server, bench, experiment, tmp_path, monkeypatch
):
    """MLflow sends what requests makes of the two."""
    import requests

    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password pass\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    with FaultProxy(server.uri) as proxy:
        requests.get(proxy.uri + "/health", headers={"Authorization": "Bearer t0ken"})
        bench.to(proxy.uri, experiment)
        record(1)
        bench.run()
        sent = {r.headers.get("Authorization") for r in proxy.requests}
    assert len(sent) == 1


def test_plugins_of_mlflow_sign_and_add_headers(server, bench, experiment, monkeypatch):
    from mlflow.tracking.request_auth import registry as auths
    from mlflow.tracking.request_header import registry as headers

    class Auth:
        def get_name(self):
            return "mine"

        def get_auth(self):
            def sign(request):
                request.headers["X-Signed"] = str(len(request.body or b""))
                return request

            return sign

    class Header:
        def in_context(self):
            return True

        def request_headers(self):
            return {"X-Team": "blue"}

    monkeypatch.setattr(auths._request_auth_provider_registry, "_registry", [Auth()])
    known = headers._request_header_provider_registry._registry
    monkeypatch.setattr(headers._request_header_provider_registry, "_registry", [*known, Header()])
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "mine")
    with FaultProxy(server.uri) as proxy:
        bench.to(proxy.uri, experiment)
        record(2)
        bench.run()
        sent = [r for r in proxy.requests if r.path in (SPANS, INFO)]
    assert sent
    assert all(r.headers["X-Signed"] == str(len(r.body)) for r in sent)
    assert {r.headers["X-Team"] for r in sent} == {"blue"}
    assert len(traces_of(server.uri, experiment)) == 2


def test_a_server_that_is_there_now_and_then_gets_all(server, bench, experiment):
    """Pauses grow only while the server takes nothing."""

    def fault(request: Request) -> Reply | None:
        return Reply(503) if len(proxy.requests) % 5 == 0 else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(30)
        bench.run(seconds=12)
    assert len(traces_of(server.uri, experiment)) == 30


def test_a_server_that_restarts_every_second_gets_all(server, bench, experiment):
    def fault(request: Request) -> Reply | None:
        return Reply(drop=True, forward=int(time.monotonic() * 10) % 2 == 0) if down() else None

    began = time.monotonic()

    def down() -> bool:
        return int((time.monotonic() - began) * 2) % 2 == 1

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        recorded = 0
        while recorded < 25:
            record()
            bench.sender.step()
            time.sleep(0.05)
            recorded += 1
        bench.run(seconds=40)
    found = traces_of(server.uri, experiment)
    assert len(found) == recorded
    assert {len(trace.data.spans) for trace in found} == {1}


# ---- what the sender remembers of its files, and of those who wait ----


def test_a_flush_that_comes_during_a_delivery_is_not_lost(server, bench, experiment, monkeypatch):
    """The look at how fast a program records sees the flush; what it waits for has not been read yet."""
    monkeypatch.setattr(assemble, "OPEN_AFTER_SECONDS", 1e9)
    opened: list[LiveSpan] = []

    def fault(request: Request) -> Reply | None:
        if request.path == INFO and not opened:
            opened.append(mlflow.start_span_no_context("open"))
            mlflow.start_span_no_context("ended", parent_span=opened[0]).end()
            bench.writer.request_flush()
        return None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(3)
        bench.run(lambda: len(traces_of(server.uri, experiment)) == 4, seconds=10)
        opened[0].end()
        bench.run()
    assert not bench.sender.intake.flush_wanted


def test_a_segment_that_can_be_read_later_lets_its_ring_go(
    server, bench, experiment, monkeypatch, caplog
):
    """The ring counts as delivered when the segment is that its records moved to."""
    away = [True]

    def fault(request: Request) -> Reply | None:
        return Reply(503) if away else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(3)
        bench.writer.request_flush()
        intake = bench.sender.intake
        bench.run(lambda: intake.segments)
        (path,) = intake.segments
        os.rename(path, path + ".aside")
        os.symlink(path + ".aside", path)
        intake.read()
        assert not intake.segments
        assert f"{path} cannot be read" in caplog.text
        assert intake.has_unread_files()
        os.rename(path + ".aside", path)
        monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 3600)
        away.clear()
        bench.run(lambda: bench.writer.progress()[2] == bench.writer.progress()[0])
    assert len(traces_of(server.uri, experiment)) == 3
    assert not intake.has_unread_files()


def test_files_that_are_gone_are_not_remembered(bench, server, experiment):
    bench.to(server.uri, experiment)
    link = bench.folder / "packed-1-1.seg"
    ring = Path(bench.rings) / "7-00000000.ring"
    for path in (link, ring):
        path.symlink_to("/nowhere")
    intake = bench.sender.intake
    intake.scan()
    intake.read()
    assert intake.has_unread_files()
    link.unlink()
    ring.unlink()
    intake.scan()
    assert not intake.has_unread_files()


def test_what_is_forbidden_is_not_complete(server, bench, experiment, monkeypatch):
    """`send` gives up after a while, and says why."""
    monkeypatch.setattr(foreground, "_PATIENCE_SECONDS", 1.0)
    forbidden = client(server.uri).create_experiment(experiment + " closed")

    def fault(request: Request) -> Reply | None:
        wanted = f'"experiment_id": "{forbidden}"'.encode() in request.body
        return Reply(403, b"Permission denied") if wanted else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, {"id": forbidden})
        record(1)
        bench.to(proxy.uri, experiment)
        record(2)
        spool = Spool("x", str(bench.folder), bench.rings)
        outcome = foreground.deliver(spool, proxy.uri, lambda progress: None)
    assert not outcome.complete
    assert "403" in outcome.reason
    assert outcome.running == 0
    assert outcome.progress.traces == 2
    assert not bench.dead_letters()


def test_an_info_that_is_too_large_is_a_dead_letter_and_holds_up_no_other(
    server, bench, experiment
):
    def fault(request: Request) -> Reply | None:
        large = request.path == INFO and b"too large" in request.body
        return Reply(413, b"<html>Too large</html>", HTML) if large else None

    with FaultProxy(server.uri, fault) as proxy:
        bench.to(proxy.uri, experiment)
        record(2)
        record(1, inputs="too large")
        record(2)
        bench.run()
    assert len(traces_of(server.uri, experiment)) == 4
    (reason,) = bench.dead_letters()
    assert "413" in reason


def test_where_an_info_cannot_be_sent_no_other_is_begun(server, bench, experiment, monkeypatch):
    """Each would take its own time limit where the server hangs and no connection is open."""
    bench.to(server.uri, experiment)
    record(1)
    bench.run()
    begun: list[dict] = []

    def hang(info: dict) -> None:
        begun.append(info)
        raise Unavailable("it does not answer", kind="test")

    monkeypatch.setattr(bench.sender.delivery.destination, "send_info", hang)
    monkeypatch.setattr(bench.sender.delivery._infos, "_at_once", 4)
    record(6)
    bench.run(lambda: bench.sender.availability.state == ServerState.UNAVAILABLE)
    assert len(begun) == 1
    monkeypatch.undo()
    bench.run()


def test_what_a_failed_delivery_leaves_in_memory_is_given_back(bench, monkeypatch):
    """Exceptions and frames that keep one another, with requests of megabytes in them: those, too, of which nothing was
    delivered, and after which there was nothing to do."""
    monkeypatch.setattr(life, "_REST_SECONDS", 0.05)
    with FaultProxy("http://127.0.0.1:9", lambda request: Reply(500)) as proxy:
        bench.to(proxy.uri, {"id": "0"})
        record(1)
        rests: list[int] = []
        patience = Patience(60)
        life.run_sender(
            str(bench.folder),
            bench.rings,
            proxy.uri,
            should_stop=lambda: len(rests) > 1 or patience.is_over(),
            at_rest=lambda failed: rests.append(len(proxy.requests)) if failed else None,
        )
    assert len(rests) > 1
    assert rests == sorted(set(rests)), "a failed request lies before each"
