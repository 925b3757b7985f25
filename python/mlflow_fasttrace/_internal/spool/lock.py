"""The sender's lock: one sender a spool. The file says who holds it."""

from __future__ import annotations

import time
from typing import NamedTuple

from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import fcntl, os
from mlflow_fasttrace._internal.base.version import VERSION
from mlflow_fasttrace._internal.spool.file_locks import (
    close_lock,
    is_in_place,
    open_lock,
    try_lock,
    unlock,
)
from mlflow_fasttrace._internal.spool.folder import Spool

_TAKE_OVER_SECONDS = 10.0  # for a sender of another release to end
_HAND_OVER_SECONDS = 1.0  # for a sender of this release, which may just have been asked to end
_LOOKS_AT_LOCK_SECONDS = 5.0  # for others to have done with their looks at the lock


class Holder(NamedTuple):
    """The sender that a lock file names."""

    pid: int = 0  # 0: the file names none
    version: str = ""
    #: It is a thread of a program, or a command, and nobody may ask it to end.
    stays: bool = False


def sender_of(spool: Spool) -> Holder | None:
    """The sender that holds a spool's lock; None where none does, or where the file cannot be opened.

    The file is not made where it is missing. The look takes a shared lock for a moment;
    ``Lock.take()`` waits for that.
    """
    try:
        fd = open_lock(spool.lock, os.O_RDONLY)
    except OSError as error:
        let_pass(error)
        return None
    try:
        return None if try_lock(fd, fcntl.LOCK_SH) else _named_in(fd)
    finally:
        close_lock(fd)


def named_in(spool: Spool) -> int:
    """The process id of the sender that had a spool's lock last, whether it has it now or not; 0: none has."""
    try:
        fd = open_lock(spool.lock, os.O_RDONLY)
    except OSError as error:
        let_pass(error)
        return 0
    try:
        return _named_in(fd).pid
    finally:
        close_lock(fd)


class Lock:
    """The right to be a spool's sender, for as long as this process lives.

    Args:
        path: The lock file; it is made where it is missing.
        stays: Nobody may ask this sender to end.
        patience_seconds: That another sender has at least to give the lock back.
    """

    def __init__(self, path: str, *, stays: bool, patience_seconds: float = 0.0):
        self._path = path
        self._stays = stays
        self._patience_seconds = patience_seconds
        self._fd = open_lock(path)

    def take(self) -> bool:
        """Takes the lock and writes who has it: process id, version, and whether it stays.

        A sender that was asked to end gets a moment, and so does whoever looks at the lock.

        Returns:
            Whether this process has the lock now.
        """
        while self._take():
            if is_in_place(self._fd, self._path):
                os.ftruncate(self._fd, 0)
                stays = " stays" if self._stays else ""
                os.pwrite(self._fd, f"{os.getpid()} {VERSION}{stays}\n".encode(), 0)
                return True
            # The folder was removed, which nobody had used for long, and is there again.
            close_lock(self._fd)
            self._fd = open_lock(self._path)
        return False

    def _take(self) -> bool:
        holder = _named_in(self._fd)
        wait = 0.0
        if holder.version not in ("", VERSION):
            wait = _TAKE_OVER_SECONDS
        elif not (self._stays or holder.stays):
            wait = _HAND_OVER_SECONDS
        wait = max(wait, self._patience_seconds)
        began = time.monotonic()
        while not try_lock(self._fd, fcntl.LOCK_EX):
            waited = time.monotonic() - began
            if try_lock(self._fd, fcntl.LOCK_SH):  # no sender: others look at the lock
                unlock(self._fd)
                if waited >= max(wait, _LOOKS_AT_LOCK_SECONDS):
                    return False
                # Up to 2 ms, by chance: who looks at the same time does not look again at the same time.
                time.sleep(time.perf_counter_ns() % 2_000_000 * 1e-9)
            elif waited >= wait:
                return False
            else:
                time.sleep(0.02)
        return True

    def release(self) -> None:
        """Gives the lock back. It may be taken again."""
        unlock(self._fd)

    def close(self) -> None:
        """Gives the lock back and closes its file."""
        close_lock(self._fd)


def _named_in(fd: int) -> Holder:
    words = os.pread(fd, 100, 0).decode("ascii", "replace").split()
    if len(words) < 2 or not words[0].isdigit():
        return Holder()
    return Holder(int(words[0]), words[1], words[2:] == ["stays"])
