"""Spans: many traces a request, and smaller requests where one is refused."""

from __future__ import annotations

from collections.abc import Callable

from mlflow_fasttrace._internal.sender.assemble import TraceBuffer
from mlflow_fasttrace._internal.sender.batches import BatchSize
from mlflow_fasttrace._internal.sender.dead_letters import DeadLetters
from mlflow_fasttrace._internal.sender.destinations import Target
from mlflow_fasttrace._internal.sender.exceptions import (
    Forbidden,
    InAnotherExperiment,
    Inexact,
    Rejected,
    TooLarge,
    TransientError,
    Unavailable,
    Unsupported,
)
from mlflow_fasttrace._internal.sender.span_files import TraceFiles
from mlflow_fasttrace._internal.sender.verdicts import Canary, Verdicts, wait_for_memory


class SpanRequests:
    """Sends the spans of traces.

    Args:
        verdicts: On what the server answers.
        canary: Remembers what the server took.
        size: Learns how much the server takes at a time.
        files: The other way that a trace can go.
        dead_letters: Take what goes in no way.
        with_infos: Sends the infos of traces that are to go as files, and returns those that may go.
        arrived: Is called with traces whose spans the server has.
        between_requests: Is called before each.
    """

    def __init__(
        self,
        verdicts: Verdicts,
        canary: Canary,
        size: BatchSize,
        files: TraceFiles,
        dead_letters: DeadLetters,
        with_infos: Callable[[Target, list[TraceBuffer]], list[TraceBuffer]],
        arrived: Callable[[Target, list[TraceBuffer]], None],
        between_requests: Callable[[], None],
    ):
        self._verdicts = verdicts
        self._canary = canary
        self._size = size
        self._files = files
        self._dead_letters = dead_letters
        self._with_infos = with_infos
        self._arrived = arrived
        self._between_requests = between_requests

    def send(self, target: Target, traces: list[TraceBuffer], *, exact: bool = True) -> None:
        """Sends the spans of traces: one request; where that is refused, halves, down to the trace that is to
        blame. Traces with values that OTLP cannot carry go as files.

        Args:
            target: Where the traces go.
            traces: All of them are acknowledged, set aside, or scheduled for another try.
            exact: Whether values that OTLP cannot carry are looked for.

        Raises:
            Unavailable, Forbidden: traces that nothing was decided about wait.
        """
        try:
            records = [entry.record for trace in traces for entry in trace.spans]
            if records:
                self._request(target, traces, records, exact=exact)
        except Inexact as reason:
            self._send_inexact(target, traces, reason)
        except Unsupported:
            for trace in self._with_infos(target, traces):
                self._files.send(target.destination, trace)
        except Forbidden as reason:
            if len(traces) == 1:
                self._verdicts.forbade(traces[0], reason)
            else:
                self._send_halves(target, traces, exact=exact)
        except Unavailable as reason:
            if reason.unanswered:
                self._size.was_not_answered()
            raise
        except (Rejected, TransientError, TooLarge) as reason:
            if isinstance(reason, InAnotherExperiment):
                self._send_where_they_are(target, traces, reason, exact=exact)
            elif len(traces) > 1:
                if isinstance(reason, TooLarge):
                    self._size.was_too_large(sum(map(len, records)))
                self._send_halves(target, traces, exact=exact)
            elif isinstance(reason, TransientError):
                self._verdicts.failed(traces[0], reason)
            elif isinstance(reason, TooLarge) and len(records) > 1:
                self._send_in_parts(target, traces[0])
            else:
                self._send_as_file(target, traces, reason)
        except MemoryError:
            if len(traces) > 1:
                self._send_halves(target, traces, exact=exact)
            elif len(traces[0].spans) > 1:
                self._send_in_parts(target, traces[0])
            else:
                wait_for_memory(traces[0])
        else:
            self._arrived(target, traces)

    def _send_as_file(self, target: Target, traces: list[TraceBuffer], reason: Exception) -> None:
        for trace in self._with_infos(target, traces):
            self._files.send_or_set_aside(target.destination, trace, reason)

    def _send_where_they_are(
        self, target: Target, traces: list[TraceBuffer], reason: Exception, *, exact: bool
    ) -> None:
        """Sends the spans of traces, some of which are in other experiments: each to that in which its trace is. Those that
        other processes have begun are likely to be, all of them."""
        places: dict[Target, list[TraceBuffer]] = {}
        for trace in traces:
            place = self._place_of(target, trace) if trace.remote or len(traces) == 1 else target
            if place is not None:
                places.setdefault(place, []).append(trace)
        for place, group in places.items():
            if place == target and len(group) == len(traces) == 1:
                self._send_as_file(target, group, reason)
            elif place == target and len(group) == len(traces):
                self._send_halves(target, group, exact=exact)
            else:
                self.send(place, group, exact=exact)

    def _place_of(self, target: Target, trace: TraceBuffer) -> Target | None:
        """Where a trace is, by the server; None where that is not known now: the trace is tried again.

        Raises:
            Unavailable: the server takes nothing.
        """
        try:
            return target.that_has(trace)
        except Forbidden as reason:
            self._verdicts.forbade(trace, reason)
        except TransientError as reason:
            self._verdicts.failed(trace, reason)
        except Rejected:
            return target
        return None

    def _request(
        self, target: Target, traces: list[TraceBuffer], records: list[bytes], *, exact: bool
    ) -> None:
        if not target.destination.takes_spans:
            raise Unsupported
        self._between_requests()
        for trace in traces:
            trace.may_be_there = True
        target.destination.send_spans(target.experiment_id, records, exact=exact)
        self._verdicts.took()
        self._verdicts.is_let_in()
        self._canary.remember(target, traces)

    def _send_halves(self, target: Target, traces: list[TraceBuffer], *, exact: bool) -> None:
        half = len(traces) // 2
        self.send(target, traces[:half], exact=exact)
        self.send(target, traces[half:], exact=exact)

    def _send_inexact(self, target: Target, traces: list[TraceBuffer], reason: Inexact) -> None:
        """Complete traces with values that OTLP cannot carry go as files, others with those values
        degraded."""
        owners = [trace.trace_id for trace in traces for _entry in trace.spans]
        affected = {owners[index] for index in reason.indexes}
        degraded = []
        for trace in traces:
            if trace.trace_id not in affected:
                continue
            try:
                whole = trace.complete() and trace.nothing_is_delivered()
                if whole and not self._with_infos(target, [trace]):
                    continue  # it is tried again
                if not (whole and self._files.send_in_place_of_spans(target.destination, trace)):
                    degraded.append(trace)
            except MemoryError:
                wait_for_memory(trace)
        self.send(target, [trace for trace in traces if trace.trace_id not in affected])
        self.send(target, degraded, exact=False)

    def _send_in_parts(self, target: Target, trace: TraceBuffer) -> None:
        """Sends one trace that is more than the server takes, or this process can send, at a time: parts of it, one after
        another. The largest span comes first: where even that alone is too large, the trace can go
        as a file as long as no other span is there. Otherwise it is a dead letter, and its other
        spans are there."""
        spans = [entry.record for entry in trace.spans]
        largest = max(range(len(spans)), key=lambda i: len(spans[i]))
        parts = [[spans.pop(largest)], spans]
        refused: Exception | None = None
        taken = 0
        while parts:
            records = parts.pop(0)
            try:
                self._between_requests()
                target.destination.send_spans(target.experiment_id, records, exact=False)
                taken += 1
                self._verdicts.took()
            except InAnotherExperiment as reason:
                place = self._place_of(target, trace)
                if place is None:
                    return
                if place == target:
                    refused = reason
                else:
                    target = place
                    parts.insert(0, records)
            except (Rejected, TooLarge) as reason:
                half = len(records) // 2
                if half:
                    parts[:0] = [records[:half], records[half:]]
                else:
                    refused = reason
                    try:
                        if not taken:
                            if not self._with_infos(target, [trace]):
                                return
                            if self._files.send_in_place_of_spans(target.destination, trace):
                                return
                    except MemoryError:
                        wait_for_memory(trace)
                        return
            except (TransientError, Unsupported) as reason:
                self._verdicts.failed(trace, TransientError(str(reason)))
                return
            except MemoryError:
                half = len(records) // 2
                if not half:
                    wait_for_memory(trace)
                    return
                parts[:0] = [records[:half], records[half:]]
        if refused is None:
            self._arrived(target, [trace])
        else:
            self._dead_letters.set_aside(trace, refused)
