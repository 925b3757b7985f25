"""Traces put together from the files they lie in, for the command line."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from mlflow_fasttrace._internal.spool.files import dead_letter_paths, segment_paths
from mlflow_fasttrace._internal.spool.folder import Spool
from mlflow_fasttrace._internal.spool.overview import destination_of, rings_of
from mlflow_fasttrace._internal.spool.reading import (
    Unreadable,
    decoded,
    file_items,
    ring_items,
    segment_items,
    span_json,
)
from mlflow_fasttrace._internal.spool.records import PHASE_MASK, SPAN, TRACE
from mlflow_fasttrace._internal.spool.status_file import TRACE_STATES


@dataclass
class SpanView:
    span_id: bytes
    parent_id: bytes | None
    name: str
    type: str
    start_ns: int
    end_ns: int
    status: str
    message: str
    record: bytes | None  # kept only where asked for


class TraceView:
    """A trace as far as its records lie here."""

    def __init__(self, trace_id: bytes, source: str):
        self.trace_id = "tr-" + trace_id.hex()
        self.source = source
        self.spans: dict[bytes, SpanView] = {}
        self.state = "IN_PROGRESS"
        self.name = ""
        self.duration_ns: int | None = None
        self.destination: str | None = None
        self.last_ns = 0
        self._progress = (-1, -1)

    def add(self, kind: int, record: bytes, keep: bool) -> bool:
        fields = decoded(record)
        try:
            if fields is None:
                return False
            if kind == SPAN:
                self._add_span(fields, record if keep else None)
            elif kind == TRACE:
                self._add_info(fields)
            return bool(kind)  # 0: no record
        except (IndexError, TypeError, ValueError, AttributeError):
            return False

    def _add_span(self, fields: list[Any], record: bytes | None) -> None:
        kind = fields[9].get("mlflow.spanType")
        span = SpanView(
            bytes(fields[2]),
            bytes(fields[3]) if fields[3] is not None else None,
            str(fields[4]),
            kind if isinstance(kind, str) else "",
            int(fields[5]),
            int(fields[6]),
            ("UNSET", "OK", "ERROR")[fields[7]],
            str(fields[8] or ""),
            record,
        )
        self.spans[span.span_id] = span
        self.last_ns = max(self.last_ns, span.end_ns)

    def _add_info(self, fields: list[Any]) -> None:
        phase = fields[2] & PHASE_MASK
        if (phase, fields[3]) < self._progress:
            return
        self._progress = (phase, fields[3])
        self.state = TRACE_STATES.get(fields[6], "") if phase else "IN_PROGRESS"
        self.duration_ns = fields[5] if phase else None
        self.name = str(fields[8].get("name") or "")
        self.destination = destination_of(fields)
        self.last_ns = max(self.last_ns, fields[4] + (fields[5] or 0))

    @property
    def missing(self) -> int:
        """Spans that the trace's record counts and that are not here."""
        return max(0, self._progress[1] - len(self.spans))

    def children(self) -> dict[bytes | None, list[SpanView]]:
        """Spans by parent, in the order of their start; those whose parent is not here, and one of
        every circle, stand at the top."""
        result: dict[bytes | None, list[SpanView]] = {}
        for span in sorted(self.spans.values(), key=lambda span: span.start_ns):
            parent = span.parent_id if span.parent_id in self.spans else None
            result.setdefault(parent, []).append(span)
        reached: set[bytes] = set()

        def reach(tops: list[SpanView]) -> None:
            while tops:
                span = tops.pop()
                if span.span_id not in reached:
                    reached.add(span.span_id)
                    tops += result.get(span.span_id, [])

        reach(list(result.get(None, [])))
        for span in self.spans.values():
            if span.span_id not in reached:
                siblings = result[span.parent_id]
                siblings.remove(span)
                result.setdefault(None, []).append(span)
                reach([span])
        return result

    def to_dict(self) -> dict[str, Any]:
        return {
            "trace_id": self.trace_id,
            "name": self.name,
            "state": self.state,
            "duration_ns": self.duration_ns,
            "destination": self.destination,
            "where": self.source,
            "spans_missing": self.missing,
            "spans": [
                {
                    "span_id": span.span_id.hex(),
                    "parent_id": span.parent_id and span.parent_id.hex(),
                    "name": span.name,
                    "type": span.type,
                    "start_ns": span.start_ns,
                    "end_ns": span.end_ns,
                    "status": span.status,
                }
                for span in sorted(self.spans.values(), key=lambda span: span.start_ns)
            ],
        }

    def to_json(self) -> str:
        """With MLflow's span dictionaries, as the core writes them: no value is read and written
        again on the way."""
        head = self.to_dict()
        del head["spans"]
        texts = []
        for span in sorted(self.spans.values(), key=lambda span: span.start_ns):
            try:
                texts.append(span_json(span.record))
            except ValueError as error:
                texts.append(json.dumps({"span_id": span.span_id.hex(), "unreadable": str(error)}))
        return f'{json.dumps(head)[:-1]}, "spans": [{", ".join(texts)}]}}'


class Traces:
    """Traces put together from the files they lie in."""

    def __init__(self, keep_records: bool = False, wanted: str = ""):
        self.found: dict[tuple[str, bytes], TraceView] = {}
        self.notes: list[str] = []
        self._keep = keep_records
        self._wanted = wanted  # the beginning of the ids, hex

    def add(self, items: list[tuple[int, bytes, bytes]], key: str, source: str) -> None:
        bad = 0
        for kind, trace_id, record in items:
            if self._wanted and not trace_id.hex().startswith(self._wanted):
                continue
            trace = self.found.get((key, trace_id))
            if trace is None:
                trace = self.found[key, trace_id] = TraceView(trace_id, source)
            bad += not trace.add(kind, record, self._keep)
        if bad:
            self.notes.append(f"{bad:,} records in {source} cannot be read")

    def add_file(self, path: str) -> None:
        items, notes = file_items(path)
        self.add(items, "", path)
        self.notes += notes

    def add_spool(self, spool: Spool, *, refused: bool, budget: int = 1 << 62) -> None:
        """Everything that waits in a spool; newest files first, as far as the budget goes."""
        for path in rings_of(spool):
            try:
                items, note = ring_items(path)
            except Unreadable as reason:
                if os.path.lexists(path):
                    self.notes.append(str(reason))
                continue
            self.add(items, spool.name, "waiting")
            if note:
                self.notes.append(f"{path} is {note}")
        packed, spilled = segment_paths(spool.state, spool.rings)
        letters = dead_letter_paths(spool.state) if refused else []
        for path in [*letters, *reversed(spilled), *reversed(packed)]:
            if budget <= 0:
                self.notes.append(f"older segments of {spool.state} are not shown")
                break
            try:
                budget -= os.lstat(path).st_size
                for batch in segment_items(path):
                    self.add(batch, spool.name, "refused" if path in letters else "waiting")
            except FileNotFoundError:
                continue
            except Unreadable as reason:
                if path not in spilled:
                    self.notes.append(str(reason))

    def newest(self) -> list[TraceView]:
        """The one that did something last comes first."""
        traces = [trace for trace in self.found.values() if trace.spans or trace.last_ns]
        return sorted(traces, key=lambda trace: trace.last_ns, reverse=True)
