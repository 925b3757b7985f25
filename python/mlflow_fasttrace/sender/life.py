"""A sender's life: it gets the spool's lock, serves, and ends when nobody needs it."""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import Executor

from mlflow_fasttrace import __version__, _otlp, _settings
from mlflow_fasttrace.sender.loop import POLL_BUSY_SECONDS, POLL_IDLE_SECONDS, Sender
from mlflow_fasttrace.sender.sources import RingSource

LINGER_SECONDS = 5.0  # without any agent, before the sender ends
TAKE_OVER_SECONDS = 10.0  # that a sender of another release has to end
HAND_OVER_SECONDS = 1.0  # the same of one of this release, which may just have been asked to
LOOKS_AT_LOCK_SECONDS = 5.0  # that others' looks at the lock may stand in the way


class Lock:
    """The right to be this spool's sender. The file says who has it: process id and version, and
    whether it stays whatever it is asked."""

    def __init__(self, path: str, *, stays: bool):
        self._stays = stays
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def take(self) -> bool:
        """Waits a little where a sender that was asked to end still has it, and where others look at
        it: that takes them a moment each (a shared lock)."""
        holder = _settings.holder_of(self._fd)
        wait = 0.0
        if holder.version not in ("", __version__):
            wait = TAKE_OVER_SECONDS
        elif not (self._stays or holder.stays):
            wait = HAND_OVER_SECONDS
        began = time.monotonic()
        while not self._try(fcntl.LOCK_EX):
            waited = time.monotonic() - began
            if self._try(fcntl.LOCK_SH):
                self.release()
                if waited >= max(wait, LOOKS_AT_LOCK_SECONDS):
                    return False
                time.sleep(random.uniform(0.0, 0.002))
            elif waited >= wait:
                return False
            else:
                time.sleep(0.02)
        os.ftruncate(self._fd, 0)
        stays = " stays" if self._stays else ""
        os.pwrite(self._fd, f"{os.getpid()} {__version__}{stays}\n".encode(), 0)
        return True

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)


def remove_if_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        pass  # an agent has just come, or the folder is gone


def sender_for(
    state: str | None, rings: str | None, uri: str, executor: Executor | None = None
) -> Sender:
    if _otlp.is_collector(uri):
        from mlflow_fasttrace.sender.collector import CollectorSender

        return CollectorSender(state, rings, uri)
    return Sender(state, rings, uri, executor)


def run_sender(
    state: str,
    rings: str,
    uri: str,
    should_stop: Callable[[], bool] | None = None,
    executor: Executor | None = None,
) -> None:
    """Serves a spool until no agent has needed it for a while.

    Args:
        state: The spool's folder of segments, lock and log.
        rings: The folder of its rings.
        uri: The tracking URI, with its credentials.
        should_stop: Asked between rounds; what is not delivered stays where it is. None: it does not
            end before its time.
        executor: For several requests at once. A thread of the agent has none: most of what it
            delivers it delivers while its interpreter ends, and starts no threads any more.
    """
    lock = Lock(os.path.join(state, "sender.lock"), stays=should_stop is None)
    should_stop = should_stop or (lambda: False)
    try:
        while lock.take():
            sender = sender_for(state, rings, uri, executor)
            try:
                _serve(sender, should_stop)
            finally:
                sender.status.end()
            # An agent that made its ring before this release relied on us; one that makes it
            # afterwards finds the lock free and starts another sender.
            lock.release()
            if should_stop():
                return
            sender.scan()
            if sender.idle():
                remove_if_empty(rings)
                return
    finally:
        lock.close()


def run_sender_in_memory(fd: int, uri: str) -> None:
    """Serves one ring that is memory of this process, as long as it is there."""
    sender = sender_for(None, None, uri)
    sender.adopt(RingSource(None, fd))
    _serve(sender, lambda: False)


def _serve(sender: Sender, should_stop: Callable[[], bool]) -> None:
    idle_since = time.monotonic()
    pause = POLL_BUSY_SECONDS
    while not should_stop():
        sender.let_burst_pass()
        if sender.step():
            pause = POLL_BUSY_SECONDS
        else:
            pause = min(pause * 1.25, POLL_IDLE_SECONDS)
        if sender.idle():
            if time.monotonic() - idle_since >= LINGER_SECONDS:
                sender.forget_open_traces()
                return
        else:
            idle_since = time.monotonic()
        time.sleep(pause)
