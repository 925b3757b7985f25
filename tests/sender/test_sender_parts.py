"""Parts of the sender by themselves: what each decides, without a server, a ring or a file."""

from __future__ import annotations

import logging
import time

import pytest
from mlflow_fasttrace._internal.sender import assemble, availability, batches, verdicts
from mlflow_fasttrace._internal.sender.assemble import Assembler, TraceBuffer
from mlflow_fasttrace._internal.sender.destinations import Experiments, Target
from mlflow_fasttrace._internal.sender.exceptions import (
    Forbidden,
    Rejected,
    TransientError,
    Unavailable,
)
from mlflow_fasttrace._internal.sender.sources import Entry
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.sender.tail_sampling import Decision, decide
from mlflow_fasttrace._internal.sender.transport import partial_success, retry_after
from mlflow_fasttrace._internal.sender.verdicts import Canary, Verdicts
from mlflow_fasttrace._internal.spool.records import Kind
from mlflow_fasttrace._internal.spool.ring_states import ServerState
from support.records import NoSource


def trace_of(*sizes: int, number: int = 0) -> TraceBuffer:
    """A trace with spans of these sizes."""
    trace = TraceBuffer(number.to_bytes(16, "big"))
    for n, size in enumerate(sizes):
        record = bytes(22) + n.to_bytes(8, "big") + bytes(size - 30)
        trace.add(Entry(NoSource(), n, Kind.SPAN, trace.trace_id, record), None)
    return trace


def never_asked() -> bool:
    raise AssertionError("the server is not asked")


# ---- traces that nothing is left to do for ----


def remembered(assembler: Assembler) -> list[int]:
    """The numbers of the traces that are remembered, up to 9; none are afterwards."""
    found = (assembler.remembered.take(number.to_bytes(16, "big")) for number in range(10))
    return [trace.trace_id[-1] for trace in found if trace is not None]


@pytest.mark.parametrize(
    ("bound", "complete"), [("_REMEMBERED_GOING_ON", False), ("_REMEMBERED_ENDED", True)]
)
def test_traces_are_remembered_within_a_bound_of_spans(monkeypatch, bound, complete):
    monkeypatch.setattr(assemble, bound, 11 + 12 + 11)
    monkeypatch.setattr(assemble.TraceBuffer, "complete", lambda trace: complete)
    assembler = Assembler()
    for number, spans in enumerate([1, 1, 1, 2, 1]):
        trace = trace_of(*[100] * spans, number=number)
        assembler.open[trace.trace_id] = trace
        for entry in trace.spans:
            entry.done = True  # moved to a segment
        assembler.drop_done()
    assert assembler.open == {}
    assert remembered(assembler) == [2, 3, 4]
    assert remembered(assembler) == []


def test_traces_that_end_do_not_push_out_one_that_goes_on(monkeypatch):
    monkeypatch.setattr(assemble, "_REMEMBERED_ENDED", 30)
    monkeypatch.setattr(assemble.TraceBuffer, "complete", lambda trace: trace.trace_id[-1] > 0)
    assembler = Assembler()
    for number in range(10):
        trace = trace_of(100, number=number)
        assembler.open[trace.trace_id] = trace
        assembler.delivered(trace)
    assert remembered(assembler) == [0, 8, 9]


# ---- verdicts ----


def test_the_server_took_others():
    judge = Verdicts(never_asked)
    judge.begin_batch()
    trace = trace_of(100)
    judge.failed(trace, TransientError("500"))
    judge.took()
    judge.judge(give_up=lambda trace, reason: pytest.fail("not after one try"))
    schedule = trace.schedule
    assert schedule.suspect
    assert (schedule.tries, schedule.failures) == (1, 1)
    assert not schedule.is_due(time.monotonic())
    assert all(entry.postponed for entry in trace.entries())


def test_the_server_takes_nothing():
    judge = Verdicts(never_asked)
    judge.begin_batch()
    traces = [trace_of(100, number=n) for n in range(3)]
    judge.failed(traces[0], TransientError("a"))
    judge.failed(traces[1], TransientError("b"))
    with pytest.raises(Unavailable, match="c"):
        judge.failed(traces[2], TransientError("c"))
    assert not any(trace.schedule.failures for trace in traces), "it is not their fault"
    assert judge.before_the_server_is_back(traces) == []


@pytest.mark.parametrize("canary", [True, False])
def test_only_suspects_fail(canary):
    judge = Verdicts(lambda: canary)
    trace, other = trace_of(100), trace_of(100, number=1)
    trace.schedule.tries = 1
    judge.begin_batch()
    judge.failed(trace, TransientError("500"))
    given_up = []
    trace.schedule.failures = verdicts.FAILURES_OF_A_TRACE - 1
    if canary:
        judge.judge(lambda trace, reason: given_up.append((trace, str(reason))))
        assert given_up == [(trace, "500")]
    else:
        with pytest.raises(Unavailable):
            judge.judge(never_asked)
        assert judge.before_the_server_is_back([trace, other]) == [other]


@pytest.mark.parametrize("took_before", [True, False])
def test_only_suspects_fail_of_a_server_that_must_not_be_asked(took_before):
    judge = Verdicts(None)
    judge.begin_round()
    judge.begin_batch()
    if took_before:
        judge.took()
    judge.begin_batch()
    trace = trace_of(100)
    trace.schedule.tries = 1
    judge.failed(trace, TransientError("500"))
    if took_before:
        judge.judge(never_asked)
        assert trace.schedule.failures == 1
        judge.begin_round()
        judge.begin_batch()
        judge.failed(trace, TransientError("500"))
    with pytest.raises(Unavailable):
        judge.judge(never_asked)


