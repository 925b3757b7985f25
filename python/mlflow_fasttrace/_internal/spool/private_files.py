"""Opening the files of a spool, which belong to this user alone."""

from __future__ import annotations

from mlflow_fasttrace._internal.base.system import os


def open_private(path: str, flags: int) -> int:
    """Open a file that only this user may read; an ``opener`` of ``open()``.

    It is made so where ``flags`` has ``O_CREAT``. Its folder may be one that others can write to: no
    link is followed, and a pipe in the file's place does not block.

    Args:
        flags: Of ``os.open``, as ``os.O_RDONLY``.

    Returns:
        A descriptor that no child process inherits.

    Raises:
        OSError: the file cannot be opened, or is a link.
    """
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
