"""Traces as ``traces`` and ``show`` print them: a heading, and the spans below it as a tree, with bars of
their time where there is room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rich.bar import Bar
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.text import Text

from mlflow_fasttrace._internal.base.texts import one_line
from mlflow_fasttrace._internal.cli.folding import RUNNING, Row, rows_of
from mlflow_fasttrace._internal.cli.output import (
    clock,
    count,
    duration,
    money,
    offset,
)
from mlflow_fasttrace._internal.spool.traces import Figures, SpanView, TraceView

_STYLES = {"OK": "green", "ERROR": "red", "IN_PROGRESS": "yellow", "UNSET": "dim"}
_BAR_COLORS = {"ERROR": "red", "IN_PROGRESS": "yellow"}
_BAR_COLOR = "blue"

_BARS_FROM = 60  # columns of a terminal
_BARS_SHARE, _BARS_LEAST, _BARS_MOST = 0.3, 16, 60  # of the columns; columns
_BESIDE_FROM = 36  # columns of a terminal, from which on times stand in a column of their own
_TIME_COLUMNS = 8
_LEAST_LABEL = 8
_MESSAGE_LINES = 3  # of an error, on a terminal

_GUIDES = ("├── ", "└── ", "│   ", "    ")
_ASCII_GUIDES = ("|-- ", "`-- ", "|   ", "    ")
_GUIDE_COLUMNS = 4
_SHOWN_LEVELS = 24  # of guides, off a terminal


# ---- headings ----


def delivered_line(trace: dict[str, Any]) -> Text:
    """A trace of ``delivered_traces()``."""
    return heading(
        trace["start_ns"],
        trace["trace_id"],
        trace["name"],
        trace["duration_ns"],
        trace["state"],
        trace["spans"],
        f"delivered to {trace['destination']}",
    )


def heading_of(trace: TraceView, duration_ns: int | None = None, where: str | None = None) -> Text:
    """The line above the tree of a trace.

    Args:
        trace: The trace.
        duration_ns: Of a trace that goes on: until now.
        where: What stands at the end; None: where the trace is.
    """
    return heading(
        trace.begun_ns(),
        trace.trace_id,
        trace.name,
        trace.duration_ns if duration_ns is None else duration_ns,
        trace.state,
        len(trace.spans),
        trace.source if where is None else where,
        figures(trace.usage(), trace.cost()),
    )


def heading(
    start_ns: int,
    trace_id: str,
    name: str,
    duration_ns: int | None,
    state: str,
    spans: int,
    where: str,
    used: str = "",
) -> Text:
    """The line above a tree."""
    begun = clock(start_ns / 1e9)
    return Text.assemble(
        (f"{begun}  " if start_ns else "", "dim"),
        (one_line(name) or "(unnamed)", "bold"),
        f"  {duration(duration_ns)}  ",
        (one_line(state), _STYLES.get(state, "")),
        f"  {count(spans, 'span')}  ",
        (f"{used}  " if used else "", "magenta"),
        (f"{one_line(trace_id)}  {one_line(where)}".rstrip(), "dim"),
    )


def figures(usage: Figures | None, cost: Figures | None) -> str:
    """Tokens and cost in words; empty where neither is known."""
    parts = []
    if usage is not None:
        total = usage.get("total_tokens")
        if total is None:
            total = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
        parts.append(count(int(total), "token"))
    if cost is not None:
        total = cost.get("total_cost")
        if total is None:
            total = cost.get("input_cost", 0) + cost.get("output_cost", 0)
        parts.append(money(total))
    return ", ".join(parts)


# ---- trees ----


class TraceTree:
    """A trace, for rich to print.

    Args:
        trace: The trace.
        head: The line above the tree; None for none.
        for_people: Whether the output is a terminal: lines are made to fit, with bars. Otherwise each row
            is a line that holds all that is known.
        fold: Whether equal siblings share a row.
        details: Gives the lines below a span, each with the columns that are left for it.
        now_ns: The present, of a trace that goes on.
    """

    def __init__(
        self,
        trace: TraceView,
        head: Text | None,
        *,
        for_people: bool,
        fold: bool = True,
        details: Callable[[SpanView, int], Iterable[Text]] | None = None,
        now_ns: int | None = None,
    ):
        self._trace = trace
        self._head = head
        self._for_people = for_people
        self._fold = fold
        self._details = details
        self._now_ns = now_ns
        #: Parents, and the messages of errors that reached them: they are shown where they began.
        self._passed_on = {
            (span.parent_id, span.message) for span in trace.spans.values() if span.message
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self._console = console
        if self._head is not None:
            self._head.overflow = "fold"
            yield self._head
        rows = list(_placed(rows_of(self._trace, fold=self._fold, now_ns=self._now_ns)))
        width = options.max_width if self._for_people else None
        guides = _Guides(width, options.ascii_only)
        if width is None:
            for row in rows:
                yield self._plain_line(row, guides)
                yield from self._below(row, guides, None)
        elif width < _BESIDE_FROM or self._details is not None:
            for row in rows:
                line = Text.assemble(guides.before(row), self._label(row), "  ", _time_of(row))
                line.overflow = "fold"
                yield line
                yield from self._below(row, guides, width)
        else:
            yield from self._waterfall(rows, guides, width, console, options)
        if self._trace.missing and self._now_ns is None:
            text = f"{guides.last}{count(self._trace.missing, 'span')} of it not here"
            yield Text(text, style="dim")

    def _label(self, row: Row) -> Text:
        """What a row says, but for its time."""
        span = row.first
        label = Text.assemble(
            one_line(span.name) or "(unnamed)",
            (f" x {len(row.spans)}" if len(row.spans) > 1 else "", "bold"),
            (f"  {one_line(span.type)}" if span.type else "", "cyan"),
        )
        used = figures(
            _total(span.usage for span in row.spans), _total(span.cost for span in row.spans)
        )
        if used:
            label.append(f"  {used}", style="magenta")
        if span.status in ("ERROR", RUNNING):
            label.append(f"  {_word(span.status)}", style=_STYLES[span.status])
        return label

    def _plain_line(self, row: Row, guides: _Guides) -> Text:
        """A row with all that is known of it."""
        span = row.first
        begun = span.start_ns - self._trace.begun_ns()
        text = Text.assemble(
            guides.before(row),
            one_line(span.name) or "(unnamed)",
            f" x {len(row.spans)}" if len(row.spans) > 1 else "",
            f"  {one_line(span.type)}",
            f"  {offset(begun)}  {duration(row.nanoseconds)}  {span.status}",
        )
        used = figures(
            _total(span.usage for span in row.spans), _total(span.cost for span in row.spans)
        )
        for more in (used, one_line(span.message)):
            if more:
                text.append(f"  {more}")
        return text

    def _below(self, row: Row, guides: _Guides, width: int | None) -> Iterator[Text]:
        """The lines below a row: what ``details`` gives, or the message of an error on a terminal."""
        margin = guides.below(row)
        if self._details is None:
            passed_on = (row.first.span_id, row.first.message) in self._passed_on
            if width is not None and row.first.message and not passed_on:
                room = max(1, width - cell_len(margin))
                lines = list(self._wrapped(Text(one_line(row.first.message), "red"), room))
                if len(lines) > _MESSAGE_LINES:
                    lines = [*lines[: _MESSAGE_LINES - 1], Text("… (`show` has all of it)", "red")]
                for line in lines:
                    yield Text.assemble(margin, line)
            return
        room = 1 << 20 if width is None else max(_LEAST_LABEL, width - cell_len(margin))
        for text in self._details(row.first, room):
            broken = text.split("\n") if width is None else self._wrapped(text, room)
            for line in broken:
                yield Text.assemble(margin, line)

    def _wrapped(self, text: Text, columns: int) -> Iterator[Text]:
        """The lines of a text, broken at words where they fit, else anywhere; nothing is left out."""
        for line in text.split("\n", allow_blank=True):
            yield from line.wrap(self._console, columns, overflow="fold", tab_size=4) or [Text()]

    # ---- with bars ----

    def _waterfall(
        self,
        rows: list[Row],
        guides: _Guides,
        width: int,
        console: Console,
        options: ConsoleOptions,
    ) -> RenderResult:
        bars = 0
        if width >= _BARS_FROM and rows:
            bars = min(_BARS_MOST, max(_BARS_LEAST, int(width * _BARS_SHARE)))
        room = width - bars - _TIME_COLUMNS - (2 if bars else 1)
        labels = [Text.assemble(guides.before(row), self._label(row)) for row in rows]
        columns = min(room, max((label.cell_len for label in labels), default=0))
        begin, size = self._extent(rows)
        for row, label in zip(rows, labels, strict=True):
            label.truncate(columns, overflow="ellipsis", pad=True)
            yield from label.render(console)
            yield Segment(" ")
            if bars:
                yield from _bar(row, begin, size, bars, console, options)
                yield Segment(" ")
            yield Segment(_time_of(row).rjust(_TIME_COLUMNS))
            yield Segment.line()
            for line in self._below(row, guides, width):
                line.no_wrap = True
                yield line

    def _extent(self, rows: list[Row]) -> tuple[int, int]:
        """When the first span began, and how long it was until the last one ended."""
        spans = [span for row in rows for span in row.spans]
        begin = min((span.start_ns for span in spans), default=0)
        end = max((span.end_ns for span in spans), default=begin)
        return begin, max(1, end - begin)


def _placed(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows that know of each row above them whether another one follows it."""
    follows: list[bool] = []
    for row in rows:
        del follows[row.depth :]
        row.above = tuple(follows[-_SHOWN_LEVELS:])
        follows.append(not row.is_last)
        yield row


