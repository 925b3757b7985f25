"""The one reader of records in the tests: spans and traces as they lie in rings and segments."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_fasttrace import _core, fluent
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.spool.reading import file_items
from mlflow_fasttrace._internal.spool.records import PHASE_COMPLETE, SPAN, TRACE, TraceInfoRecord

ALL = 1 << 30

#: (kind, trace id, record), as the package's own reader gives it.
Item = tuple[int, bytes, bytes]
Source = str | os.PathLike | _core.RingReader | _core.SegmentReader | Iterable[Item]


@dataclass
class SpanRecord:
    """A span that has ended. Its ids are hex digits."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int
    status: int  # 0 unset, 1 OK, 2 an error
    message: str
    attributes: dict[str, Any]
    events: list[tuple[str, int, dict[str, Any]]]
    size: int = field(compare=False)  # bytes
    otel_kind: int = 0

    @property
    def inputs(self) -> Any:
        return self.attributes.get("mlflow.spanInputs")

    @property
    def outputs(self) -> Any:
        return self.attributes.get("mlflow.spanOutputs")

    @property
    def event_names(self) -> list[str]:
        return [name for name, _time, _attributes in self.events]


def span_record(record: bytes) -> SpanRecord:
    (
        _kind,
        trace_id,
        span_id,
        parent_id,
        name,
        start,
        end,
        status,
        message,
        attributes,
        events,
        _links,
        *kind,
    ) = _core.decode(record)
    return SpanRecord(
        trace_id.hex(),
        span_id.hex(),
        parent_id.hex() if parent_id else None,
        name,
        start,
        end,
        status,
        message,
        attributes,
        [tuple(event) for event in events],
        len(record),
        *kind,
    )


def items_of(source: Source) -> list[Item]:
    """The records in a ring or segment, or those that a reader of one has not given out yet."""
    if isinstance(source, (str, os.PathLike)):
        items, damage = file_items(os.fspath(source))
        assert damage == []
        return items
    if isinstance(source, _core.RingReader):
        return [item[1:] for item in source.drain(ALL)]
    if isinstance(source, _core.SegmentReader):
        return [item[1:] for item in source.read(ALL)]
    return list(source)


def spans_in(source: Source) -> list[SpanRecord]:
    """The spans, in the order of their ends."""
    return [span_record(record) for kind, _trace, record in items_of(source) if kind == SPAN]


def traces_in(source: Source) -> list[tuple[str, TraceInfoRecord]]:
    """The records of traces, each behind its trace's id; there may be several of a trace."""
    return [
        (trace_id.hex(), TraceInfoRecord(record))
        for kind, trace_id, record in items_of(source)
        if kind == TRACE
    ]


class Recorded:
    """What this process records into a ring of its own, until ``end``."""

    def __init__(self, folder: Path, capacity: int = 1 << 20, **destination: Any):
        self.writer, self.reader = spans_to_ring(folder, capacity, **destination)
        self._spans: list[SpanRecord] = []
        self._traces: dict[str, TraceInfoRecord] = {}

    def _read(self) -> None:
        items = items_of(self.reader)
        self._spans += spans_in(items)
        self._traces.update(traces_in(items))

    def spans(self) -> list[SpanRecord]:
        """The spans that have ended since this was last called."""
        self._read()
        spans, self._spans = self._spans, []
        return spans

    def by_name(self) -> dict[str, SpanRecord]:
        """The spans that have ended since this, or ``spans``, was last called."""
        return {span.name: span for span in self.spans()}

    def traces(self) -> dict[str, TraceInfoRecord]:
        """The last record of each trace, by its id."""
        self._read()
        return self._traces

    def all_complete(self) -> bool:
        """Whether there are traces, and no span of theirs is open."""
        return {trace.phase for trace in self.traces().values()} == {PHASE_COMPLETE}

    def forget(self) -> None:
        """Forgets the traces that ``traces`` gave, and what ``spans`` has not given yet."""
        self._spans.clear()
        self._traces.clear()

    def end(self) -> None:
        destination.reset()


def spans_to_ring(
    folder: Path, capacity: int = 1 << 20, memory: str | None = None, **destination: Any
) -> tuple[_core.RingWriter, _core.RingReader]:
    """Lets the spans of this process go to a ring in the folder, until ``destination.reset()``.

    Args:
        capacity: The ring's, in bytes.
        memory: A folder on tmpfs, which takes what does not fit before the other folder does.
        destination: More of what the traces' records say.

    Returns:
        The ring's two ends.
    """
    path = str(folder / "1-00000000.ring")
    writer = _core.RingWriter(
        path,
        capacity,
        str(folder / "spill-1-00000000"),
        memory_prefix=memory and f"{memory}/spill-1-00000000",
    )
    _core.set_destination(writer, {"uri": "test", "experiment": {"id": "0"}, **destination})
    return writer, _core.RingReader(path)


def record_number(n: int, size: int = 10) -> None:
    """Records a trace of one span with a number in its inputs, and so many bytes besides."""
    with fluent.start_span("span") as span:
        span.set_inputs({"n": n, "text": "x" * size})


def numbers_in(source: Source) -> list[int]:
    return [span.inputs["n"] for span in spans_in(source)]


class NoSource:
    """Stands for the ring or segment of entries that are made by hand."""

    def __init__(self) -> None:
        self.delivered = 0

    def delivered_one(self) -> None:
        self.delivered += 1

    def was_tried(self, position: int) -> bool:
        return False
