"""``mlflow-fasttrace traces --follow``: traces while they are recorded, each printed once."""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from mlflow_fasttrace._internal.cli.delivered import delivered_traces
from mlflow_fasttrace._internal.cli.output import (
    Output,
    Reader,
    count,
    end_quietly,
    ends_by_signals,
    print_json_line,
    print_notes,
)
from mlflow_fasttrace._internal.cli.trees import TraceTree, delivered_line, heading_of
from mlflow_fasttrace._internal.cli.wanted import Wanted
from mlflow_fasttrace._internal.spool.following import Follower
from mlflow_fasttrace._internal.spool.overview import all_spools
from mlflow_fasttrace._internal.spool.reading import Item
from mlflow_fasttrace._internal.spool.records import SPAN, span_id_of
from mlflow_fasttrace._internal.spool.traces import TraceView

_LOOK_SECONDS = 0.05  # between two looks at what is recorded
_STATUS_SECONDS = 0.5  # between two looks at what senders have delivered
_REDRAW_SECONDS = 0.1  # between two pictures of the traces that go on
_REDRAW_SHARE = 0.2  # of the time that drawing may take
_REMEMBERED_SPANS = 200_000  # of traces that are printed, so that none is printed again

# How long a trace has to be quiet until it counts as ended, where no record says that all of it is here.
_INCOMPLETE_SECONDS = 2.0  # spans that are counted have not been found
_ELSEWHERE_SECONDS = 1.0  # another process has begun it
_LATE_SECONDS = 1.0  # spans of a trace that is printed
_ROOT_ENDED_SECONDS = 5.0  # spans go on below a root that has ended

#: What stands at the end of a heading.
_MORE = "more of it"
_ABANDONED = "its program has ended"
_GOES_ON = "goes on"


class _Growing:
    """A trace that goes on."""

    def __init__(self, trace: TraceView, *, late: bool):
        self.trace = trace
        self.late = late  # the trace has been printed, and these are spans that came afterwards
        self.programs: set[str] = set()  # that may record more of it
        self.changed = time.monotonic()
        self.is_abandoned = False  # nobody is known who may record more of it
        self.program_ended = False

    def has_ended(self, now: float) -> bool:
        """Whether nothing more is to be expected."""
        trace, quiet = self.trace, now - self.changed
        if self.is_abandoned:
            return True
        if self.late:
            return quiet >= _LATE_SECONDS
        if not trace.all_ended:
            return trace.root_ended and quiet >= _ROOT_ENDED_SECONDS
        if trace.missing:
            return quiet >= _INCOMPLETE_SECONDS
        return trace.root_ended or quiet >= _ELSEWHERE_SECONDS


class _Recorded:
    """All that is followed: the traces that go on, and which spans have been printed."""

    def __init__(self) -> None:
        self._follower = Follower()
        self.growing: dict[bytes, _Growing] = {}
        self._printed: OrderedDict[bytes, set[bytes]] = OrderedDict()  # span ids by trace id
        self._printed_spans = 0

    def look(self, *, first: bool = False) -> list[_Growing]:
        """Take in what was recorded since the last look.

        Args:
            first: What is missing of traces that have ended was delivered before, and is not waited for.

        Returns:
            The traces that have ended, in the order of their ends. They are not given again.
        """
        for batch in self._follower.look():
            for item in batch.items:
                self._take(item, batch.program)
        for growing in self.growing.values():
            if growing.programs & self._follower.ended:
                growing.programs -= self._follower.ended
                growing.is_abandoned = growing.program_ended = not growing.programs
        now = time.monotonic()
        ended = [
            growing
            for growing in self.growing.values()
            if growing.has_ended(now) or (first and growing.trace.all_ended)
        ]
        for growing in ended:
            self._forget(growing)
        return sorted(ended, key=lambda growing: growing.trace.last_ns)

    def take_notes(self) -> list[str]:
        """What could not be read since the last time."""
        notes, self._follower.notes = self._follower.notes, []
        return notes

    def knows(self, trace_id: str) -> bool:
        """Whether records of a trace have been read, or it has been noted."""
        key = _key_of(trace_id)
        return key in self.growing or key in self._printed

    def note(self, trace_id: str) -> None:
        """Remember a trace that is printed, of which no record has been read."""
        self._printed.setdefault(_key_of(trace_id), set())

    def close(self) -> None:
        self._follower.close()

    def _take(self, item: Item, program: str | None) -> None:
        printed = self._printed.get(item.trace_id)
        growing = self.growing.get(item.trace_id)
        if printed is not None:
            if item.kind == SPAN and span_id_of(item.record) in printed:
                return
            if item.kind != SPAN and growing is None:
                return
        if growing is None:
            trace = TraceView(item.trace_id, "recorded")
            growing = _Growing(trace, late=printed is not None)
        before = len(growing.trace.spans)
        if not growing.trace.add(item, False):
            return
        if item.kind != SPAN or len(growing.trace.spans) > before:
            growing.changed = time.monotonic()
        self.growing[item.trace_id] = growing
        if program is not None:
            growing.programs.add(program)
        growing.is_abandoned = not growing.programs

    def _forget(self, growing: _Growing) -> None:
        key = _key_of(growing.trace.trace_id)
        del self.growing[key]
        self._printed.setdefault(key, set()).update(growing.trace.spans)
        self._printed_spans += 1 + len(growing.trace.spans)
        while self._printed_spans > _REMEMBERED_SPANS and len(self._printed) > 1:
            _key, spans = self._printed.popitem(last=False)
            self._printed_spans -= 1 + len(spans)


