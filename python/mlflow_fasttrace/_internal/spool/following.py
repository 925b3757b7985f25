"""What programs record, read while they do.

A ``Follower`` has readers of its own, beside the sender's, and changes nothing. What a sender has
delivered stays in a ring until the program writes over it, so a follower that looks often enough sees
every record, whoever delivers meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.spool.files import (
    Unreadable,
    dead_letter_paths,
    ring_stem,
    segment_paths,
    spill_sequence,
    spill_stem,
)
from mlflow_fasttrace._internal.spool.folder import Spool
from mlflow_fasttrace._internal.spool.overview import COUNTED_BYTES, all_spools, rings_of
from mlflow_fasttrace._internal.spool.reading import READ_BYTES, Item, open_ring, segment_items


class Batch(NamedTuple):
    """Records that were read together."""

    spool: str  # its name
    program: (
        str | None
    )  # the stem of its ring's name; None where nobody writes to the file any more
    items: list[Item]


class _Ring:
    """A program's ring, read up to here."""

    def __init__(self, spool: str, path: str):
        self.spool = spool
        self.path = path
        self.stem = ring_stem(path)
        self.reader = open_ring(path)
        self.reader.look_back()
        self.lost = 0  # bytes, at the last read
        self.ended = False  # the program has, and all is read

    def read(self) -> Iterator[list[Item]]:
        """Reads new records. ``lost`` then says what could not be read."""
        alive = self.reader.alive()  # asked before reading: nothing is added after the read then
        self.lost = 0
        yield from self._drain()
        if self.reader.damaged:
            self._skip()
            yield from self._drain()
        self.ended = not alive

    def _drain(self) -> Iterator[list[Item]]:
        while batch := self.reader.drain(READ_BYTES):
            yield [Item(kind, trace_id, record) for _end, kind, trace_id, record in batch]

    def _skip(self) -> None:
        """Goes on behind what the program has written over, or what is damaged."""
        if self.reader.tail > self.reader.cursor:
            with contextlib.suppress(FileNotFoundError, Unreadable):
                again = open_ring(self.path)  # begins with what is not delivered yet
                self.lost = again.cursor - self.reader.cursor
                self.reader.close()
                self.reader = again
                return
        self.lost = self.reader.skip_damage()


class _Spilled:
    """A segment that a program writes while its ring is full, read up to here."""

    def __init__(self, spool: str, path: str):
        self.spool = spool
        self.stem = spill_stem(path)
        self.number = spill_sequence(path)
        self.pid = self.stem.partition("-")[0]
        self.path = path
        # The reader keeps the file, which a sender may remove.
        self.reader: _core.SegmentReader | None = _core.SegmentReader(path)

    def move(self, path: str) -> None:
        """Goes on where a sender has moved the segment to."""
        self.path = path
        try:
            if self.reader is not None:
                self.reader.move(path)
        except OSError as error:
            let_pass(error)  # it is delivered, and removed

    def read(self) -> Iterator[list[Item]]:
        """Reads new records.

        Raises:
            OSError: The file cannot be read.
        """
        while self.reader is not None and (batch := self.reader.read(READ_BYTES)):
            yield [Item(kind, trace_id, record) for _end, kind, trace_id, record in batch]


