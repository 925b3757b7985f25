"""Locks on files. They hold across processes, and no forked child keeps one: with the descriptor that it
inherits it would hold its parent's lock for as long as it lives itself."""

from __future__ import annotations

from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import fcntl, os
from mlflow_fasttrace._internal.spool.private_files import open_private

#: The descriptors of lock files that this process has open.
_open: set[int] = set()


def open_lock(path: str, flags: int = 0) -> int:
    """Opens a lock file, which is made where it is missing.

    Args:
        path: Of the file.
        flags: Instead of these, of ``os.open``: ``os.O_RDONLY`` looks at one that is there.

    Returns:
        Its descriptor, for ``close_lock``.

    Raises:
        OSError: it cannot be opened, or made.
    """
    fd = open_private(path, flags or os.O_RDWR | os.O_CREAT)
    _open.add(fd)
    return fd


def close_lock(fd: int) -> None:
    """Gives a lock back, and closes its file. Does nothing in a forked child, where that is done."""
    if fd in _open:
        _open.discard(fd)
        os.close(fd)


def try_lock(fd: int, kind: int) -> bool:
    """Takes a lock without waiting for it.

    Args:
        fd: Of a lock file.
        kind: ``fcntl.LOCK_SH`` or ``fcntl.LOCK_EX``.

    Returns:
        Whether this process has it now.
    """
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        let_pass(error)
        return False
    return True


def unlock(fd: int) -> None:
    """Gives a lock back. It may be taken again."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def is_in_place(fd: int, path: str) -> bool:
    """Whether a descriptor's file is the one of that path still: somebody may have removed it, and made another
    one, whose lock is another."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except OSError as error:
        let_pass(error)
        return False
    ours = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)


def assert_locks_work(fd: int, path: str) -> None:
    """Finds out whether a file system has locks at all: not every network's has.

    Raises:
        OSError: it has none.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        let_pass(error)  # somebody has it: they work
    except OSError as error:
        let_pass(error)
        raise OSError(
            error.errno, f"no files can be locked there: {error.strerror}", path
        ) from None
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)


def after_fork() -> None:
    """Closes, in a forked child, the lock files of its parent. Python calls it; a child that has forked in C code
    does so itself when it finds out."""
    for fd in list(_open):
        close_lock(fd)


os.register_at_fork(after_in_child=after_fork)
