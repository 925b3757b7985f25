"""The sender's lock: one sender a spool. The file says who holds it."""

from __future__ import annotations

import fcntl
import os
import random
import time
from typing import NamedTuple

from mlflow_fasttrace._internal.base.version import VERSION
from mlflow_fasttrace._internal.spool.folder import Spool


class Holder(NamedTuple):
    """Who an open lock file says is the sender; 0 and "" where it names none."""

    pid: int = 0
    version: str = ""
    stays: bool = False  # an agent's thread, or a command: nobody may ask it to end


def holder_of(lock: int) -> Holder:
    words = os.pread(lock, 100, 0).decode("ascii", "replace").split()
    if len(words) < 2 or not words[0].isdigit():
        return Holder()
    return Holder(int(words[0]), words[1], words[2:] == ["stays"])


def sender_of(spool: Spool) -> tuple[bool, int | None]:
    """Whether somebody holds the sender's lock, and who."""
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(spool.lock, flags)
    except OSError:
        return False, None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False, None
    except OSError:
        words = os.pread(fd, 100, 0).split()
        return True, int(words[0]) if words and words[0].isdigit() else None
    finally:
        os.close(fd)


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
        holder = holder_of(self._fd)
        wait = 0.0
        if holder.version not in ("", VERSION):
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
        os.pwrite(self._fd, f"{os.getpid()} {VERSION}{stays}\n".encode(), 0)
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
