"""Whose fault a failure is: the trace's, its experiment's, or the server's. What a single answer
means, by its status, is in ``answers.py``.

A server that fails at one trace and takes others is in order: that trace waits by itself (it is a
*suspect*, and others go first), and is given up after some tries. A server that takes nothing of a
batch is unavailable. Where all that failed are suspects already, nobody can tell the two apart by
them: the *canary*, which is something that the server took before, is sent once more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from mlflow_fasttrace._internal.sender.assemble import TraceBuffer
from mlflow_fasttrace._internal.sender.destinations import Target
from mlflow_fasttrace._internal.sender.exceptions import (
    Forbidden,
    Rejected,
    TooLarge,
    TransientError,
    Unavailable,
    Unsupported,
)

logger = logging.getLogger("mlflow_fasttrace.sender")

_FAILURES_AT_FIRST = 3  # of a server that takes nothing, before it is left alone for a while
FAILURES_OF_A_TRACE = 6  # while others are taken, before the trace is given up
_LONGEST_PAUSE_SECONDS = 60.0  # of one trace
CANARY_SECONDS = 600.0  # for which what was taken may show whether the server takes anything
_CANARY_BYTES = 64 << 10


class Failure(NamedTuple):
    """A trace that the server could not take, and what it said."""

    trace: TraceBuffer
    reason: TransientError


class Canary:
    """Spans that the server took lately. It takes them again without any change."""

    def __init__(self) -> None:
        self._target: Target | None = None
        self._records: list[bytes] = []
        self._taken_at = 0.0

    def remember(self, target: Target, traces: list[TraceBuffer]) -> None:
        """Chooses the smallest of the traces that the server has just taken whole.

        Args:
            target: Where the traces went.
            traces: What the server has taken, not yet acknowledged.
        """
        whole = [trace for trace in traces if trace.complete() and not trace.schedule.suspect]
        whole = [trace for trace in whole if trace.nothing_is_delivered()]
        if not whole:
            return
        smallest = min(whole, key=lambda trace: len(trace.spans))
        records = [entry.record for entry in smallest.spans]
        if records and sum(map(len, records)) <= _CANARY_BYTES:
            self._target, self._records = target, records
            self._taken_at = time.monotonic()

    def is_taken(self) -> bool:
        """Whether the server takes it again. False where nothing was taken lately.

        Raises:
            Unavailable: the server does not answer.
        """
        if self._target is None or time.monotonic() - self._taken_at > CANARY_SECONDS:
            return False
        destination, experiment_id = self._target
        try:
            destination.send_spans(experiment_id, self._records, exact=False)
        except (Rejected, TransientError, Forbidden, TooLarge, Unsupported):
            return False
        return True


class Verdicts:
    """What came of the requests of a batch, and what follows for its traces.

    Args:
        canary_is_taken: Whether the server takes what it took before; False where there is nothing
            that it took. None: it must not be asked, and what it took before in the round counts.
    """

    def __init__(self, canary_is_taken: Callable[[], bool] | None):
        self.accepted = 0  # requests of the batch
        self.forbidden: Forbidden | None = None  # the last such answer in the batch
        self._took_before = False  # whether it took anything in the round, before the batch
        self._failures: list[Failure] = []  # in the batch
        # Among the requests of one kind for one experiment, in the batch:
        self._forbidden = 0
        self._let_in = False  # whether the server took one
        self._only_suspects_failed = False
        self._takes_anything = canary_is_taken or self.takes_others

    def begin_round(self) -> None:
        """Traces that are due are about to be sent."""
        self._only_suspects_failed = False
        self._took_before = False
        self.accepted = 0

    def begin_batch(self) -> None:
        """A batch is about to be sent."""
        self._took_before |= self.accepted > 0
        self.accepted = 0
        self.forbidden = None
        self._failures = []

    def begin_requests(self) -> None:
        """Requests of another kind, or for another experiment, come next."""
        self._forbidden = 0
        self._let_in = False

    def before_the_server_is_back(self, traces: list[TraceBuffer]) -> list[TraceBuffer]:
        """The traces that are sent although the server is left alone: where only suspects failed, all
        others."""
        if not self._only_suspects_failed:
            return []
        return [trace for trace in traces if not trace.schedule.suspect]

    # ---- what the server took ----

    def took(self) -> None:
        """The server took a request."""
        self.accepted += 1

    def is_let_in(self) -> None:
        """The server takes requests of this kind for this experiment: those that it forbids, it forbids
        for what is in them."""
        self._let_in = True

    # ---- what the server forbade ----

    def forbade(self, trace: TraceBuffer, reason: Forbidden) -> None:
        """The server forbade a trace: it waits.

        Raises:
            Forbidden: it is the third, and the server took none: the whole experiment waits.
        """
        trace.schedule.suspect = True
        wait_for_permission(trace)
        self.forbidden = reason
        self._forbidden += 1
        if not self._let_in and self._forbidden >= _FAILURES_AT_FIRST:
            raise reason

    def forbade_experiment(self, traces: list[TraceBuffer], reason: Forbidden) -> None:
        """The server forbade an experiment: what is left of its traces waits."""
        self.forbidden = reason
        for trace in undecided(traces):
            wait_for_permission(trace)

    def takes_others(self) -> bool:
        """Whether the server has taken anything in the round. What it forbids comes last in a round, and may be all
        that there is in a batch."""
        return self.accepted > 0 or self._took_before

    # ---- what the server failed at ----

    def failed(self, trace: TraceBuffer, reason: TransientError) -> None:
        """The server could not take a trace, by the trace's fault or its own.

        Raises:
            Unavailable: it is the server's fault, as far as can be known.
        """
        trace.schedule.suspect = True
        trace.schedule.tries += 1
        self._failures.append(Failure(trace, reason))
        if not self.accepted and len(self._failures) >= _FAILURES_AT_FIRST:
            self._ask_for_server()

    def failed_traces(self) -> set[bytes]:
        """The ids of the traces that the server failed at in the batch."""
        return {failure.trace.trace_id for failure in self._failures}

    def judge(self, give_up: Callable[[TraceBuffer, TransientError], None]) -> None:
        """The batch is through. Where the server took other requests, the traces that it failed at
        wait by themselves.

        Args:
            give_up: Is called with the traces that have been tried often enough, and why they fail.

        Raises:
            Unavailable: the server took nothing: it is the server's fault.
        """
        if not self._failures:
            return
        if not self.accepted:
            self._ask_for_server()
        for trace, reason in list(self._failures):  # another request may be made for one given up
            schedule = trace.schedule
            schedule.failures += 1
            schedule.not_before = time.monotonic() + _pause(schedule.failures)
            trace.postpone()
            if schedule.failures >= FAILURES_OF_A_TRACE:
                give_up(trace, reason)

    def _ask_for_server(self) -> None:
        """The server has taken nothing of a batch. Where all that failed did so before, the canary
        shows whether it takes anything: what it fails at is no fault of its own then.

        Raises:
            Unavailable: the server takes nothing, or nobody knows.
        """
        fresh = any(failure.trace.schedule.tries == 1 for failure in self._failures)
        if fresh or not self._takes_anything():
            self._only_suspects_failed = not fresh
            raise Unavailable(str(self._failures[-1].reason), kind=TransientError)
        self.accepted += 1


def undecided(traces: list[TraceBuffer]) -> list[TraceBuffer]:
    """Those traces of a batch that are neither done with nor scheduled for another try."""
    now = time.monotonic()
    return [trace for trace in traces if trace.entries() and trace.schedule.is_due(now)]


def wait_for_permission(trace: TraceBuffer) -> None:
    """Lets a trace wait; others of its experiment may be let in before."""
    trace.schedule.denials += 1
    trace.schedule.not_before = time.monotonic() + _pause(trace.schedule.denials)
    trace.postpone()


def wait_for_memory(trace: TraceBuffer) -> None:
    """Lets a trace wait for which this process has no memory now. It says nothing of the trace, nor of
    the server: the try does not count, and a flush waits for it."""
    trace.schedule.suspect = True  # others need less, perhaps
    trace.schedule.shortages += 1
    trace.schedule.not_before = time.monotonic() + _pause(trace.schedule.shortages)
    if trace.schedule.shortages == 1:
        logger.error("%s waits: there is no memory to send it", trace.mlflow_id)


def _pause(times: int) -> float:
    return min(2.0**times, _LONGEST_PAUSE_SECONDS)