class Follower:
    """Reads what programs record, wherever this user's spools are or will be.

    The first look finds what is there: what waits in files, and in the rings of programs also what is
    delivered. Each further look finds what was added. No record of a ring is given twice.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []  # what could not be read, for whoever takes them from here
        self.ended: set[str] = set()  # the programs whose end and last record the last look found
        self._rings: dict[str, _Ring] = {}  # by path
        self._spilled: dict[
            str, _Spilled
        ] = {}  # by the file's name, which it keeps where it is moved
        self._missed: set[str] = set()  # names in _spilled that the last look did not find
        self._unreadable: set[str] = set()
        self._first = True

    def close(self) -> None:
        """Lets go of all files."""
        for ring in self._rings.values():
            ring.reader.close()
        self._rings.clear()
        self._spilled.clear()

    def look(self) -> Iterator[Batch]:
        """The records that were added since the last look. ``ended`` is right when all are taken."""
        self.ended = set()
        spools = all_spools()
        if self._first:
            self._first = False
            for spool in spools:
                yield from self._packed(spool)
        self._find(spools)
        # A program's ring comes before its segments: of one that has ended by then these are whole.
        yield from self._from_rings()
        yield from self._from_spilled()

    def _packed(self, spool: Spool) -> Iterator[Batch]:
        """What waits in files that nobody writes to any more, and what was refused."""
        budget = COUNTED_BYTES
        packed, _spilled = segment_paths(spool.folder, spool.rings)
        for path in [*dead_letter_paths(spool.folder), *reversed(packed)]:
            if budget <= 0:
                return
            try:
                budget -= os.lstat(path).st_size
                for items in segment_items(path):
                    yield Batch(spool.name, None, items)
            except FileNotFoundError:
                continue
            except Unreadable as reason:
                self.notes.append(str(reason))

    def _find(self, spools: list[Spool]) -> None:
        """Opens the rings and segments that are new, and forgets those that are gone."""
        names = set()
        for spool in spools:
            for path in rings_of(spool):
                if path not in self._rings and path not in self._unreadable:
                    self._open_ring(spool.name, path)
            for path in segment_paths(spool.folder, spool.rings)[1]:
                names.add(os.path.basename(path))
                segment = self._spilled.get(os.path.basename(path))
                if segment is None and path not in self._unreadable:
                    self._open_spilled(spool.name, path)
                elif segment is not None and segment.path != path:
                    segment.move(path)
        # One that is moved between two folders may be seen in neither.
        for name in self._missed - names:
            self._spilled.pop(name, None)
        self._missed = self._spilled.keys() - names

    def _open_ring(self, spool: str, path: str) -> None:
        try:
            self._rings[path] = _Ring(spool, path)
        except FileNotFoundError:
            pass  # its sender has just removed it
        except Unreadable as reason:
            self._unreadable.add(path)
            self.notes.append(str(reason))

    def _open_spilled(self, spool: str, path: str) -> None:
        try:
            self._spilled[os.path.basename(path)] = _Spilled(spool, path)
        except FileNotFoundError:
            pass  # its sender has just moved or removed it
        except OSError as error:
            self._unreadable.add(path)
            self.notes.append(f"{path} cannot be read: {error.strerror or error}")

    def _from_rings(self) -> Iterator[Batch]:
        for path, ring in list(self._rings.items()):
            if ring.ended:
                if not os.path.exists(path):
                    del self._rings[path]
                continue
            for items in ring.read():
                yield Batch(ring.spool, ring.stem, items)
            if ring.lost:
                self.notes.append(
                    f"{ring.lost:,} bytes of what process {ring.reader.pid} recorded went by unread"
                )
            if ring.ended:
                ring.reader.close()
                self.ended.add(ring.stem)

    def _from_spilled(self) -> Iterator[Batch]:
        # Asked before reading: nothing is added to these after the read.
        ended = {
            ring.stem: ring.reader.spill_sequence for ring in self._rings.values() if not ring.ended
        }
        for name, segment in self._spilled.items():
            if segment.reader is None:
                continue
            try:
                for items in segment.read():
                    yield Batch(segment.spool, segment.stem, items)
            except OSError as error:
                self.notes.append(f"{name} cannot be read: {error.strerror or error}")
                segment.reader = None
            if segment.reader is not None and segment.reader.reused:
                self.notes.append(
                    f"what process {segment.pid} spilled to {name} was delivered before all of it "
                    "was read here"
                )
                segment.reader = None
            if segment.stem not in ended:
                self.ended.add(segment.stem)
                segment.reader = None
            elif segment.number < ended[segment.stem]:
                segment.reader = None  # all of it is read, and its memory may be used again
