"""Delivery to a tracking server or store.

The server takes an info for the last word on a trace: it does not add the cost of a span that comes later to
what it has added up; and it takes a trace's times from all spans that come later. So an info goes when the trace's
root has ended: before its files and spans where those go in one request, which is the least work for the server,
and behind them where some have gone before, where they may be too many for one, or where a span lies outside of
the root's times. A trace that is open goes without, as MLflow's client sends it, until its program is
gone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from mlflow_fasttrace._internal.base.version import mlflow_version
from mlflow_fasttrace._internal.sender.acknowledge import Acknowledgements
from mlflow_fasttrace._internal.sender.assemble import (
    Assembler,
    Disposition,
    TraceBuffer,
    orphans,
    ready_traces,
)
from mlflow_fasttrace._internal.sender.availability import Availability
from mlflow_fasttrace._internal.sender.batches import BatchSize, by_experiment
from mlflow_fasttrace._internal.sender.dead_letters import DeadLetters
from mlflow_fasttrace._internal.sender.destinations import (
    Destination,
    Experiments,
    Target,
)
from mlflow_fasttrace._internal.sender.exceptions import (
    DeliveryError,
    Forbidden,
    Rejected,
    TransientError,
    Unavailable,
)
from mlflow_fasttrace._internal.sender.info_requests import InfoRequests
from mlflow_fasttrace._internal.sender.span_files import TraceFiles
from mlflow_fasttrace._internal.sender.span_requests import SpanRequests
from mlflow_fasttrace._internal.sender.verdicts import Canary, Verdicts, undecided

logger = logging.getLogger("mlflow_fasttrace.sender")

#: Of spans in one request: less than proxies and servers allow that allow little.
_SURELY_TAKEN_BYTES = 512 << 10


class ServerDelivery:
    """The strategy of a `Sender` for what MLflow calls a tracking URI.

    Args:
        uri: The tracking URI.
        acknowledgements, dead_letters, availability: The sender's own.
        between_requests: Is called before each request.
        is_abandoned: Whether nothing of a trace will come any more.
        is_whole: Whether no span of a trace that has ended can lie unread.
    """

    def __init__(
        self,
        uri: str,
        acknowledgements: Acknowledgements,
        dead_letters: DeadLetters,
        availability: Availability,
        between_requests: Callable[[], None],
        is_abandoned: Callable[[TraceBuffer], bool],
        is_whole: Callable[[TraceBuffer], bool],
    ):
        self.destination: Destination | None = None
        self.size = BatchSize()
        canary = Canary()
        self.verdicts = Verdicts(canary.is_taken)
        self._uri = uri
        self._availability = availability
        self._experiments = Experiments()
        self._acknowledgements = acknowledgements
        self._dead_letters = dead_letters
        self._is_abandoned = is_abandoned
        self._is_whole = is_whole
        self._files = TraceFiles(
            self.verdicts,
            dead_letters,
            acknowledgements,
            availability,
            is_abandoned,
            between_requests,
        )
        self._infos = InfoRequests(self.verdicts, dead_letters, self._experiments, between_requests)
        self._spans = SpanRequests(
            self.verdicts,
            canary,
            self.size,
            self._files,
            dead_letters,
            self._with_infos,
            self._spans_arrived,
            between_requests,
        )

    def ready(self, assembler: Assembler, *, everything: bool) -> list[TraceBuffer]:
        return ready_traces(assembler, everything=everything)

    def orphans(self, assembler: Assembler) -> list[TraceBuffer]:
        return orphans(assembler)

    def deliver(self, traces: list[TraceBuffer]) -> None:
        """Delivers a batch.

        Raises:
            Unavailable: the server takes nothing now. What was decided of traces before stands.
        """
        destination = self.open()
        verdicts = self.verdicts
        verdicts.begin_batch()
        for named, group in by_experiment(traces):
            verdicts.begin_requests()
            try:
                target = Target(destination, self._experiments.id_of(named, destination))
                self._deliver_despite_errors(target, group)
            except Forbidden as reason:
                verdicts.forbade_experiment(group, reason)
            except Rejected as reason:  # of any trace that names this experiment
                for trace in group:
                    self._dead_letters.set_aside(trace, reason)
        verdicts.judge(self._give_up)
        if verdicts.forbidden is not None:
            if not verdicts.takes_others():
                raise verdicts.forbidden
            self._availability.log(verdicts.forbidden)

    def _deliver_despite_errors(self, target: Target, traces: list[TraceBuffer]) -> None:
        """Delivers traces of one experiment; where something fails that should not, halves, down to the
        trace that it fails for. Nothing that is wrong here, or that no server has asked for, may keep the
        others.

        Raises:
            Unavailable, Forbidden: traces that nothing was decided about wait.
        """
        try:
            self._deliver_to(target, traces)
        except (DeliveryError, MemoryError):
            raise
        except Exception as error:
            self._infos.slow_down()
            failed = self.verdicts.failed_traces()
            left = [trace for trace in undecided(traces) if trace.trace_id not in failed]
            if len(left) > 1:
                half = len(left) // 2
                self._deliver_despite_errors(target, left[:half])
                self._deliver_despite_errors(target, left[half:])
            elif left:
                logger.exception("trace %s cannot be delivered", left[0].mlflow_id)
                reason = TransientError(f"{type(error).__name__}: {error}")
                self.verdicts.failed(left[0], reason)

    def _deliver_to(self, target: Target, traces: list[TraceBuffer]) -> None:
        """Delivers traces of one experiment.

        Raises:
            Unavailable, Forbidden: traces that nothing was decided about wait.
        """
        traces = self._infos.summarized(traces)
        first = [trace for trace in traces if self._info_goes_first(target.destination, trace)]
        ready = self._with_infos(target, first)
        waiting = {trace.trace_id for trace in first} - {trace.trace_id for trace in ready}
        self.verdicts.begin_requests()
        self._spans.send(target, [trace for trace in traces if trace.trace_id not in waiting])

    def _info_goes_first(self, destination: Destination, trace: TraceBuffer) -> bool:
        if not self._info_is_due(trace):
            return False
        in_one = trace.nothing_is_delivered() and trace.size() <= _SURELY_TAKEN_BYTES
        if trace.may_be_there and trace.costs_something():
            in_one = False  # the sum of a part would be the last one
        if in_one and trace.uses_tokens() and destination.adds_up_usage():
            in_one = False  # the info's sum counts, which comes behind all spans
        return not destination.takes_spans or (in_one and not trace.a_span_lies_outside())

    def _info_is_due(self, trace: TraceBuffer) -> bool:
        """Whether the trace's info is to be sent now."""
        if trace.remote or trace.info_was_sent():
            return False
        return self._is_abandoned(trace) if trace.is_open() else self._is_whole(trace)

    def _with_infos(self, target: Target, traces: list[TraceBuffer]) -> list[TraceBuffer]:
        """Sends what goes before spans: infos that are due, and files.

        Returns:
            The traces whose spans may go now; the others are tried again.

        Raises:
            Unavailable, Forbidden: the traces wait.
        """
        due = {trace.trace_id: trace for trace in traces if self._info_is_due(trace)}
        for trace in self._infos.send(target, list(due.values())):
            del due[trace.trace_id]
        return [
            trace
            for trace in traces
            if trace.trace_id not in due
            and self._files.upload_attachments(target.destination, trace)
        ]

    def _spans_arrived(self, target: Target, traces: list[TraceBuffer]) -> None:
        """The server has the spans of traces that it knew in part, or whose infos it has.

        Raises:
            Unavailable, Forbidden: the traces wait.
        """
        for trace in self._with_infos(target, traces):
            ends_later = trace.remote or trace.is_open() or trace.info_was_sent()
            if ends_later or self._is_whole(trace):
                self._acknowledgements.done(trace, Disposition.DELIVERED)
            else:
                self._acknowledgements.spans_done(trace)

    def interrupted(self) -> None:
        """The server took no more: the next requests are made one by one."""
        self._infos.slow_down()

    def _give_up(self, trace: TraceBuffer, reason: TransientError) -> None:
        destination = self.open()
        if self._info_is_due(trace) and not self._info_goes_first(destination, trace):
            with contextlib.suppress(Forbidden):
                experiment_id = self._experiments.id_of(trace.experiment, destination)
                self._infos.send(Target(destination, experiment_id), [trace])
        if trace.entries():  # else the info is refused, and the trace a dead letter
            self._files.send_or_set_aside(destination, trace, reason)

    def open(self) -> Destination:
        """The server, which is opened where it is not yet.

        Raises:
            Unavailable: it cannot be.
        """
        if self.destination is None:
            try:
                self.destination = _open_destination(self._uri)
            except Exception as error:
                raise Unavailable(_why_not_opened(error), kind=("open", type(error))) from error
        return self.destination


def _why_not_opened(error: Exception) -> str:
    """One line on a destination that cannot be opened: an MLflow that lacks a name is not a server that is away."""
    owner = getattr(error, "obj", None)
    module: Any = getattr(owner, "__module__", None) or getattr(owner, "__name__", None)
    if isinstance(error, ModuleNotFoundError):
        module = None  # of a part of MLflow that is not installed, or of a library that it needs
    elif isinstance(error, ImportError):
        module = error.name
    if isinstance(error, (ImportError, AttributeError)) and str(module).startswith("mlflow."):
        return (
            f"MLflow {mlflow_version()} is not as it is known here ({error}); what is recorded is kept until "
            "another release of it, or of mlflow-fasttrace, is installed"
        )
    return f"the destination cannot be opened: {error}"


def _open_destination(uri: str) -> Destination:
    """The destination of a tracking URI.

    Raises:
        Exception: whatever MLflow raises where the URI cannot be used.
    """
    if uri.startswith(("http://", "https://")):
        from mlflow_fasttrace._internal.sender.http import HttpDestination

        return HttpDestination(uri)
    from mlflow_fasttrace._internal.sender.store import StoreDestination

    return StoreDestination(uri)
