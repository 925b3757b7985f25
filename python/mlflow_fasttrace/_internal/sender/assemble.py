"""Traces in the making: the records of one trace, from whatever source, until they can be sent."""

from __future__ import annotations

import logging
import time
from enum import Enum, auto
from math import inf
from typing import Any

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.sender.sources import Entry
from mlflow_fasttrace._internal.spool.records import (
    ATTACHMENT,
    PHASE_COMPLETE,
    PHASE_OPEN,
    SPAN,
    TRACE,
    TraceInfoRecord,
    span_id_of,
)

logger = logging.getLogger("mlflow_fasttrace.sender")

#: A trace that is still open after this long is sent as far as it is.
OPEN_AFTER_SECONDS = environment.open_trace_seconds()

#: Spans without any trace record are given up after this long.
ORPHAN_AFTER_SECONDS = 120.0

_DEFERRED_SECONDS = 1.0  # after which a record that there was no memory for is looked into again

#: What Python needs for a record besides its bytes, about.
_ENTRY_BYTES = 350

#: The spans of traces that are remembered after they were sent; a trace itself counts as ten of them.
_REMEMBERED_GOING_ON = 50_000
_REMEMBERED_ENDED = 5_000
_TEXT_OF_A_SPAN = 400  # characters that take as much as what is remembered of a span


class Disposition(Enum):
    """What has become of a trace as far as it was known."""

    DELIVERED = auto()
    SET_ASIDE = auto()
    SAMPLED_OUT = auto()


class Schedule:
    """When a trace is tried again, and why it waits."""

    __slots__ = ("denials", "failures", "not_before", "shortages", "suspect", "tries")

    def __init__(self) -> None:
        self.tries = 0  # attempts at which the server failed
        self.failures = 0  # those of them at which it took other traces
        self.denials = 0  # attempts that the server forbade
        self.shortages = 0  # attempts for which this process had no memory
        self.suspect = False  # the trace may be to blame for a failure: other traces go first
        self.not_before = 0.0  # of time.monotonic()

    def is_due(self, now: float) -> bool:
        """Whether the trace waits no longer.

        Args:
            now: ``time.monotonic()``.
        """
        return self.not_before <= now


class RecordOnDisk:
    """What the file of an open trace's record holds (see open_traces.py)."""

    __slots__ = ("asked", "record")

    def __init__(self) -> None:
        self.asked = False  # whether the disk was asked for a record
        self.record: bytes | None = None


#: Of a span: its parent's id, the size of its JSON in bytes, the tokens that it used and what it cost.
SpanSummary = tuple[bytes | None, int, Any, Any]


