"""Words and lines for the terminal: sizes, durations and counts, tables, text that cannot act, and how
the commands end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import FrameType
from typing import Any, NoReturn

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlflow_fasttrace._internal.base.texts import one_line, printable
from mlflow_fasttrace._internal.config.uris import without_secrets
from mlflow_fasttrace._internal.spool.files import Unreadable

# Exit codes, besides 0 and click's 2 for a wrong command line.
FAILED = 1
ATTENTION = 3

_UNBROKEN_COLUMNS = 100_000  # the width of what is no terminal: no line is broken
_LABEL_WIDTH = 12
_CHARACTERS_A_COLUMN = 4  # that are looked at: some have no width
_TABLE_FROM = 40  # columns of a terminal
_BROKEN_PIPE = 141  # the exit code of a shell's command that a closed pipe ended

#: A label, a text, and the text's style in rich's words.
Row = tuple[str, str, str]

# ---- words ----


def cut(text: str, width: int) -> str:
    """The text in at most this many columns of a terminal, with an ellipsis where some is left out."""
    begins = text[: _CHARACTERS_A_COLUMN * max(1, width)]
    if len(begins) == len(text) and cell_len(text) <= width:
        return text
    return set_cell_size(begins, max(1, width - 1)).rstrip() + "…"


def size(count: float) -> str:
    """A number of bytes in the largest unit that fits (1 KB is 1,000 B)."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.0f} GB" if count >= 10 else f"{count:.1f} GB"


def duration(nanoseconds: int | None) -> str:
    """How long something took; "-" for None."""
    if nanoseconds is None:
        return "-"
    seconds = max(0, nanoseconds) / 1e9
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 120 else age(seconds)


def age(seconds: float) -> str:
    """A time in one unit, as large as fits twice."""
    for unit, unit_seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * unit_seconds:
            return f"{seconds / unit_seconds:,.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def moment(timestamp: float) -> str:
    """A time in seconds since the epoch, as local date and time."""
    try:
        return datetime.fromtimestamp(timestamp).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "an unknown time"


def clock(timestamp: float) -> str:
    """A time in seconds since the epoch as the local time of day; with the date where that is another
    day."""
    text = moment(timestamp)
    day, _, time_of_day = text.partition(" ")
    return time_of_day if day == datetime.now().strftime("%Y-%m-%d") else text


def offset(nanoseconds: int) -> str:
    """How long after something else a thing was."""
    return f"+{duration(nanoseconds)}" if nanoseconds >= 0 else f"-{duration(-nanoseconds)}"


def money(dollars: float) -> str:
    """A number of US dollars, small ones with the digits that count."""
    in_cents = dollars >= 1 or round(dollars, 2) == dollars
    return f"${dollars:,.2f}" if in_cents else f"${dollars:.2g}"


def count(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless it is one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def spans_of_traces(counts: Mapping[str, int]) -> str:
    """The numbers under "spans" and "traces"."""
    return f"{count(counts['spans'], 'span')} of {count(counts['traces'], 'trace')}"


# ---- lines ----


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Ends the command without a word: nobody reads it any more."""
        end_quietly()


def end_quietly() -> NoReturn:
    """Ends the command after its output was closed, as a pipe to ``head`` is."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(_BROKEN_PIPE)


class Output:
    """Standard output, or standard error; lines are broken only for a terminal."""

    def __init__(self, stderr: bool = False):
        # No markup and no highlighting: what is printed comes from traces and files.
        self.console = _Console(markup=False, highlight=False, emoji=False, stderr=stderr)
        stream = self.console.file
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every encoding has all characters
        self.for_people = self.console.is_terminal
        if not self.for_people:
            self.console.width = _UNBROKEN_COLUMNS

    def print(self, renderable: Any, style: str | None = None) -> None:
        """Print a text, or anything that rich can render."""
        self.console.print(renderable, style=style)

    def line(self, text: str, style: str = "") -> None:
        """Print a text in a style of rich's."""
        self.print(Text(text, style=style))

    def rows(self, rows: list[Row]) -> None:
        """Print rows as a table; off a terminal as lines with labels of a fixed width."""
        if not self.for_people:
            for label, text, style in rows:
                self.line(f"  {label:<{_LABEL_WIDTH}}{text}", style)
            return
        if self.console.width < _TABLE_FROM:
            for label, text, style in rows:
                self.print(Text.assemble((f"{label} ", "dim"), (text, style), overflow="fold"))
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim")
        grid.add_column(overflow="fold")
        for label, text, style in rows:
            grid.add_row(f"  {label}", Text(text, style=style))
        self.print(grid)


def print_json(value: Any) -> None:
    """Print a value for machines."""
    echo(json.dumps(value, indent=2))


def print_json_line(value: Any) -> None:
    """Print a value for machines, as one line that is there at once."""
    echo(json.dumps(value))


def echo(text: str) -> None:
    """Print a text as it is."""
    try:
        click.echo(text)
        sys.stdout.flush()
    except BrokenPipeError:
        end_quietly()


def print_notes(notes: list[str]) -> None:
    """Print what could not be read, to standard error."""
    out = Output(stderr=True)
    for note in notes:
        out.line(one_line(without_secrets(note)), "yellow")


# ---- commands that go on ----


class Reader:
    """Whoever reads standard output."""

    def __init__(self) -> None:
        self._pipe = select.poll()
        with contextlib.suppress(OSError, ValueError):
            self._pipe.register(sys.stdout.fileno(), 0)  # errors are told in any case

    def end_if_gone(self) -> None:
        """End the command where the other end of a pipe is closed, which no output may be left to show."""
        if any(events & (select.POLLERR | select.POLLNVAL) for _fd, events in self._pipe.poll(0)):
            end_quietly()


@contextlib.contextmanager
def ends_by_signals() -> Iterator[None]:
    """Let the block end orderly where the command is asked to: the terminal gets its cursor back."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- errors ----


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turn errors of files in the block into one line for the user, and exit code 1."""
    try:
        yield
    except BrokenPipeError:
        end_quietly()
    except Unreadable as reason:
        raise click.ClickException(printable(without_secrets(str(reason)))) from None
    except OSError as error:
        text = f"{error.filename or ''}: {error.strerror or error}".removeprefix(": ")
        raise click.ClickException(printable(without_secrets(text))) from None
