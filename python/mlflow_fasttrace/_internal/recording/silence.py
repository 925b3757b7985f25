"""Senders that hold their spool's lock and do nothing."""

from __future__ import annotations

import signal
from typing import NamedTuple

from mlflow_fasttrace._internal.base import clock, log
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.recording import sender_process
from mlflow_fasttrace._internal.recording.rings import Ring
from mlflow_fasttrace._internal.spool.folder import Spool

#: A sender looks at its rings between any two requests. One that has not for twice the time that a request may
#: take, and this, is asked to end, and killed when that does not help either.
_SILENT_SECONDS = 30.0
_REQUEST_SECONDS = 60.0  # where MLFLOW_HTTP_REQUEST_TIMEOUT does not say
_LAST_SECONDS = 15.0
#: Of the time between two looks at a sender so much counts: this process may have stood still, too.
_COUNTED_SECONDS = 5.0


class _Silence(NamedTuple):
    """A heartbeat of a process that does not change."""

    pid: int
    heartbeat: tuple[int, int] | None
    seconds: float  # in which this process has looked, and found it the same
    looked_at: float  # ``clock.monotonic``


class Silences:
    """For how long senders have given no sign of life, as far as this process has looked."""

    def __init__(self) -> None:
        self._known: dict[str, _Silence] = {}  # by spool

    def forget(self) -> None:
        """Begins anew in a forked child."""
        self._known.clear()

    def end_if_silent(self, pid: int, ring: Ring, spool: Spool) -> None:
        """Ends a sender that holds the lock and does nothing: the next look starts another one."""
        now = clock.monotonic()
        heartbeat = ring.writer.heartbeat()
        if heartbeat is not None and heartbeat[1] not in (0, pid):
            return  # the sender has not come to this ring yet
        before = self._known.get(spool.name)
        if before is None or before[:2] != (pid, heartbeat):
            self._known[spool.name] = _Silence(pid, heartbeat, 0.0, now)
            return
        seconds = before.seconds + min(now - before.looked_at, _COUNTED_SECONDS)
        self._known[spool.name] = _Silence(pid, heartbeat, seconds, now)
        patience = 2 * (environment.request_seconds() or _REQUEST_SECONDS) + _SILENT_SECONDS
        if seconds < patience:
            return
        killed = seconds >= patience + _LAST_SECONDS
        if sender_process.signal_sender(pid, spool, signal.SIGKILL if killed else signal.SIGTERM):
            what = f"The sender (process {pid}) has given no sign of life for {seconds:.0f} s"
            if not killed:
                log.warn(f"{what}: it is asked to end, and another one is started.")
        else:
            log.warn(
                f"The sender of {spool.folder} has given no sign of life for {seconds:.0f} s, and is no process "
                "that this one could end: nothing is delivered until it goes on, or ends."
            )