class TraceBuffer:
    """What is known of a trace, and which of its records are still to be delivered."""

    def __init__(self, trace_id: bytes):
        self.trace_id = trace_id
        self.spans: list[Entry] = []
        self.infos: list[Entry] = []
        self.attachments: list[Entry] = []
        self.uploaded = 0  # of the attachments, the first ones
        self.info: TraceInfoRecord | None = None
        self.info_entry: Entry | None = None
        self.record: bytes | None = None  # the last trace record, once that is delivered
        self.on_disk = RecordOnDisk()
        #: Whether a server may have spans of the trace that count as undelivered: it was sent them, by this sender
        #: or an earlier one, and the answer was lost.
        self.may_be_there = False
        self.since = time.monotonic()
        self.info_since = self.since  # when the last trace record came
        self.schedule = Schedule()
        #: The id of the experiment in which the server has the trace, where it has refused it in that which its record
        #: names.
        self.kept_in: str | None = None
        self.sampled_in: bool | None = None  # as tail sampling has decided; None: not decided
        # What the trace's info needs of every span, also of those delivered before.
        self.seen: set[bytes] = set()
        self.summaries: dict[bytes, SpanSummary] = {}
        # Texts, or what is shown of large ones: see _core.span_summary().
        self.root_inputs: str | tuple[str, str | None] | None = None
        self.root_outputs: str | tuple[str, str | None] | None = None
        self.root_seen = False
        # From the first start of a span to the last end of one (ns since the epoch).
        self._first_start_ns: float = inf
        self._last_end_ns: float = -inf

    @property
    def mlflow_id(self) -> str:
        """The trace's id as MLflow writes it."""
        return "tr-" + self.trace_id.hex()

    @property
    def destination(self) -> dict[str, Any]:
        """What the trace's record says of where it goes and where it comes from; empty where no
        record is known."""
        return self.info.destination if self.info is not None else {}

    @property
    def experiment(self) -> dict[str, str]:
        """The experiment that it goes to, by its name or id."""
        return self.destination["experiment"] if self.kept_in is None else {"id": self.kept_in}

    def entries(self) -> list[Entry]:
        """All that is still to be delivered."""
        return [*self.attachments, *self.spans, *self.infos]

    def last_record(self) -> bytes | None:
        """The last trace record that is known, as it goes to disk."""
        return self.record if self.info_entry is None else self.info_entry.record_for_disk()

    def add(self, entry: Entry, info: TraceInfoRecord | None) -> None:
        """Takes a record.

        Args:
            entry: The record.
            info: What the record holds; None where it is no trace record.
        """
        if not (self.spans or self.infos or self.attachments):
            self.since = time.monotonic()
        if info is not None:
            self.infos.append(entry)
            if self.info is None or info.rank >= self.info.rank:
                self.info, self.info_entry = info, entry
                self.info_since = time.monotonic()
        elif entry.kind == SPAN:
            self.spans.append(entry)
            if not self.may_be_there:
                self.may_be_there = entry.source.was_tried(entry.position)
            self.seen.add(span_id_of(entry.record))
        else:
            self.attachments.append(entry)

    @property
    def remote(self) -> bool:
        """Whether another process sends what is known of the trace as a whole."""
        return self.info is not None and self.info.remote

    def complete(self) -> bool:
        """Whether the trace has ended and all of its spans were seen."""
        return (
            self.info is not None
            and self.info.phase == PHASE_COMPLETE
            and self.all_spans_were_seen()
        )

    def all_spans_were_seen(self) -> bool:
        """Whether the sums over the spans are those of all that were recorded when the last trace record
        was: not where an earlier sender has delivered some."""
        return self.info is not None and len(self.seen) >= self.info.spans

    def is_open(self) -> bool:
        """Whether the trace's root is not known to have ended."""
        return self.info is None or self.info.phase == PHASE_OPEN

    def nothing_is_delivered(self) -> bool:
        """Whether all of the trace's spans are still to be delivered. An earlier sender that has delivered some
        has left the trace's record on disk."""
        return len(self.spans) == len(self.seen) and self.on_disk.record is None

    def costs_something(self) -> bool:
        """Whether a span that was summarized has a cost, which the server adds up."""
        return any(cost is not None for _parent_id, _size, _usage, cost in self.summaries.values())

    def uses_tokens(self) -> bool:
        """Whether a span that was summarized says how many tokens it used."""
        return any(usage is not None for _parent_id, _size, usage, _cost in self.summaries.values())

    def a_span_lies_outside(self) -> bool:
        """Whether a span that was summarized began before the trace, whose times are its root's, or ended after it:
        the server would take the trace's times from that span if it came behind the info."""
        info = self.info
        if info is None or info.duration_ns is None:
            return False
        end_ns = info.start_ns + info.duration_ns
        return self._first_start_ns < info.start_ns or self._last_end_ns > end_ns

    def size(self) -> int:
        """The bytes of the spans that are still to be delivered."""
        return sum([len(entry.record) for entry in self.spans])

    def info_was_sent(self) -> bool:
        """Whether the server has the last info that is known of the trace."""
        return self.info_entry is None or self.info_entry.info_sent

    def postpone(self) -> None:
        """Lets no flush wait for what is known of the trace."""
        for entry in self.entries():
            entry.postponed = True

    def summarize(self) -> None:
        """Takes from the undelivered spans what the trace's info needs of them."""
        under = self.info.info.get("roots_under") if self.info is not None else None
        roots_under = bytes.fromhex(under) if under else None
        summary_of, summaries = _core.span_summary, self.summaries
        first_start_ns, last_end_ns = self._first_start_ns, self._last_end_ns
        for entry in self.spans:
            span_id, parent_id, size, usage, cost, inputs, outputs, start_ns, end_ns = summary_of(
                entry.record, roots_under
            )
            if start_ns < first_start_ns:
                first_start_ns = start_ns
            if end_ns > last_end_ns:
                last_end_ns = end_ns
            summaries[span_id] = (parent_id, size, usage, cost)
            if parent_id is None or parent_id == roots_under:
                self.root_seen = True
                self.root_inputs, self.root_outputs = inputs, outputs
        self._first_start_ns, self._last_end_ns = first_start_ns, last_end_ns