def _key_of(trace_id: str) -> bytes:
    """The bytes that stand for a trace in records. What no sender writes stands for itself."""
    try:
        return bytes.fromhex(trace_id.removeprefix("tr-"))
    except ValueError:
        return trace_id.encode("utf-8", "replace")


def follow_traces(wanted: Wanted, last: int | None, *, fold: bool, as_json: bool) -> None:
    """Print the last traces, and then each one as it ends, until Ctrl-C or until nobody reads any more.

    Args:
        wanted: Which traces.
        last: How many of those that have ended are printed first; None: all that are wanted.
        fold: Whether equal siblings share a row.
        as_json: Whether each trace is an object on a line of its own.
    """
    screen = _Screen(fold, as_json)
    recorded = _Recorded()
    with ends_by_signals(), contextlib.suppress(KeyboardInterrupt), screen:
        try:
            _Following(wanted, recorded, screen).run(last)
        finally:
            recorded.close()


class _Following:
    """The loop."""

    def __init__(self, wanted: Wanted, recorded: _Recorded, screen: _Screen):
        self._wanted = wanted
        self._recorded = recorded
        self._screen = screen

    def run(self, last: int | None) -> None:
        try:
            self._begin(last)
            self._go_on()
        except KeyboardInterrupt:
            self._screen.leave(self._going_on)
            raise

    def _go_on(self) -> None:
        next_status = 0.0
        while True:
            began = time.monotonic()
            # What a sender says that it has delivered was recorded before, so it is asked first.
            told = None
            if began >= next_status:
                next_status = began + _STATUS_SECONDS
                told = _delivered()
            self._print(self._recorded.look(), told or [])
            self._screen.draw(self._going_on)
            self._screen.end_if_nobody_reads()
            time.sleep(max(0.0, _LOOK_SECONDS - (time.monotonic() - began)))

    def _begin(self, last: int | None) -> None:
        """Print what is known already."""
        told = _delivered()
        entries: list[tuple[int, _Growing | dict[str, Any]]] = [
            (growing.trace.last_ns, growing) for growing in self._recorded.look(first=True)
        ]
        for entry in told:
            if not self._recorded.knows(entry["trace_id"]):
                self._recorded.note(entry["trace_id"])
                entries.append((entry["start_ns"] + (entry["duration_ns"] or 0), entry))
        entries.sort(key=lambda entry: entry[0], reverse=True)
        found: list[_Growing | dict[str, Any]] = []
        for _last_ns, one in entries:
            if last is not None and len(found) >= last:
                break
            if self._takes(one):
                found.append(one)
        self._tell_notes()
        for one in reversed(found):
            self._show(one)

    def _print(self, ended: list[_Growing], told: list[dict[str, Any]]) -> None:
        if ended:  # they go from the picture before they are printed above it
            self._screen.draw(self._going_on, at_once=True)
        for growing in ended:
            if self._takes(growing):
                self._show(growing)
        for entry in told:
            if not self._recorded.knows(entry["trace_id"]):
                # Its program came and went between two looks.
                self._recorded.note(entry["trace_id"])
                if self._takes(entry):
                    self._show(entry)
        self._tell_notes()

    def _takes(self, one: _Growing | dict[str, Any]) -> bool:
        if isinstance(one, _Growing):
            trace = one.trace
            return trace.last_ns > 0 and self._wanted.takes(trace, time.time_ns())
        return self._wanted.takes_delivered(one)

    def _show(self, one: _Growing | dict[str, Any]) -> None:
        if isinstance(one, _Growing):
            where = _MORE if one.late else ""
            if one.program_ended and not one.trace.all_ended and not one.late:
                where = _ABANDONED
            self._screen.show(one.trace, where)
        else:
            self._screen.show_delivered(one)

    def _going_on(self) -> list[TraceView]:
        """The wanted traces that go on, the one that began last at the end."""
        now_ns = time.time_ns()
        found = [
            growing.trace
            for growing in self._recorded.growing.values()
            if not growing.late and self._wanted.takes(growing.trace, now_ns)
        ]
        return sorted(found, key=TraceView.begun_ns)

    def _tell_notes(self) -> None:
        notes = [*self._recorded.take_notes(), *self._wanted.notes]
        self._wanted.notes.clear()
        if notes:
            self._screen.tell(notes)


