"""Locks that a traced program may take anywhere.

Code of this package runs in the middle of the program's: in a signal handler, or in a finalizer that
the garbage collector calls, which may interrupt this package's own code while it holds a lock. And a
program forks while another of its threads holds one. A plain ``threading.Lock`` hangs for good in
each of these cases; ruff bans it outside of this module.

A lock is held over this package's own code only, never over what the program may have put in the way
(log handlers, imports, patched functions), so that a thread waits for microseconds.
"""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType


class Lock:
    """A lock that its thread may take again, and that a forked child finds free unless the thread that
    forked holds it. Used with ``with``, or as ``if lock.acquire(seconds): try: ... finally:
    lock.release()``."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def acquire(self, seconds: float) -> bool:
        """Waits for the lock.

        Args:
            seconds: How long at most; 0: not at all.

        Returns:
            Whether this thread has it now.
        """
        return self._lock.acquire(timeout=seconds) if seconds else self._lock.acquire(False)

    def release(self) -> None:
        """Gives the lock back."""
        self._lock.release()

    def _after_fork(self) -> None:
        """Makes the lock anew where a thread that the child does not have holds it."""
        if self._lock.acquire(False):  # it is free, or this thread's
            self._lock.release()
        else:
            self._lock = threading.RLock()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def after_fork() -> None:
    """Makes the locks anew in a forked child. Python calls it; a child that has forked in C code does so
    itself when it finds out."""
    for lock in list(_locks):
        lock._after_fork()


os.register_at_fork(after_in_child=after_fork)