def _usable(entry: Entry) -> TraceInfoRecord | None:
    """What a trace record holds; None for an attachment's.

    Raises:
        ValueError, TypeError, OverflowError: it is no record that can be used.
    """
    if entry.kind == TRACE:
        return TraceInfoRecord(entry.record)
    if entry.kind != ATTACHMENT:
        raise ValueError("it is not one of this release")
    return None


def _memory_bytes(trace: TraceBuffer) -> int:
    """The bytes, about, that the undelivered records of a trace need."""
    entries = trace.entries()
    return _ENTRY_BYTES * len(entries) + sum([len(entry.record) for entry in entries])


class RememberedTraces:
    """Traces that nothing is left to do for, as far as they are known: what the infos of those that go on need of
    the spans that are delivered, and of the last that have ended, for spans that come late."""

    def __init__(self) -> None:
        self._going_on = _BoundedTraces(_REMEMBERED_GOING_ON)
        self._ended = _BoundedTraces(_REMEMBERED_ENDED)

    def add(self, trace: TraceBuffer) -> None:
        (self._ended if trace.complete() else self._going_on).add(trace)

    def take(self, trace_id: bytes) -> TraceBuffer | None:
        return self._going_on.take(trace_id) or self._ended.take(trace_id)


def _weight(trace: TraceBuffer) -> int:
    """What a trace counts for that is remembered, in spans."""
    texts = 0
    for shown in trace.root_inputs, trace.root_outputs:
        parts = (shown,) if isinstance(shown, str) else shown or ()
        texts += sum(len(part) for part in parts if part is not None)
    return 10 + len(trace.seen) + texts // _TEXT_OF_A_SPAN


class _BoundedTraces:
    """The last traces that were added.

    Args:
        spans: That they have at most, where it is more than one trace.
    """

    def __init__(self, spans: int):
        self._traces: dict[bytes, TraceBuffer] = {}
        self._weights: dict[bytes, int] = {}
        self._weight = 0
        self._bound = spans

    def add(self, trace: TraceBuffer) -> None:
        self.take(trace.trace_id)
        self._traces[trace.trace_id] = trace
        weight = self._weights[trace.trace_id] = _weight(trace)
        self._weight += weight
        while self._weight > self._bound and len(self._traces) > 1:
            self.take(next(iter(self._traces)))

    def take(self, trace_id: bytes) -> TraceBuffer | None:
        trace = self._traces.pop(trace_id, None)
        if trace is not None:
            self._weight -= self._weights.pop(trace_id)
        return trace


