"""The spans of a trace as rows of a tree, equal siblings in one row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mlflow_fasttrace._internal.spool.traces import SpanView, TraceView

_FOLDED_FROM = 3  # equal siblings

#: The status of a span that goes on.
RUNNING = "IN_PROGRESS"

#: The ends of parents that have not ended themselves: a row for them, above their children.
_UNNAMED = "…"


@dataclass
class Row:
    """A line of a tree: a span, or several that are equal but for their times."""

    spans: list[SpanView]
    depth: int  # of the roots: 0
    is_last: bool  # of its siblings
    above: tuple[bool, ...] = ()  # of each row above it but the root's: whether a sibling follows
    children: list[Row] = field(default_factory=list)

    @property
    def first(self) -> SpanView:
        return self.spans[0]

    @property
    def nanoseconds(self) -> int:
        """The time of all spans together."""
        return sum(span.end_ns - span.start_ns for span in self.spans)


def rows_of(trace: TraceView, *, fold: bool, now_ns: int | None = None) -> Iterator[Row]:
    """The spans of a trace, each below its parent, in the order of their start.

    Args:
        trace: The trace.
        fold: Whether equal siblings share a row from three on: those of the same name, type, status and
            message, below which the same is found, in whatever number.
        now_ns: The present, of a trace that goes on: spans below a parent that is not here stand below
            a row for it.
    """
    children = trace.children()
    if now_ns is not None:
        _add_open_parents(children, now_ns)
    shapes = _shapes(children) if fold else {}
    pending = _grouped(children.get(None, []), shapes, 0, _FOLDED_FROM)[::-1]
    while pending:  # not recursive: traces may be deep
        row = pending.pop()
        yield row
        below = [child for span in row.spans for child in children.get(span.span_id, [])]
        least = _FOLDED_FROM if len(row.spans) == 1 else 1
        pending += _grouped(below, shapes, row.depth + 1, least)[::-1]


def _add_open_parents(children: dict[bytes | None, list[SpanView]], now_ns: int) -> None:
    """Put spans whose parent is not here below a stand-in for it, which goes on."""
    orphans: dict[bytes, list[SpanView]] = {}
    tops = []
    for span in children.get(None, []):
        if span.parent_id is None or span.parent_id in children:
            tops.append(span)
        else:
            orphans.setdefault(span.parent_id, []).append(span)
    for parent_id, spans in orphans.items():
        children[parent_id] = spans
        start = min(span.start_ns for span in spans)
        tops.append(SpanView(parent_id, None, _UNNAMED, "", start, max(now_ns, start), RUNNING, ""))
    children[None] = sorted(tops, key=lambda span: span.start_ns)


def _grouped(spans: list[SpanView], shapes: dict[bytes, int], depth: int, least: int) -> list[Row]:
    """Siblings as rows; equal ones share one where there are so many at least."""
    groups: dict[object, list[SpanView]] = {}
    for span in spans:
        groups.setdefault(shapes.get(span.span_id, span.span_id), []).append(span)
    rows = []
    for group in groups.values():
        if len(group) >= least:
            rows.append(Row(group, depth, False))
        else:
            rows += [Row([span], depth, False) for span in group]
    if len(rows) > len(groups):  # some were taken apart
        rows.sort(key=lambda row: row.first.start_ns)
    if rows:
        rows[-1].is_last = True
    return rows


def _shapes(children: dict[bytes | None, list[SpanView]]) -> dict[bytes, int]:
    """A number for each span, the same for those that are equal, and so is what is below them."""
    order = list(children.get(None, []))
    for span in order:  # grows: parents come before their children
        order += children.get(span.span_id, ())
    numbers: dict[object, int] = {}
    shapes: dict[bytes, int] = {}
    for span in reversed(order):
        below = frozenset(shapes[child.span_id] for child in children.get(span.span_id, ()))
        alone = span.span_id if span.status == RUNNING else None
        key = (span.name, span.type, span.status, span.message, below, alone)
        shapes[span.span_id] = numbers.setdefault(key, len(numbers))
    return shapes
