"""What other places (spool/places.py) have left in the folder of spools: those of containers that are gone, and
this machine's before its last start. Where nobody lives in a place any more its part of a spool moves into the
sender's own. And what holds nothing and has not been used for a day goes."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.spool import places
from mlflow_fasttrace._internal.spool.file_locks import (
    close_lock,
    is_in_place,
    open_lock,
    try_lock,
)
from mlflow_fasttrace._internal.spool.files import (
    DEAD_LETTER_SUFFIX,
    folder_bytes,
    ids_of,
    is_packed,
    is_ring,
    is_spilled,
    new_dead_letter_path,
    new_segment_path,
    note_of,
)
from mlflow_fasttrace._internal.spool.folder import Spool, spool_max_bytes, spool_named
from mlflow_fasttrace._internal.spool.status_file import FILE_NAME, read_status

logger = logging.getLogger("mlflow_fasttrace.sender")

_LOOK_SECONDS = 10.0
#: For how long nothing may have happened in a folder whose file system has no locks that could be trusted. Its
#: sender touches its lock at every look.
_STILL_SECONDS = 60.0
_UNUSED_SECONDS = 86_400.0
_SWEEP_SECONDS = 3_600.0

_SPOOL_OF_A_PLACE = re.compile(r"^[0-9a-f]{16}-[0-9a-f]{8}$")
_SPOOL = re.compile(r"^[0-9a-f]{16}(-[0-9a-f]{8})?$")
_LOCK_OF_A_PLACE = re.compile(r"^place-[0-9a-f]{8}\.lock$")
_LOCK_OF_A_DATABASE = re.compile(r"^database-[0-9a-f]{16}(-\d+)?\.lock$")
_LOCK, _LOG, _OLDER_LOG = "sender.lock", "sender.log", "sender.log.1"
#: What is of no use without the rest.
_OF_A_SENDER = frozenset({_LOCK, _LOG, _OLDER_LOG, FILE_NAME, FILE_NAME + ".new"})


class OtherPlaces:
    """The same spool in other places.

    Args:
        spool: The sender's own, on a disk.
        status: Gets the figures of the others.
    """

    def __init__(self, spool: Spool, status: Status):
        self._spool = spool
        self._root = os.path.dirname(spool.folder)
        self._status = status
        self._locks_tell = places.locks_tell(self._root)
        self._look_at = self._sweep_at = 0.0
        #: Folders in which nothing has happened, by what they held, since when (``time.monotonic``).
        self._still: dict[str, tuple[object, float]] = {}
        self._waits = False

    def waits(self) -> bool:
        """Whether the sender is to stay for something that is nobody else's, and that it does not take yet."""
        return self._waits

    def look(self) -> None:
        """Takes what is left behind, now and then."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        self._waits = False
        try:
            if not self._locks_tell:
                os.utime(self._spool.lock)
            for other in self._others():
                self._look_at_one(other, now)
            if now >= self._sweep_at:
                self._sweep_at = now + _SWEEP_SECONDS
                self._sweep()
        except OSError as error:
            logger.error("%s cannot be looked through: %s", self._root, error)

    # ---- the same spool elsewhere ----

    def _others(self) -> Iterator[Spool]:
        ours = self._spool
        for name in os.listdir(self._root):
            if (
                name != ours.name
                and name.partition("-")[0] == ours.credentials
                and _SPOOL.match(name)
            ):
                folder = os.path.join(self._root, name)
                if _is_ours(folder):
                    yield spool_named(self._root, name)

    def _look_at_one(self, other: Spool, now: float) -> None:
        try:
            with _Locks() as locks:
                if not (
                    locks.take(places.lock_of_place(self._root, other.place), missing=True)
                    and locks.take(other.lock, missing=False)
                ):
                    self._still.pop(other.name, None)  # somebody lives there
                    return
                if not self._locks_tell and not self._is_still(other, now):
                    return
                if self._take_over(other):
                    _remove_folder(other.folder)
        except OSError as error:
            logger.error("%s cannot be taken over: %s", other.folder, error)

    def _is_still(self, other: Spool, now: float) -> bool:
        """Whether nothing has happened in a folder for long."""
        holds = [
            (entry.name, info.st_size, info.st_mtime_ns)
            for entry in os.scandir(other.folder)
            if (info := entry.stat(follow_symlinks=False))
        ]
        before, since = self._still.get(other.name, (None, now))
        if before is not None and holds != before:
            self._still[other.name] = (holds, now)
            return False  # nor is it waited for: somebody may live there
        self._still[other.name] = (holds, since)
        self._waits |= now - since < _STILL_SECONDS
        return now - since >= _STILL_SECONDS

    def _take_over(self, other: Spool) -> bool:
        """Moves what a folder holds into the own one; whether nothing of use is left there."""
        bound = spool_max_bytes(self._spool.folder) // 4 * 3
        held = folder_bytes(self._spool.folder)
        taken, all_taken = 0, True
        for folder in (other.folder, os.path.join(other.folder, "rings")):
            for path in _files_in(folder):
                try:
                    size = os.lstat(path).st_size
                except FileNotFoundError:
                    continue  # the note of a dead letter, which has gone with that
                if taken and held + size > bound:
                    # It waits for what is delivered first: the programs here need room, too.
                    self._waits = True
                    return False
                if _is_in_use(path):
                    all_taken = False
                elif (target := self._target_of(path)) is not None:
                    os.rename(path, target)
                    held += size
                    taken += 1
        if all_taken and (before := read_status(other.folder)) is not None:
            self._status.add(before)
            os.unlink(os.path.join(other.folder, FILE_NAME))
        if taken:
            logger.info(
                "%s: %d files are taken over, nobody is there any more", other.folder, taken
            )
        return all_taken

    def _target_of(self, path: str) -> str | None:
        """Where a file of another place goes; None where it is of no use."""
        name = os.path.basename(path)
        own = os.path.join(self._spool.folder, name)
        if name == _LOG:
            own = os.path.join(self._spool.folder, _OLDER_LOG)
            return None if os.path.lexists(own) else own
        if name in _OF_A_SENDER or name.endswith(".new"):
            return None
        if not os.path.lexists(own):
            return own
        if is_packed(name):
            return new_segment_path(self._spool.folder)
        if name.endswith(DEAD_LETTER_SUFFIX):
            trace_id, span_id = ids_of(name)
            ids = trace_id if span_id is None else f"{trace_id}-{span_id}"
            own = new_dead_letter_path(self._spool.folder, ids)
            if os.path.lexists(note := note_of(path)):
                os.rename(note, note_of(own))
            return own
        return None

    # ---- what is empty ----

    def _sweep(self) -> None:
        """Removes what holds nothing and has not been used for a day."""
        for name in os.listdir(self._root):
            path = os.path.join(self._root, name)
            if path == self._spool.folder or not _is_ours(path):
                continue
            if _SPOOL_OF_A_PLACE.match(name):
                self._remove_spool(spool_named(self._root, name))
            elif (_LOCK_OF_A_DATABASE.match(name) and _unused(path)) or (
                _LOCK_OF_A_PLACE.match(name)
                and name != os.path.basename(places.lock_of_place(self._root, self._spool.place))
            ):
                _remove_lock(path)

    def _remove_spool(self, spool: Spool) -> None:
        names = set(os.listdir(spool.folder))
        used = [spool.folder, *(os.path.join(spool.folder, name) for name in names)]
        if not names <= _OF_A_SENDER or not all(map(_unused, used)) or os.path.lexists(spool.rings):
            return
        with _Locks() as locks:
            if spool.place != self._spool.place and not locks.take(
                places.lock_of_place(self._root, spool.place), missing=True
            ):
                return
            if locks.take(spool.lock, missing=True):
                _remove_folder(spool.folder)


class _Locks:
    """Locks that are had for a moment, to see that nobody else has them."""

    def __init__(self) -> None:
        self._fds: list[int] = []

    def __enter__(self) -> _Locks:
        return self

    def __exit__(self, *exception: object) -> None:
        for fd in reversed(self._fds):
            close_lock(fd)

    def take(self, path: str, *, missing: bool) -> bool:
        """Takes a lock.

        Args:
            path: Of its file.
            missing: What to answer where there is no such file: nobody can have it, but somebody may be about to.

        Returns:
            Whether nobody else has it.
        """
        try:
            fd = open_lock(path, os.O_RDWR)
        except FileNotFoundError:
            return missing
        self._fds.append(fd)
        return try_lock(fd, fcntl.LOCK_EX) and is_in_place(fd, path)


def _is_ours(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except FileNotFoundError:
        return False


def _unused(path: str) -> bool:
    """Whether a file has not been written to for a day."""
    try:
        return time.time() - os.lstat(path).st_mtime >= _UNUSED_SECONDS
    except FileNotFoundError:
        return True


def _files_in(folder: str) -> list[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    return [entry.path for entry in entries if entry.is_file(follow_symlinks=False)]


def _is_in_use(path: str) -> bool:
    """Whether a program writes to a file, though it does not show that it lives."""
    name = os.path.basename(path)
    try:
        if is_ring(name):
            return _core.RingReader(path).alive()
        return is_spilled(name) and _core.SegmentReader(path).is_written()
    except OSError:
        return False  # it is none


def _remove_lock(path: str) -> None:
    with _Locks() as locks:
        if locks.take(path, missing=False):
            os.unlink(path)


def _remove_folder(folder: str) -> None:
    """Removes a folder of which nothing is needed. Its lock goes last, and is held."""
    for path in _files_in(folder):
        if os.path.basename(path) != _LOCK:
            os.unlink(path)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(os.path.join(folder, "rings"))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, _LOCK))
    os.rmdir(folder)
