"""The clock and the pause by which this package waits in a traced program.

Tests of the program freeze time (freezegun, time-machine) or put functions of their own in the place of
``time.monotonic`` and ``time.sleep``. What this package waits for happens in real time all the same.
freezegun also replaces the names of any module that are bound to a function of ``time`` which it knows;
``clock_gettime`` and ``clock_gettime_ns`` are none of these.
"""

from __future__ import annotations

from time import CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, clock_gettime_ns
from time import sleep as _sleep

#: Seconds of the longest pause. A longer one, an infinite one too, ends after it.
_LONGEST_PAUSE = 86400.0


def monotonic() -> float:
    """Seconds since some moment in the past, as ``time.monotonic()``, whatever the program has put in
    its place."""
    return clock_gettime(CLOCK_MONOTONIC)


def time_ns() -> int:
    """Nanoseconds since the epoch, as ``time.time_ns()``, whatever the program has put in its place."""
    return clock_gettime_ns(CLOCK_REALTIME)


def sleep(seconds: float) -> None:
    """Waits, as ``time.sleep()``.

    Args:
        seconds: How long; a day at most.
    """
    _sleep(min(max(seconds, 0.0), _LONGEST_PAUSE))
