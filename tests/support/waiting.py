"""Waiting for what happens in another process."""

from __future__ import annotations

import os
import socket
import time

_PROCESSORS = os.cpu_count() or 1


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


def wait_until(condition, seconds: float = 60.0, what: str = "the condition"):
    """The condition's first true value; AssertionError when it stays false.

    Args:
        seconds: For which it may, on a machine that has nothing else to do. Where more processes want to run than
            there are processors, time passes more slowly by as much.
    """
    passed, at = 0.0, time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        assert passed < seconds, f"{what} did not hold within {seconds:g} s"
        time.sleep(0.05)
        now = time.monotonic()
        passed += (now - at) / max(1.0, os.getloadavg()[0] / _PROCESSORS)
        at = now
