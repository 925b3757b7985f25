"""Traces put together from the files that their records lie in, for the command line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.spool.files import Unreadable, dead_letter_paths, segment_paths
from mlflow_fasttrace._internal.spool.folder import Spool
from mlflow_fasttrace._internal.spool.overview import destination_of, rings_of
from mlflow_fasttrace._internal.spool.reading import (
    WITHOUT_LIMIT,
    Item,
    file_items,
    ring_items,
    segment_items,
)
from mlflow_fasttrace._internal.spool.records import (
    ATTACHMENT,
    PHASE_COMPLETE,
    PHASE_OPEN,
    SPAN,
    TRACE,
    AttachmentRecord,
    SpanRecord,
    SpanStatus,
    TraceRecord,
    TraceState,
)
from mlflow_fasttrace._internal.spool.status_file import TRACE_STATES

#: Where the records of a trace are.
_WAITING, REFUSED = "waiting", "refused"

#: The metadata of a trace that say more than their key, and the attributes that a span's figures stand in.
USAGE_METADATA, COST_METADATA = "mlflow.trace.tokenUsage", "mlflow.trace.cost"
_USAGE, _COST = "mlflow.chat.tokenUsage", "mlflow.llm.cost"

#: Numbers by what they count, such as tokens or US dollars.
Figures = dict[str, float]


@dataclass
class SpanView:
    """A span that has ended."""

    span_id: bytes
    parent_id: bytes | None
    name: str
    type: str
    start_ns: int
    end_ns: int
    status: str  # UNSET, OK or ERROR
    message: str
    record: bytes | None = None  # None unless records are wanted
    usage: Figures | None = None  # tokens
    cost: Figures | None = None  # US dollars
    text: str | None = None  # MLflow's dictionary as JSON, of a span without a record

    @classmethod
    def of(cls, span: SpanRecord, record: bytes | None) -> SpanView:
        span_type = span.attributes.get("mlflow.spanType")
        return cls(
            span_id=span.span_id,
            parent_id=span.parent_id,
            name=str(span.name),
            type=span_type if isinstance(span_type, str) else "",
            start_ns=span.start_ns,
            end_ns=span.end_ns,
            status=SpanStatus(span.status).name,
            message=str(span.status_message or ""),
            record=record,
            usage=figures_in(span.attributes.get(_USAGE)),
            cost=figures_in(span.attributes.get(_COST)),
        )

    def mlflow_json(self) -> str:
        """MLflow's dictionary of the span, as JSON.

        Raises:
            ValueError: The record is damaged, or was not wanted.
        """
        if self.text is not None:
            return self.text
        if self.record is None:
            raise ValueError("the record was not kept")
        return _core.span_json(self.record)


def figures_in(value: Any) -> Figures | None:
    """The numbers in what a program has set as tokens or cost; None where there are none."""
    if not isinstance(value, dict):
        return None
    figures = {
        str(key): number
        for key, number in value.items()
        if isinstance(number, (int, float))
        and not isinstance(number, bool)
        and 0 <= number < math.inf
    }
    return figures or None


class TraceView:
    """A trace as far as its records lie here, or as a server has it."""

    def __init__(self, trace_id: bytes, source: str):
        self.trace_id = "tr-" + trace_id.hex()
        self.source = source  # _WAITING, REFUSED or a file
        self.spans: dict[bytes, SpanView] = {}
        self.state = TraceState.IN_PROGRESS.name
        self.name = ""
        self.start_ns: int | None = None
        self.duration_ns: int | None = None
        self.destination: str | None = None
        self.experiment: dict[str, str] = {}  # {"id": ...} or {"name": ...}
        self.info: dict[str, Any] = {}  # tags, metadata and the like, as in its record
        self.attachments: dict[str, int] = {}  # sizes in bytes, by id
        self.last_ns = 0  # when the trace did something last, since the epoch
        self._rank = (False, -1, -1)  # of the record that counts
        self._parts: dict[Any, tuple[int, int]] = {}  # phase and number of spans, by process id

    def add(self, item: Item, keep_record: bool) -> bool:
        """Take in a record of this trace.

        Args:
            item: The record.
            keep_record: Whether a span's record stays with its view.

        Returns:
            Whether the record can be read.
        """
        try:
            if item.kind == SPAN:
                self._add_span(SpanRecord.of(item.record), item.record if keep_record else None)
            elif item.kind == TRACE:
                self._add_trace(TraceRecord.of(item.record))
            elif item.kind == ATTACHMENT and keep_record:
                attachment = AttachmentRecord.of(item.record)
                self.attachments[str(attachment.attachment_id)] = len(attachment.content)
            else:
                return item.kind == ATTACHMENT
        except (ValueError, MemoryError):
            return False
        return True

    def add_span(self, span: SpanView) -> None:
        """Take in a span."""
        self.spans[span.span_id] = span
        self.last_ns = max(self.last_ns, span.end_ns)

    def _add_span(self, span: SpanRecord, record: bytes | None) -> None:
        self.add_span(SpanView.of(span, record))

    def _add_trace(self, trace: TraceRecord) -> None:
        pid = trace.destination.get("pid")
        part = (trace.phase, trace.spans)
        process = pid if isinstance(pid, int) else None
        self._parts[process] = max(part, self._parts.get(process, part))
        # A process that carries another's trace on knows nothing of it as a whole.
        rank = (not trace.info.get("remote"), *part)
        if rank < self._rank:
            return
        self._rank = rank
        ended = trace.phase != PHASE_OPEN
        self.state = TRACE_STATES.get(trace.state, "") if ended else TraceState.IN_PROGRESS.name
        self.start_ns = trace.start_ns
        self.duration_ns = trace.duration_ns if ended else None
        self.name = str(trace.info.get("name") or "")
        self.destination = destination_of(trace)
        experiment = trace.destination.get("experiment")
        self.experiment = experiment if isinstance(experiment, dict) else {}
        self.info = trace.info
        self.last_ns = max(self.last_ns, trace.start_ns + (trace.duration_ns or 0))

    # ---- how far it is ----

    @property
    def missing(self) -> int:
        """Spans that records of the trace count and that are not here."""
        return max(0, sum(spans for _phase, spans in self._parts.values()) - len(self.spans))

    @property
    def root_ended(self) -> bool:
        """Whether the root has ended, as far as the process says that has begun the trace."""
        has_begun_it, phase, _spans = self._rank
        return has_begun_it and phase > PHASE_OPEN

    @property
    def all_ended(self) -> bool:
        """Whether all spans have ended, of each process that has recorded some."""
        return bool(self._parts) and all(
            phase == PHASE_COMPLETE for phase, _spans in self._parts.values()
        )

    # ---- what it says of itself ----

    def begun_ns(self) -> int:
        """When the trace began, as far as that is known; 0 where it is not."""
        if self.start_ns is not None:
            return self.start_ns
        return min((span.start_ns for span in self.spans.values()), default=0)

    def tags(self) -> dict[str, str]:
        """The trace's tags, as texts."""
        return texts_in(self.info.get("tags"))

    def metadata(self) -> dict[str, str]:
        """The trace's metadata, as texts, as far as the program has set them."""
        own, inherited = self.info.get("metadata"), self.info.get("inherited")
        return {**texts_in(inherited), **texts_in(own)}

    def usage(self) -> Figures | None:
        """The tokens that the trace used; None where nothing says so."""
        return _given(self.metadata().get(USAGE_METADATA)) or self._sum(lambda span: span.usage)

    def cost(self) -> Figures | None:
        """What the trace cost in US dollars; None where nothing says so."""
        return _given(self.metadata().get(COST_METADATA)) or self._sum(lambda span: span.cost)

    def _sum(self, figures: Callable[[SpanView], Figures | None]) -> Figures | None:
        """The sum over the spans that have figures, below which no others count, as in MLflow."""
        if not any(figures(span) for span in self.spans.values()):
            return None
        total: Figures = {}
        children = self.children()
        spans = list(children.get(None, []))
        while spans:
            span = spans.pop()
            found = figures(span)
            if found is None:
                spans += children.get(span.span_id, [])
                continue
            for key, number in found.items():
                total[key] = total.get(key, 0) + number
        return total

    # ---- its spans ----

    def in_order(self) -> list[SpanView]:
        """The spans in the order of their start."""
        return sorted(self.spans.values(), key=lambda span: span.start_ns)

    def children(self) -> dict[bytes | None, list[SpanView]]:
        """The spans by parent, in the order of their start. Under None stand those whose parent is
        not here, and one of every circle, so that each span is reached from there."""
        result: dict[bytes | None, list[SpanView]] = {}
        for span in self.in_order():
            parent = span.parent_id if span.parent_id in self.spans else None
            result.setdefault(parent, []).append(span)
        reached: set[bytes] = set()
        _reach(list(result.get(None, [])), result, reached)
        for span in self.spans.values():
            if span.span_id not in reached:
                siblings = result[span.parent_id]
                siblings.remove(span)
                result.setdefault(None, []).append(span)
                _reach([span], result, reached)
        return result

    def to_dict(self) -> dict[str, Any]:
        """The trace as ``traces --json`` prints it."""
        return {
            "trace_id": self.trace_id,
            "name": self.name,
            "state": self.state,
            "start_ns": self.begun_ns() or None,
            "duration_ns": self.duration_ns,
            "destination": self.destination,
            "experiment": self.experiment or None,
            "where": self.source,
            "tags": self.tags(),
            "tokens": self.usage(),
            "cost": self.cost(),
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
                    "message": span.message,
                    "tokens": span.usage,
                    "cost": span.cost,
                }
                for span in self.in_order()
            ],
        }

    def to_json(self) -> str:
        """The trace as ``show --json`` prints it: with MLflow's span dictionaries as the core writes
        them, so that no value is decoded and encoded again on the way."""
        head = self.to_dict()
        del head["spans"]
        head["metadata"] = self.metadata()
        head["attachments"] = self.attachments
        for key in ("request_preview", "response_preview", "client_request_id", "assessments"):
            if self.info.get(key) is not None:
                head[key] = self.info[key]
        texts = []
        for span in self.in_order():
            try:
                texts.append(span.mlflow_json())
            except (ValueError, MemoryError) as error:
                texts.append(json.dumps({"span_id": span.span_id.hex(), "unreadable": str(error)}))
        return f'{json.dumps(head)[:-1]}, "spans": [{", ".join(texts)}]}}'