def test_a_batch_of_what_is_forbidden_says_nothing_of_a_server_that_took_another():
    judge = Verdicts(never_asked)
    judge.begin_round()
    judge.begin_batch()
    judge.took()
    judge.begin_batch()
    judge.forbade(trace_of(100), Forbidden("403", kind=403))
    assert judge.takes_others()
    judge.begin_round()
    judge.begin_batch()
    assert not judge.takes_others()


def test_three_forbidden_stand_for_their_experiment_until_it_is_let_in():
    judge = Verdicts(never_asked)
    judge.begin_batch()
    judge.begin_requests()
    traces = [trace_of(100, number=n) for n in range(8)]
    reason = Forbidden("403", kind=403)
    judge.forbade(traces[0], reason)
    judge.forbade(traces[1], reason)
    with pytest.raises(Forbidden):
        judge.forbade(traces[2], reason)
    judge.begin_requests()
    judge.forbade(traces[3], reason)
    judge.is_let_in()
    for trace in traces[4:]:
        judge.forbade(trace, reason)
    assert [trace.schedule.denials for trace in traces] == [1] * 8


def test_the_canary_is_sent_again_and_not_for_ever(monkeypatch):
    sent = []

    class Destination:
        def send_spans(self, experiment_id, records, *, exact):
            sent.append((experiment_id, len(records), exact))
            if len(sent) > 1:
                raise Rejected("no")

    canary = Canary()
    assert not canary.is_taken()
    small, large = trace_of(100), trace_of(100, 100, number=1)
    for trace in small, large:
        monkeypatch.setattr(trace, "complete", lambda: True)
    canary.remember(Target(Destination(), "7"), [large, small])
    assert canary.is_taken()
    assert not canary.is_taken()
    assert sent == [("7", 1, False)] * 2
    monkeypatch.setattr(verdicts, "CANARY_SECONDS", -1.0)
    assert not canary.is_taken()
    assert len(sent) == 2


# ---- how much, when ----


def test_batches_learn_what_a_server_takes():
    traces = [trace_of(30_000, number=n) for n in range(8)]

    def sizes() -> list[int]:
        return [len(batch) for batch in size.split(traces)]

    size = batches.BatchSize()
    assert sizes() == [8]
    size.was_too_large(240_000)
    assert sizes() == [4, 4]
    size = batches.BatchSize()
    for _ in range(20):
        size.was_not_answered()
    assert sizes() == [1] * 8
    for _ in range(20):
        size.took(0.01)
    assert sizes() == [8]


def test_batches_of_a_slow_server_are_small():
    """A program that waits for delivery sees how far it is after each, also within one round."""
    size = batches.BatchSize()
    split = size.split([trace_of(30, number=n) for n in range(1000)])
    assert len(next(split)) == 13
    size.took(2.0)
    assert len(next(split)) == 13
    for _ in range(5):
        size.took(0.1)
    assert len(next(split)) == 100
    size.took(10.0)
    assert len(next(split)) == 50
    for _ in range(5):
        size.took(10.0)
    assert len(next(split)) == 13
    for _ in range(20):
        size.was_not_answered()
    assert len(next(split)) == 1
    for _ in range(5):
        size.took(10.0)
    assert len(next(split)) == 13


def test_what_is_said_of_the_server(caplog):
    caplog.set_level(logging.INFO, "mlflow_fasttrace.sender")
    reported: list[int] = []
    known = availability.Availability(Status(None, "http://x"), reported.append)
    known.takes_nothing(Unavailable("gone", kind=1), took_some=False)
    known.takes_nothing(Unavailable("gone again", kind=1), took_some=False)
    known.takes_nothing(Unavailable("who?", kind=2, unauthenticated=True), took_some=False)
    assert known.state is ServerState.UNAVAILABLE
    assert known.is_left_alone()
    known.took_a_batch()
    assert not known.is_left_alone()
    assert known.unavailable_seconds() == 0.0
    known.log(Unavailable("gone", kind=1))
    assert reported == [2, 2, 3, 1]
    waits = [message for message in caplog.messages if "delivery waits" in message]
    assert [message.partition(": ")[2] for message in waits] == ["gone", "who?", "gone"]


def test_a_reason_why_delivery_waits_is_of_a_kind():
    """Reasons without one would pass for one another, and the first alone would be logged."""
    for kind in (Unavailable, Forbidden):
        with pytest.raises(TypeError, match="kind"):
            kind("why?")


# ---- the rest ----


def test_an_experiment_that_is_not_there_any_more():
    asked = []

    class Destination:
        def experiment_id(self, name):
            asked.append(name)
            if name == "closed":
                raise Rejected("bad name")
            return str(len(asked))

    experiments = Experiments()
    named = {"name": "mine"}
    assert experiments.id_of({"id": "5"}, Destination()) == "5"
    assert [experiments.id_of(named, Destination()) for _ in range(2)] == ["1", "1"]
    experiments.forget(named)
    assert experiments.id_of(named, Destination()) == "2"
    with pytest.raises(Forbidden, match="'closed' could not be resolved: bad name"):
        experiments.id_of({"name": "closed"}, Destination())


def test_an_entry_is_acknowledged_once():
    (entry,) = trace_of(100).entries()
    entry.acknowledge()
    entry.acknowledge()
    assert entry.source.delivered == 1


def test_a_trace_without_rules_is_sampled():
    assert decide(trace_of(100), never_asked) is Decision.SAMPLED


def test_answers_of_otlp():
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 2
    answer.partial_success.error_message = "old"
    assert partial_success(answer.SerializeToString()) == (2, "old")
    assert partial_success(b"") == (0, "")
    assert partial_success(b"<html>") is None
    assert retry_after("3") == 3.0
    assert retry_after(None) is retry_after("soon") is None
