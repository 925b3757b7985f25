"""Which traces are wanted: the options of ``traces``, and what they mean."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import click

from mlflow_fasttrace._internal.cli import completing

_Command = TypeVar("_Command", bound=Callable[..., Any])

_STATES = {"ok": "OK", "error": "ERROR", "in-progress": "IN_PROGRESS"}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+", re.IGNORECASE)
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.IGNORECASE)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIMES_OF_DAY = ("%H:%M", "%H:%M:%S")


class Facts(NamedTuple):
    """What is known of a trace; None where something is not known."""

    name: str
    state: str
    begun_ns: int
    duration_ns: int | None  # of a trace that goes on: until now
    last_ns: int  # when it did something last
    tags: dict[str, str] | None
    experiment: dict[str, str] | None  # {"id": ...}, {"name": ...} or both


@dataclass(frozen=True)
class Filter:
    """The traces that are wanted: those that all of this holds for."""

    state: str | None = None
    name: str | None = None
    tags: tuple[tuple[str, str | None], ...] = ()
    slower_than: float | None = None  # seconds
    since: float | None = None  # seconds since the epoch
    experiment: str | None = None  # a name or an id

    @property
    def asks_the_server(self) -> bool:
        """Whether of a trace that is delivered more must be known than lies here."""
        return bool(self.tags) or self.experiment is not None

    def takes(self, facts: Facts) -> bool:
        """Whether a trace is wanted. What is not known of it does not count against it."""
        if self.state is not None and facts.state != self.state:
            return False
        if self.name is not None and not _is_like(facts.name, self.name):
            return False
        if self.since is not None and facts.last_ns / 1e9 < self.since:
            return False
        if self.slower_than is not None and (facts.duration_ns or 0) / 1e9 <= self.slower_than:
            return False
        if self.tags and facts.tags is not None:
            for key, value in self.tags:
                if key not in facts.tags or value not in (None, facts.tags[key]):
                    return False
        if self.experiment is None or facts.experiment is None:
            return True
        return self.experiment in facts.experiment.values()


def _is_like(name: str, pattern: str) -> bool:
    """Whether a name holds a text, or is as a pattern with ``*``, ``?`` or ``[]`` says; capitals or not."""
    name, pattern = name.casefold(), pattern.casefold()
    if any(mark in pattern for mark in "*?["):
        return fnmatch.fnmatchcase(name, pattern) or name == pattern
    return pattern in name


# ---- options ----


class _Tag(click.ParamType):
    name = "KEY[=VALUE]"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str | None]:
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not key:
            self.fail(f"{value!r} names no tag: KEY or KEY=VALUE", param, ctx)
        return key, text if equals else None


class _Since(click.ParamType):
    name = "DURATION|TIME"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        try:
            return moment_of(value, time.time())
        except (ValueError, OverflowError, OSError):
            self.fail(
                f"{value!r} is neither a duration (30s, 10m, 1h30m, 2d) nor a time "
                "(14:05, 2025-01-31, 2025-01-31T14:05)",
                param,
                ctx,
            )


def moment_of(text: str, now: float) -> float:
    """The moment that a duration until now or a local time stands for, in seconds since the epoch.

    Raises:
        ValueError, OverflowError, OSError: It is neither.
    """
    text = text.strip()
    if _DURATION.fullmatch(text):
        parts = _PART.findall(text)
        return now - sum(float(number) * _UNIT_SECONDS[unit.lower()] for number, unit in parts)
    for form in _TIMES_OF_DAY:
        try:
            clock = datetime.strptime(text, form).time()
        except ValueError:
            continue
        moment = datetime.combine(datetime.fromtimestamp(now).date(), clock).timestamp()
        return moment if moment <= now else moment - _UNIT_SECONDS["d"]  # of yesterday
    if text.endswith(("Z", "z")):  # before Python 3.11 fromisoformat() does not know it
        text = text[:-1] + "+00:00"
    return datetime.fromisoformat(text).timestamp()


def filter_options(command: _Command) -> _Command:
    """The options that ``filter_of`` takes."""
    options = (
        click.option("--status", type=click.Choice(list(_STATES), case_sensitive=False)),
        click.option(
            "--name",
            metavar="TEXT|PATTERN",
            help="What the trace's name holds, or what it is like: 'chat*'.",
            shell_complete=completing.names,
        ),
        click.option(
            "--tag", "tags", type=_Tag(), multiple=True, help="Has this tag. May be repeated."
        ),
        click.option(
            "--slower-than",
            metavar="SECONDS",
            type=click.FloatRange(0),
            help="Took, or has taken until now, longer.",
        ),
        click.option(
            "--since",
            type=_Since(),
            help="Did something since then: 10m ago, 14:05 today, 2025-01-31T14:05.",
        ),
        click.option(
            "--experiment",
            metavar="NAME|ID",
            help="Goes to this experiment.",
            shell_complete=completing.experiments,
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def filter_of(
    status: str | None,
    name: str | None,
    tags: tuple[tuple[str, str | None], ...],
    slower_than: float | None,
    since: float | None,
    experiment: str | None,
) -> Filter:
    """The filter that the options say."""
    state = _STATES[status.lower()] if status else None
    return Filter(state, name, tags, slower_than, since, experiment)
