"""Locks that a traced program may take anywhere.

Code of this package runs in the middle of the program's: in a signal handler, or in a finalizer that
the garbage collector calls, which may interrupt this package's own code while it holds a lock. And a
program forks while another of its threads holds one. A plain ``threading.Lock`` hangs for good in
each of these cases; ruff bans it outside of this module.

A lock is held over this package's own code only, never over what the program may have put in the way
(log handlers, imports, patched functions), so that a thread waits for microseconds. And there is one of them for
all that waits without an end, ``brief``: of two, each taken by a finalizer in the middle of what the other one
guards, two threads would wait for each other. Only ``spool/database.py`` holds one for long, over MLflow's code
that makes tables.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

from mlflow_fasttrace._internal.base.interruptions import let_pass

#: The type of re-entrant locks: C code of Python's own, or gevent's where that has replaced threads.
_ReentrantLock: Any = type(threading.RLock())


class Lock(_ReentrantLock):
    """A lock that its thread may take again, and that a forked child finds free unless the thread that
    forked holds it.

    It is used with ``with``, whose two steps are C functions of Python's own type: a signal handler that raises
    does so before the lock is taken, or inside of the block. A method in Python could be left in between, with
    the lock taken for good. For the same reason who waits for some time only, or not at all, takes it inside of
    a ``try`` statement, and gives it back by the first call behind ``finally``, which raises RuntimeError where
    it was not taken::

        try:
            if lock.acquire(timeout=seconds):
                ...
        finally:
            try:
                lock.release()
            except RuntimeError as error:
                let_pass(error)
    """

    def __init__(self) -> None:
        super().__init__()
        _locks.add(self)

    def _after_fork(self) -> None:
        """Makes the lock anew where a thread that the child does not have holds it."""
        if self.acquire(False):  # it is free, or this thread's
            self.release()
        else:
            self._at_fork_reinit()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _all() -> list[Lock]:
    while True:
        try:
            return list(_locks)
        except RuntimeError as error:  # another thread makes one meanwhile
            let_pass(error)


#: For every short piece of code that two threads must not run at a time.
brief = Lock()


def is_held() -> bool:
    """Whether this thread holds one of the locks: it is in a finalizer, or a signal handler, that came in the
    middle of this package's code. Who does must not wait for a lock that is held for long, since its holder may
    wait for this one."""
    return any(lock._is_owned() for lock in _all())


def after_fork() -> None:
    """Makes the locks anew in a forked child. Python calls it; a child that has forked in C code does so
    itself when it finds out."""
    for lock in _all():
        lock._after_fork()


os.register_at_fork(after_in_child=after_fork)
