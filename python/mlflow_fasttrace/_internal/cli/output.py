"""Words and lines for the terminal: sizes, durations and counts, tables, text that cannot act, and how
the commands end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click
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

#: A label, a text, and the text's style in rich's words.
Row = tuple[str, str, str]

# ---- words ----


def cut(text: str, width: int) -> str:
    """The text in at most this many characters, with an ellipsis where some are left out."""
    return text if len(text) <= width else text[: max(1, width - 1)] + "…"


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


def count(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless it is one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def spans_of_traces(counts: Mapping[str, int]) -> str:
    """The numbers under "spans" and "traces"."""
    return f"{count(counts['spans'], 'span')} of {count(counts['traces'], 'trace')}"


# ---- lines ----


class Output:
    """Standard output, or standard error; lines are broken only for a terminal."""

    def __init__(self, stderr: bool = False):
        # No markup and no highlighting: what is printed comes from traces and files.
        self.console = Console(markup=False, highlight=False, emoji=False, stderr=stderr)
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
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim")
        grid.add_column(overflow="fold")
        for label, text, style in rows:
            grid.add_row(f"  {label}", Text(text, style=style))
        self.print(grid)


def print_json(value: Any) -> None:
    """Print a value for machines."""
    click.echo(json.dumps(value, indent=2))


def print_notes(notes: list[str]) -> None:
    """Print what could not be read, to standard error."""
    out = Output(stderr=True)
    for note in notes:
        out.line(one_line(without_secrets(note)), "yellow")


# ---- errors ----


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turn errors of files in the block into one line for the user, and exit code 1."""
    try:
        yield
    except Unreadable as reason:
        raise click.ClickException(printable(without_secrets(str(reason)))) from None
    except OSError as error:
        text = f"{error.filename or ''}: {error.strerror or error}".removeprefix(": ")
        raise click.ClickException(printable(without_secrets(text))) from None