def _delivered() -> list[dict[str, Any]]:
    """What the senders say that they have delivered last."""
    return [entry for spool in all_spools() for entry in delivered_traces(spool)]


# ---- the terminal ----


class _Tail:
    """The last lines of traces that go on, as many as the terminal has room for."""

    def __init__(self, traces: list[TraceView], fold: bool):
        self._traces = traces
        self._fold = fold

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(1, console.size.height - 2)
        now_ns = time.time_ns()
        lines: list[list[Segment]] = []
        for trace in self._traces[-room:]:
            head = heading_of(trace, duration_ns=max(0, now_ns - trace.begun_ns()), where="")
            tree = TraceTree(trace, head, for_people=True, fold=self._fold, now_ns=now_ns)
            lines += console.render_lines(tree, options.update(height=None), pad=False)
        left_out = len(lines) - room
        if left_out > 0 or len(self._traces) > room:
            text = f"… {count(max(left_out, len(self._traces) - room), 'line')} above"
            yield Text(text, style="dim", no_wrap=True, overflow="ellipsis")
        for line in lines[max(0, left_out + 1) if left_out > 0 else 0 :]:
            yield from line
            yield Segment.line()


class _Screen:
    """Where traces are printed: a terminal with a picture of what goes on at its end, a pipe, or objects
    for machines.

    Args:
        fold: Whether equal siblings share a row.
        as_json: Whether it is objects.
    """

    def __init__(self, fold: bool, as_json: bool):
        self._fold = fold
        self._as_json = as_json
        self._out = Output()
        self._live: Live | None = None
        self._next_draw = 0.0
        self._reader = Reader()
        if self._out.for_people and not as_json and not self._out.console.is_dumb_terminal:
            self._live = Live(console=self._out.console, auto_refresh=False, transient=True)

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *_error: object) -> None:
        self._clear()

    def show(self, trace: TraceView, where: str) -> None:
        """Print a trace that has ended."""
        if self._as_json:
            print_json_line(trace.to_dict())
            return
        head = heading_of(trace, where=where)
        tree = TraceTree(trace, head, for_people=self._out.for_people, fold=self._fold)
        self._out.print(tree)
        self._flush()

    def show_delivered(self, entry: dict[str, Any]) -> None:
        """Print a trace of which only the sender's word is known."""
        if self._as_json:
            print_json_line(entry)
            return
        self._out.print(delivered_line(entry))
        self._flush()

    def tell(self, notes: list[str]) -> None:
        """Print what could not be read."""
        print_notes(notes)

    def draw(self, going_on: Callable[[], list[TraceView]], *, at_once: bool = False) -> None:
        """Draw the traces that go on, where it is time to.

        Args:
            going_on: Gives them.
            at_once: Whether it is time in any case.
        """
        now = time.monotonic()
        if self._live is None or (now < self._next_draw and not at_once):
            return
        traces = going_on()
        if traces:
            self._live.update(_Tail(traces, self._fold))
            self._live.start()
            self._live.refresh()
        else:
            self._clear()
        took = time.monotonic() - now
        self._next_draw = now + max(_REDRAW_SECONDS, took / _REDRAW_SHARE)

    def _clear(self) -> None:
        """Take the picture away."""
        if self._live is not None and self._live.is_started:
            self._live.update("")
            self._live.stop()

    def leave(self, going_on: Callable[[], list[TraceView]]) -> None:
        """Print the traces that go on as they are, where they were in a picture."""
        if self._live is None:
            return
        self._clear()
        for trace in going_on():
            self.show(trace, _GOES_ON)

    def end_if_nobody_reads(self) -> None:
        """End where the other end of a pipe is closed."""
        self._reader.end_if_gone()

    def _flush(self) -> None:
        with contextlib.suppress(ValueError):
            try:
                self._out.console.file.flush()
            except BrokenPipeError:
                end_quietly()