class _Guides:
    """The lines of a tree, left of its rows. Deep rows have the number of the levels that are left out.

    Args:
        width: The columns of the terminal; None off a terminal.
        ascii_only: Whether nothing else can be shown.
    """

    def __init__(self, width: int | None, ascii_only: bool):
        self._next, self.last, self._line, self._blank = _ASCII_GUIDES if ascii_only else _GUIDES
        most = _SHOWN_LEVELS if width is None else max(1, width // 3 // _GUIDE_COLUMNS)
        self._most = min(most, _SHOWN_LEVELS)

    def _above(self, row: Row) -> str:
        shown = row.above[max(0, len(row.above) - self._most) :]
        lines = "".join(self._line if follows else self._blank for follows in shown)
        left_out = row.depth - len(shown)
        return f"({left_out}) {lines}" if left_out else lines

    def before(self, row: Row) -> str:
        return self._above(row) + (self.last if row.is_last else self._next)

    def below(self, row: Row) -> str:
        """What stands left of a line that belongs to a row."""
        return self._above(row) + (self._blank if row.is_last else self._line)


def _time_of(row: Row) -> str:
    return duration(row.nanoseconds)


def _bar(
    row: Row, begin: int, size: int, columns: int, console: Console, options: ConsoleOptions
) -> Iterator[Segment]:
    """The bar of a row, from its first span's start to the last one's end; half a column at least."""
    least = size / columns / 2
    first = min(span.start_ns for span in row.spans) - begin
    last = max(span.end_ns for span in row.spans) - begin
    end = min(float(size), max(float(last), first + least))
    start = max(0.0, min(float(first), end - least))
    color = _BAR_COLORS.get(row.first.status, _BAR_COLOR)
    if options.ascii_only:
        left, right = int(start / size * columns), max(1, round(end / size * columns))
        left = min(left, right - 1)
        yield Segment(" " * left + "=" * (right - left) + " " * (columns - right))
        return
    bar = Bar(size, start, end, width=columns, color=color)
    for part in console.render(bar, options):
        if part.text != "\n":
            yield part


def _total(all_figures: Iterable[Figures | None]) -> Figures | None:
    """The sum of the figures that there are; None where there are none."""
    total: Figures = {}
    for found in all_figures:
        for key, number in (found or {}).items():
            total[key] = total.get(key, 0) + number
    return total or None


def _word(status: str) -> str:
    return "running" if status == RUNNING else status