class Assembler:
    """All traces that something is left to deliver of.

    Args:
        infos_again: Acknowledgements of infos do not count: they are those of another server.
    """

    def __init__(self, *, infos_again: bool = False) -> None:
        self.open: dict[bytes, TraceBuffer] = {}
        self.remembered = RememberedTraces()
        self._infos_again = infos_again
        self.memory_bytes = 0  # that the records of these traces need, about
        self.unusable: list[tuple[Entry, str]] = []  # records that are set aside, and why
        self._deferred: list[Entry] = []  # records that there was no memory to look into
        self._deferred_until = 0.0  # of time.monotonic()

    def add(self, entries: list[Entry]) -> None:
        """Takes records that were read."""
        for entry in entries:
            info = None
            if entry.kind != SPAN:  # as most are
                if self._infos_again:
                    entry.info_sent = False
                try:
                    info = _usable(entry)
                except (ValueError, TypeError, OverflowError) as reason:
                    self.unusable.append((entry, str(reason)))
                    continue
                except MemoryError:
                    self._defer(entry)
                    continue
            trace = self.open.get(entry.trace_id)
            if trace is None:
                trace = self.remembered.take(entry.trace_id) or TraceBuffer(entry.trace_id)
                self.open[entry.trace_id] = trace
            trace.add(entry, info)
            self.memory_bytes += _ENTRY_BYTES + len(entry.record)

    def _defer(self, entry: Entry) -> None:
        if not self._deferred:
            logger.error("records are left where they are until there is memory for them")
            self._deferred_until = time.monotonic() + _DEFERRED_SECONDS
        self._deferred.append(entry)

    def has_deferred(self) -> bool:
        """Whether there are records that there was no memory to look into. They count as undelivered
        where they were read."""
        return bool(self._deferred)

    def add_deferred(self) -> None:
        """Takes the records again that there was no memory for, from time to time. Those that have
        moved to a segment meanwhile come from there."""
        if self._deferred and time.monotonic() >= self._deferred_until:
            deferred, self._deferred = self._deferred, []
            self.add([entry for entry in deferred if not entry.done])

    def without_record(self) -> list[TraceBuffer]:
        """Traces of which only spans are known."""
        return [trace for trace in self.open.values() if trace.info is None]

    def delivered(self, trace: TraceBuffer) -> None:
        """All that the trace held is delivered."""
        self.memory_bytes -= _memory_bytes(trace)
        trace.record = trace.last_record()
        trace.spans, trace.infos, trace.attachments = [], [], []
        trace.uploaded = 0
        trace.info_entry = None
        self._remember(trace)

    def spans_delivered(self, trace: TraceBuffer) -> None:
        """The server has all that a trace holds but what is known of it as a whole."""
        self.memory_bytes -= _memory_bytes(trace)
        trace.spans, trace.attachments = [], []
        trace.uploaded = 0
        self.memory_bytes += _memory_bytes(trace)

    def _remember(self, trace: TraceBuffer) -> None:
        """Notes that nothing is left to do for a trace, as far as it is known."""
        del self.open[trace.trace_id]
        self.remembered.add(trace)

    def drop_done(self) -> None:
        """Forgets entries that are done while their traces go on: moved to a segment, from which they will be read
        again, or sent by themselves."""
        for trace in list(self.open.values()):
            trace.seen.difference_update(span_id_of(e.record) for e in trace.spans if e.packed)
            trace.spans = [entry for entry in trace.spans if not entry.done]
            trace.infos = [entry for entry in trace.infos if not entry.done]
            trace.attachments = [entry for entry in trace.attachments if not entry.done]
            trace.uploaded = 0
            if not trace.entries():
                self._remember(trace)
        self.memory_bytes = sum(_memory_bytes(trace) for trace in self.open.values())


def ready_traces(assembler: Assembler, *, everything: bool) -> list[TraceBuffer]:
    """Traces that a server is sent now: complete ones, and those that have been open for long.

    Args:
        assembler: Of all traces.
        everything: A flush is wanted, or memory is short: open traces go as far as they are, too.
    """
    now = time.monotonic()
    return [
        trace
        for trace in assembler.open.values()
        # Without a trace record nobody knows where a span goes; it precedes the spans.
        if trace.info is not None
        and (everything or trace.complete() or now - trace.since >= OPEN_AFTER_SECONDS)
    ]


def orphans(assembler: Assembler) -> list[TraceBuffer]:
    """Traces whose record was lost: damage took it."""
    now = time.monotonic()
    return [
        trace
        for trace in assembler.without_record()
        if now - trace.since >= ORPHAN_AFTER_SECONDS and trace.schedule.is_due(now)
    ]