def texts_in(value: Any) -> dict[str, str]:
    """The entries of a map, as texts; none where it is no map."""
    return {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else {}


def _given(text: str | None) -> Figures | None:
    """The figures of a trace's metadata."""
    try:
        return None if text is None else figures_in(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _reach(
    spans: list[SpanView], children: dict[bytes | None, list[SpanView]], reached: set[bytes]
) -> None:
    """Add the spans and all below them to those reached; the list of spans is used up."""
    while spans:
        span = spans.pop()
        if span.span_id not in reached:
            reached.add(span.span_id)
            spans += children.get(span.span_id, [])


class Traces:
    """Traces put together from the files that their records lie in.

    Args:
        keep_records: Whether the spans keep their records, for their values.
        wanted: The beginning of the ids that are looked for (hex); "" for all.
    """

    def __init__(self, keep_records: bool = False, wanted: str = ""):
        self.found: dict[tuple[str, bytes], TraceView] = {}  # by spool and trace id
        self.notes: list[str] = []  # what could not be read
        self._keep_records = keep_records
        self._wanted = wanted

    def add(self, items: list[Item], spool: str, source: str) -> None:
        """Take in records.

        Args:
            items: The records.
            spool: The name of the spool, whose traces are apart from those of others.
            source: Where the records are, for ``TraceView.source``.
        """
        unreadable = 0
        for item in items:
            trace_id = item.trace_id
            if self._wanted and not trace_id.hex().startswith(self._wanted):
                continue
            trace = self.found.get((spool, trace_id))
            if trace is None:
                trace = self.found[spool, trace_id] = TraceView(trace_id, source)
            unreadable += not trace.add(item, self._keep_records)
        if unreadable:
            self.notes.append(f"{unreadable:,} records in {source} cannot be read")

    def add_file(self, path: str) -> None:
        """Take in a ring or a segment.

        Raises:
            Unreadable: The file is neither.
        """
        items, notes = file_items(path)
        self.add(items, "", path)
        self.notes += notes

    def add_spool(self, spool: Spool, *, refused: bool, budget: int = WITHOUT_LIMIT) -> None:
        """Take in everything that waits in a spool, newest files first.

        Args:
            spool: The spool.
            refused: Whether dead letters are wanted too.
            budget: The bytes of segments after which no further segment is read.
        """
        self._add_rings(spool)
        packed, spilled = segment_paths(spool.folder, spool.rings)
        letters = dead_letter_paths(spool.folder) if refused else []
        for path in [*letters, *reversed(spilled), *reversed(packed)]:
            if budget <= 0:
                self.notes.append(f"older segments of {spool.folder} are not shown")
                break
            try:
                budget -= os.lstat(path).st_size
                for batch in segment_items(path):
                    self.add(batch, spool.name, REFUSED if path in letters else _WAITING)
            except FileNotFoundError:
                continue
            except Unreadable as reason:
                if path not in spilled:  # of those a frame may be half written
                    self.notes.append(str(reason))

    def _add_rings(self, spool: Spool) -> None:
        for path in rings_of(spool):
            try:
                items, note = ring_items(path)
            except FileNotFoundError:
                continue  # its sender has just removed it
            except Unreadable as reason:
                self.notes.append(str(reason))
                continue
            self.add(items, spool.name, _WAITING)
            if note:
                self.notes.append(f"{path} is {note}")

    def newest(self) -> list[TraceView]:
        """The traces, the one that did something last first."""
        traces = [trace for trace in self.found.values() if trace.spans or trace.last_ns]
        return sorted(traces, key=lambda trace: trace.last_ns, reverse=True)
