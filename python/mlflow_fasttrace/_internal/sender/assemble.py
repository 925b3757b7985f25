"""Traces in the making: records of one trace, from whatever source, until they can be sent."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.sender.sources import Entry
from mlflow_fasttrace._internal.spool.records import (
    ATTACHMENT,
    PHASE_COMPLETE,
    SPAN,
    TRACE,
    TraceInfoRecord,
)

#: A trace that is still open after this long is sent as far as it is.
OPEN_AFTER_SECONDS = 4.0

#: Spans without any trace record are given up after this long.
ORPHAN_AFTER_SECONDS = 120.0

#: Traces whose figures are kept after they were sent, for spans that come late.
_REMEMBERED = 2000


class TraceBuffer:
    """What is known of a trace, and which of its records are still to be delivered."""

    def __init__(self, trace_id: bytes):
        self.trace_id = trace_id
        self.spans: list[Entry] = []
        self.infos: list[Entry] = []
        self.attachments: list[Entry] = []
        self.info: TraceInfoRecord | None = None
        self.info_entry: Entry | None = None
        self.record: bytes | None = None  # the last trace record, once that is delivered
        self.record_on_disk: bytes | None = None
        self.recalled = False  # what is kept on disk was asked for its record
        self.since = time.monotonic()
        self.tries = 0  # at which the server failed
        self.failures = 0  # those of them at which it took others
        self.denials = 0  # of its experiment
        self.suspect = False  # it may be to blame for a failure: others first
        self.not_before = 0.0  # when it is tried again
        self.kept: bool | None = None  # what the rules of tail sampling said; None: not yet
        # What the trace's info needs of every span, also of those delivered before.
        self.seen: set[bytes] = set()
        self.sizes: dict[bytes, int] = {}
        self.usage: dict[bytes, tuple[bytes | None, Any, Any]] = {}
        self.root_inputs: str | None = None
        self.root_outputs: str | None = None
        self.root_seen = False

    @property
    def mlflow_id(self) -> str:
        """The trace's id as MLflow writes it."""
        return "tr-" + self.trace_id.hex()

    def entries(self) -> list[Entry]:
        """All that is still to be delivered."""
        return [*self.attachments, *self.spans, *self.infos]

    def record_to_keep(self) -> bytes | None:
        """The last trace record that is known."""
        return self.record if self.info_entry is None else self.info_entry.record_to_keep()

    def add(self, entry: Entry, info: TraceInfoRecord | None) -> None:
        """``info``: what the entry holds where it is a trace record."""
        if not self.entries():
            self.since = time.monotonic()
        if entry.kind == ATTACHMENT:
            self.attachments.append(entry)
            return
        if entry.kind == SPAN:
            self.spans.append(entry)
            self.seen.add(entry.record[22:30])  # the span id's place, see ext/record.h
            return
        self.infos.append(entry)
        if self.info is None or info.rank >= self.info.rank:
            self.info, self.info_entry = info, entry

    @property
    def remote(self) -> bool:
        """Whether another process sends what is known of the trace as a whole."""
        return self.info is not None and self.info.remote

    def complete(self) -> bool:
        return (
            self.info is not None
            and self.info.phase == PHASE_COMPLETE
            and len(self.seen) >= self.info.spans
        )

    def info_was_sent(self) -> bool:
        """Whether the server knows the trace."""
        return self.info_entry is None or self.info_entry.info_sent

    def summarize(self) -> None:
        """Takes from the undelivered spans what finishing needs."""
        under = self.info.info.get("roots_under") if self.info is not None else None
        roots_under = bytes.fromhex(under) if under else None
        for entry in self.spans:
            span_id, parent_id, size, usage, cost, inputs, outputs = _core.span_summary(
                entry.record, roots_under
            )
            self.sizes[span_id] = size
            self.usage[span_id] = (parent_id, usage, cost)
            if parent_id is None or parent_id == roots_under:
                self.root_seen = True
                self.root_inputs, self.root_outputs = inputs, outputs


def _usable(entry: Entry) -> TraceInfoRecord | None:
    """What a trace record holds; None for the other kinds.

    Raises:
        ValueError: it is no record that can be used.
    """
    if entry.kind == TRACE:
        return TraceInfoRecord(entry.record)
    if entry.kind not in (SPAN, ATTACHMENT):
        raise ValueError("it is not one of this release")
    return None


class Assembler:
    def __init__(self) -> None:
        self.open: dict[bytes, TraceBuffer] = {}
        self._remembered: OrderedDict[bytes, TraceBuffer] = OrderedDict()
        self.bytes = 0
        self.unusable: list[tuple[Entry, str]] = []  # and why; the sender sets them aside

    def add(self, entries: list[Entry]) -> None:
        for entry in entries:
            try:
                info = _usable(entry)
            except (ValueError, TypeError, OverflowError) as reason:
                self.unusable.append((entry, str(reason)))
                continue
            trace = self.open.get(entry.trace_id)
            if trace is None:
                trace = self._remembered.pop(entry.trace_id, None) or TraceBuffer(entry.trace_id)
                self.open[entry.trace_id] = trace
            trace.add(entry, info)
            self.bytes += len(entry.record)

    def ready(self, everything: bool) -> list[TraceBuffer]:
        """Traces to send now: complete ones, and those that have been open for long. ``everything``:
        an agent asked for a flush, so open ones go as far as they are."""
        now = time.monotonic()
        return [
            trace
            for trace in self.open.values()
            # Without a trace record nobody knows where a span goes; it precedes the spans.
            if trace.info is not None
            and (trace.complete() or everything or now - trace.since >= OPEN_AFTER_SECONDS)
        ]

    def without_record(self) -> list[TraceBuffer]:
        """Traces of which only spans are known."""
        return [trace for trace in self.open.values() if trace.info is None]

    def orphans(self) -> list[TraceBuffer]:
        """Spans whose trace record was lost: damage took it."""
        now = time.monotonic()
        return [
            trace
            for trace in self.without_record()
            if now - trace.since >= ORPHAN_AFTER_SECONDS and trace.not_before <= now
        ]

    def delivered(self, trace: TraceBuffer) -> None:
        """All that the trace held is delivered."""
        self.bytes -= sum(len(entry.record) for entry in trace.entries())
        trace.record = trace.record_to_keep()
        trace.spans, trace.infos, trace.attachments = [], [], []
        trace.info_entry = None
        del self.open[trace.trace_id]
        self._remembered[trace.trace_id] = trace
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)

    def drop_packed(self) -> None:
        """Forgets entries that were moved to a segment (they are marked done)."""
        for trace in list(self.open.values()):
            trace.spans = [entry for entry in trace.spans if not entry.done]
            trace.infos = [entry for entry in trace.infos if not entry.done]
            trace.attachments = [entry for entry in trace.attachments if not entry.done]
            if not trace.entries():
                del self.open[trace.trace_id]
                self._remembered[trace.trace_id] = trace
        self.bytes = sum(
            len(entry.record) for trace in self.open.values() for entry in trace.entries()
        )
