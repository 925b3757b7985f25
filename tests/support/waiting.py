"""Waiting for what happens in another process."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

#: Seconds. What a test waits for in one call, as the end of a process or of a thread, does not take so long on the
#: busiest machine; who waits so long waits for something that hangs. pytest's own limit is above it.
HANGS = 600.0

_GENEROUS = 2.0
_PROCESSORS = os.cpu_count() or 1
_LOAD = Path("/proc/loadavg")


def free_port() -> int:
    """A port of 127.0.0.1 for a server that begins at once. Another test's may come first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


#: Sockets at whose ports nobody listens.
_silent: list[socket.socket] = []


def refusing_port() -> int:
    """A port of 127.0.0.1 that refuses connections as long as this process lives: no server can begin there."""
    _silent.append(socket.socket())
    _silent[-1].bind(("127.0.0.1", 0))
    return _silent[-1].getsockname()[1]


def _slowness() -> float:
    """How many times longer something takes here now than on a quiet machine, at most: by how many processes want to
    run, a processor, and by how much of its time a process of this priority gets beside them."""
    wanting = os.getloadavg()[0]
    if _LOAD.exists():
        wanting = max(wanting, float(_LOAD.read_text().split()[3].partition("/")[0]))
    return max(1.0, wanting / _PROCESSORS * 1.25 ** max(0, os.nice(0)))


class Patience:
    """How long something is waited for that will happen. It ends with the event; its own end is reached only where
    something is broken, so it is generous.

    Args:
        seconds: In which the event is there for sure on a machine that has nothing else to do. Where more processes
            want to run than there are processors, time passes more slowly by as much.
    """

    def __init__(self, seconds: float):
        self._left, self._at = seconds * _GENEROUS, time.monotonic()
        self._slowness, self._looked = 1.0, 0.0

    def is_over(self) -> bool:
        now = time.monotonic()
        if now - self._looked > 0.05:
            self._slowness, self._looked = _slowness(), now
        self._left -= (now - self._at) / self._slowness
        self._at = now
        return self._left < 0


def wait_until(condition, seconds: float = 60.0, what: str = "the condition"):
    """The condition's first true value; AssertionError when it stays false.

    Args:
        seconds: Those of ``Patience``.
    """
    patience = Patience(seconds)
    while True:
        value = condition()
        if value:
            return value
        assert not patience.is_over(), f"{what} did not hold within {seconds:g} quiet seconds"
        time.sleep(0.05)
