"""A new database: MLflow makes its tables when it opens one, without a lock. A program and its
sender open the same one at about the same time; here they take turns, or both would make them.

And one process makes those of one database at a time. MLflow does it by Alembic, which keeps in the process,
not in the thread, what it is at work on: two threads that each make another database mix the two."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import threading
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlflow_fasttrace._internal.base import locks, patching, paths
from mlflow_fasttrace._internal.base.digests import digest
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.spool.file_locks import close_lock, is_in_place, open_lock
from mlflow_fasttrace._internal.spool.folder import spools_root

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.engine import Engine

_UTILS = "mlflow.store.db.utils"

_guarded = False  # whether guard() was called
_making = locks.Lock()  # held while this process makes tables, which is MLflow's code
_mine = threading.local()  # .paths: lock files of the turns that a thread has, which may nest


@contextlib.contextmanager
def turn(url: URL) -> Iterator[None]:
    """Waits for this thread's turn at a database, which lasts until the end of the block. Programs of
    this user and their senders keep to turns. Where the lock file cannot be made there are none.

    Args:
        url: The database's.
    """
    path = _lock_of(url)
    held = _mine.__dict__.setdefault("paths", set())
    if path in held:
        yield
        return
    fd = _locked(path)
    if fd is None:
        yield
        return
    held.add(path)
    try:
        yield
    finally:
        held.discard(path)
        close_lock(fd)


def _locked(path: str) -> int | None:
    """Waits for a lock; None where there can be none."""
    try:
        paths.make_folders(os.path.dirname(path))
        while True:
            fd = open_lock(path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                os.utime(fd)  # it is in use: see sender/other_places.py
                found = is_in_place(fd, path)
            except BaseException:
                close_lock(fd)
                raise
            if found:
                return fd
            close_lock(fd)
    except OSError as error:
        let_pass(error)
        return None


def _lock_of(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        place = os.path.abspath(url.database or "")
    else:
        place = f"{url.get_backend_name()} {url.host} {url.port} {url.database}"
    return os.path.join(spools_root(), f"database-{digest(place, 8)}-{os.geteuid()}.lock")


def guard() -> None:
    """Has MLflow's own code in this process make tables only in turn, from now on."""
    global _guarded
    if not _guarded:
        _guarded = True
        patching.when_loaded(_UTILS, _guard, for_good=True)


def _guard() -> None:
    utils = sys.modules[_UTILS]
    exist = getattr(utils, "_all_tables_exist", None)
    make = getattr(utils, "_initialize_tables", None)
    if not isinstance(exist, types.FunctionType) or not isinstance(make, types.FunctionType):
        return  # another MLflow

    def all_tables_exist(engine: Engine) -> Any:
        with turn(engine.url):
            return own_exist(engine)

    def initialize_tables(engine: Engine) -> None:
        with turn(engine.url), _making:
            if not own_exist(engine):
                own_make(engine)

    own_exist = patching.redirect(exist, all_tables_exist)
    own_make = patching.redirect(make, initialize_tables)
