"""Looks at files. Those of ``os.path``, and ``os.makedirs``, take any OSError for an answer: also a
``TimeoutError`` that a signal handler of the program raises in the middle of them, which they swallow."""

from __future__ import annotations

import stat

from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os


def _mode_of(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        let_pass(error)
        return None


def exists(path: str) -> bool:
    """Whether there is a file or a folder, and it may be looked at."""
    return _mode_of(path) is not None


def is_folder(path: str) -> bool:
    """Whether there is a folder, or a link to one."""
    mode = _mode_of(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_allowed(path: str, mode: int) -> bool:
    """Whether this process may do something with a file, by the rights that it has now.

    Args:
        path: Of the file.
        mode: Of ``os.access``, as ``os.W_OK``.
    """
    try:
        return os.access(path, mode, effective_ids=True)
    except NotImplementedError:  # not on this platform: the rights that it began with
        return os.access(path, mode)


def make_folders(path: str, mode: int = 0o700) -> None:
    """Makes a folder, and those above it, where they are missing, as ``os.makedirs``.

    Args:
        path: Of the folder.
        mode: Its permissions, by default for this user alone. Those above it get the usual ones.

    Raises:
        OSError: it cannot be made.
    """
    parent = os.path.dirname(path)
    if parent not in ("", path) and not exists(parent):
        make_folders(parent, 0o777)
    try:
        os.mkdir(path, mode)
    except OSError as error:
        let_pass(error)
        if not is_folder(path):  # it was there, or another process has just made it
            raise
