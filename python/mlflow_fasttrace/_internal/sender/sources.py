"""Where records come from: rings in shared memory and segments on disk.

Every record that has been read and not yet delivered is an ``Entry``. A ring keeps its entries in the
order in which they were read, and gives up the space before the first that is undelivered. A segment
counts its undelivered entries, and its file is removed when there are none. So whatever happens to the
sender, what was not delivered is read again.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Collection
from typing import Protocol

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.spool.files import (
    COMPRESSION_LEVEL,
    damaged_copy_of,
    free,
    give_back,
    remove,
    ring_stem,
    spill_sequence,
    written_at,
)
from mlflow_fasttrace._internal.spool.private_files import open_private
from mlflow_fasttrace._internal.spool.reading import READ_BYTES
from mlflow_fasttrace._internal.spool.records import TRACE, info_was_sent, with_info_sent

logger = logging.getLogger("mlflow_fasttrace.sender")

_PACK_AFTER_SECONDS = 1.0
_SPILLED_RECORD_BYTES = 300  # an estimate: rings count spilled records, not their bytes
_COPIED_AT_ONCE = 1 << 20
_BEGUN_WITHIN_SECONDS = 60.0  # that a segment has got its head, or its program was killed before


class Source(Protocol):
    """A ring or a segment, as its entries see it."""

    def delivered_one(self) -> None:
        """One of the source's entries is delivered."""

    def was_tried(self, position: int) -> bool:
        """Whether an earlier sender may have sent the entry at a position, and not have heard that it arrived."""


class Entry:
    """A record on its way.

    ``source`` and ``position`` say where the record was read and where it ends there. ``done``: it
    is delivered, or lies in a segment, which ``packed`` says. ``postponed``: it waits for the end of its trace or for
    another try, and no flush waits for it. ``info_sent``: the server has acknowledged the info of
    this trace record, which is then never sent again.
    """

    __slots__ = (
        "done",
        "info_sent",
        "kind",
        "packed",
        "position",
        "postponed",
        "record",
        "source",
        "trace_id",
    )

    def __init__(self, source: Source, position: int, kind: int, trace_id: bytes, record: bytes):
        self.source = source
        self.position = position
        self.kind = kind
        self.trace_id = trace_id
        self.record = record
        self.done = False
        self.packed = False
        self.postponed = False
        self.info_sent = kind == TRACE and info_was_sent(record)

    def acknowledge(self) -> None:
        """Says to the source, once, that nothing is left to do for this entry."""
        if not self.done:
            self.done = True
            self.source.delivered_one()

    def record_for_disk(self) -> bytes:
        """The record, with the mark that its info was acknowledged."""
        if self.kind == TRACE and self.info_sent:
            return with_info_sent(self.record)
        return self.record


class Marker:
    """A position in a ring up to which nothing counts as delivered before the marker is done: what
    stood there has moved to segments, which are delivered by themselves, or was damaged."""

    __slots__ = ("done", "position", "postponed", "ring")

    def __init__(self, ring: RingSource, position: int, *, done: bool):
        self.ring = ring
        self.position = position
        self.done = done
        self.postponed = False


class RingSource:
    """One program's ring.

    Args:
        ring: The path of its file, or a ring of this process, which no path leads to.

    Raises:
        OSError: it is no ring of this user.
    """

    def __init__(self, ring: str | _core.RingWriter):
        self.path = ring if isinstance(ring, str) else None
        self.stem = ring_stem(self.path) if self.path is not None else ""
        self.reader = _core.RingReader(ring)
        self._tried_up_to = self.reader.head if self.reader.heartbeat_ns else 0
        self.pending: deque[Entry | Marker] = deque()
        self.unpacked_since: float | None = None
        #: Whether a flush waits for what has been read.
        self.flush_wanted = False
        # A flush that has been seen since records were last read: what it waits for may not be among
        # those that are being delivered. The other is the ring's head when it was seen.
        self._flush_arrived = False
        self._flush_head = 0
        self._recorded = 0
        self._earlier: tuple[Marker, set[str]] | None = None

    def await_earlier(self, segments: Collection[str]) -> None:
        """Lets what an earlier sender moved out of the ring count as delivered when the given
        segments, which are all that there are now, are gone."""
        if self.reader.delivered < self.reader.tail:
            marker = Marker(self, self.reader.cursor, done=False)
            self.pending.append(marker)
            self._earlier = (marker, set(segments))
            self.settle_earlier(segments)

    def settle_earlier(self, segments: Collection[str]) -> None:
        """Looks whether the segments of ``await_earlier`` are gone.

        Args:
            segments: The segments that are left.
        """
        if self._earlier is not None and self._earlier[1].isdisjoint(segments):
            self._earlier[0].done = True
            self._earlier = None
            self.settle()

    def grown(self) -> int:
        """The number of bytes, about, that the program recorded since the last call."""
        self._look_for_flush()
        recorded = self.reader.head + self.reader.spilled * _SPILLED_RECORD_BYTES
        grown, self._recorded = recorded - self._recorded, recorded
        return grown

    def _look_for_flush(self) -> None:
        if self.reader.take_flush():
            self._flush_arrived = True
            self._flush_head = self.reader.head

    def is_waited_for(self) -> bool:
        """Whether a flush waits for anything of the ring."""
        return self.flush_wanted or self._flush_arrived

    def flush_is_done(self) -> None:
        """What was read before is delivered or tried. A flush whose records are not all among that
        goes on, as does one that was seen since."""
        if self.reader.cursor >= self._flush_head:
            self.flush_wanted = False

    def read(self) -> list[Entry]:
        """Reads new records; none where there is no memory for them, which are read later."""
        self._look_for_flush()
        self.flush_wanted |= self._flush_arrived
        self._flush_arrived = False
        start, known = self.reader.cursor, len(self.pending)
        try:
            entries = [Entry(self, *item) for item in self.reader.drain(READ_BYTES)]
            self.pending.extend(entries)
        except MemoryError:
            while len(self.pending) > known:
                self.pending.pop()
            self.reader.rewind(start)
            return []
        if entries and self.unpacked_since is None:
            self.unpacked_since = time.monotonic()
        if self.reader.damaged:
            lost = self.reader.skip_damage()
            logger.error("%s is damaged: %d bytes of it cannot be read", self.path, lost)
            self.pending.append(Marker(self, self.reader.cursor, done=True))
        return entries

    def delivered_one(self) -> None:
        """Does nothing: ``settle`` sees in the entries which of them are done."""

    def was_tried(self, position: int) -> bool:
        return position <= self._tried_up_to

    def settle(self) -> None:
        """Tells the program how far everything is delivered."""
        position = None
        while self.pending and self.pending[0].done:
            position = self.pending.popleft().position
        if position is not None:
            self.reader.release(position)
        if self.flush_wanted:  # a flush does not wait for the end of traces
            for entry in self.pending:
                if not (entry.done or entry.postponed):
                    break
                position = entry.position
        if position is not None:
            self.reader.set_delivered(position)
        if not self.pending:
            self.unpacked_since = None

    def filling(self) -> bool:
        """Whether more than half of the ring is not given back."""
        return self.reader.head - self.reader.tail > self.reader.capacity // 2

    def pack_is_due(self) -> bool:
        """Whether, with the server unavailable, the ring's records go to disk now: soon, but there
        is no file for every few records."""
        if not self.pending or self.unpacked_since is None:
            return False
        return (
            self.flush_wanted
            or time.monotonic() - self.unpacked_since >= _PACK_AFTER_SECONDS
            or not self.reader.alive()
        )

    def pack(self, path: str) -> PackedSegment | None:
        """Moves what is undelivered into a segment and gives its space back to the program.

        Args:
            path: Of the segment.

        Returns:
            The segment; None where there is nothing to move.

        Raises:
            OSError, MemoryError: the segment cannot be written; everything stays in the ring.
        """
        undone = [item for item in self.pending if not item.done]
        moved = [item for item in undone if isinstance(item, Entry)]
        if not moved:
            return None
        # A flush waits for the segment from now on, and for the markers of earlier ones. All of this
        # is made before the segment is: what fails behind that would leave its records in both.
        marker = Marker(self, self.reader.cursor, done=False)
        markers = [item for item in undone if isinstance(item, Marker)]
        pending: deque[Entry | Marker] = deque([*markers, marker])
        segment = PackedSegment(path, marker)
        _core.write_segment(path, [entry.record_for_disk() for entry in moved], COMPRESSION_LEVEL)
        for entry in moved:
            entry.done = entry.packed = True
        self.pending = pending
        self.reader.release(self.reader.cursor)
        self.unpacked_since = None
        self.flush_is_done()
        return segment

    def finished(self) -> bool:
        """Whether the program is gone and nothing of its ring is needed any more."""
        reader = self.reader
        return not reader.alive() and reader.tail >= reader.head

    def remove(self) -> None:
        """Closes the ring and removes its file."""
        self.pending.clear()
        self.reader.close()
        if self.path is not None:
            remove(self.path)


class PackedSegment:
    """A segment that a sender wrote; complete from the start.

    Args:
        path: Of its file.
        marker: What stands for it in the ring that its records come from, where this sender moved
            them.
    """

    is_read = True  # once it has been read, which gives all of it or fails

    def __init__(self, path: str, marker: Marker | None = None):
        self.path = path
        self.marker = marker
        self.left = 0
        self.loaded = False

    def read(self) -> list[Entry]:
        """Reads all records.

        Raises:
            OSError, MemoryError: the file cannot be read.
        """
        entries: list[Entry] = []
        reader = _core.SegmentReader(self.path)
        while batch := _batch(reader, self):
            entries += batch
        if reader.damaged or reader.rest:
            _copy_damaged(self.path)
        self.left = len(entries)
        self.loaded = True
        return entries

    def delivered_one(self) -> None:
        self.left -= 1

    def was_tried(self, position: int) -> bool:
        return True  # what is packed could not be delivered

    def settle(self) -> None:
        """Removes the file when all of it is delivered."""
        if self.loaded and self.left == 0:
            remove(self.path)
            self.let_ring_go()

    def let_ring_go(self) -> None:
        """Nothing in the ring waits for this segment any more: it is delivered, or gone."""
        if self.marker is not None:
            self.marker.done = True
            self.marker.ring.settle()


class SpillSegment:
    """A segment that a program writes while its ring is full; read as it grows.

    Args:
        path: Of its file.
        ring: The program's ring; None where that is gone.
        in_memory: It lies where programs spill first (``ext/spool/mapped.c``).
        found_at_start: The sender has just begun: an earlier one may have read the segment.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        path: str,
        ring: RingSource | None,
        *,
        in_memory: bool = False,
        found_at_start: bool = False,
    ):
        self.path = path
        self.in_memory = in_memory
        self._found_at_start = found_at_start
        self._is_damaged = False
        self.ring = ring
        self.sequence = spill_sequence(path)
        self.reader = _core.SegmentReader(path)
        self.left = 0
        self.loaded = False
        self.is_read = False  # up to where its program was when it was read last

    def ended(self) -> bool:
        """Whether the program will not write to it any more."""
        if self.ring is None:
            return not self._is_written()
        return self.ring.reader.spill_sequence > self.sequence or not self.ring.reader.alive()

    def read(self) -> list[Entry]:
        """Reads new records. Where the file cannot be read to its end, what precedes is given, and the
        next call raises.

        Raises:
            OSError, MemoryError: the file cannot be read from where the last call ended. Another
                call begins there.
        """
        entries: list[Entry] = []
        self.is_read = False
        ended = self.ended()  # asked before reading: nothing is added after the read then
        whole = False
        while not whole:
            at = self.reader.offset
            try:
                batch = _batch(self.reader, self)
                entries += batch
            except (OSError, MemoryError):
                self.reader.rewind(at)
                if not entries:
                    raise
                self.left += len(entries)
                return entries
            whole = not batch
        self.is_read = True
        self.left += len(entries)
        if ended or self.reader.damaged:
            self.loaded = True
            if self.reader.damaged or (self.reader.rest and not self._was_being_written()):
                self._is_damaged = True
                _copy_damaged(self.path)
        return entries

    def _is_written(self) -> bool:
        """Whether a program writes to it whose ring is not here: somebody has removed it, or it is another
        place's."""
        try:
            return self.reader.is_written() and (
                self.reader.offset > 0
                or time.time_ns() - written_at(self.path) < _BEGUN_WITHIN_SECONDS * 1e9
            )
        except OSError:
            return True  # for now

    def _was_being_written(self) -> bool:
        """Whether a program may have been killed in the middle of its last record, whose span had
        not ended then: a frame that is cut off is no damage there."""
        return self.ring is None or self.ring.reader.spill_sequence == self.sequence

    def move(self, folder: str) -> None:
        """Moves the file from memory to the disk, where a reboot leaves it. It is there whole or not
        at all. The program that may still map the memory does not hold it by that.

        Raises:
            OSError, MemoryError: it cannot be moved, and stays where it is.
        """
        there = os.path.join(folder, os.path.basename(self.path))
        fresh = there + ".new"
        written = written_at(self.path)
        try:
            with open(self.path, "rb", opener=open_private) as source:
                with open(fresh, "wb", opener=open_private) as target:
                    shutil.copyfileobj(source, target, _COPIED_AT_ONCE)
                    target.truncate(_end_of_frames(self.path))
            os.utime(fresh, ns=(written, written))
            os.rename(fresh, there)
            self.reader.move(there)
        except (OSError, MemoryError):
            remove(fresh)
            remove(there)
            raise
        free(self.path)
        self.path, self.in_memory = there, False

    def delivered_one(self) -> None:
        self.left -= 1
        if self.ring is not None:
            self.ring.reader.add_spill_delivered(1)

    def was_tried(self, position: int) -> bool:
        return self._found_at_start

    def settle(self) -> None:
        """Removes the file when all of it is delivered, or leaves its memory to the program."""
        if self.loaded and self.left == 0:
            if self._can_be_used_again():
                give_back(self.path)
            else:
                remove(self.path)

    def _can_be_used_again(self) -> bool:
        """Whether it is memory that the program may want for its next segments, and nobody looks at."""
        if not self.in_memory or self._is_damaged or self.ring is None:
            return False
        return self.ring.reader.alive()


def _batch(reader: _core.SegmentReader, segment: PackedSegment | SpillSegment) -> list[Entry]:
    """Reads on in a segment; nothing at its end.

    Raises:
        OSError: Nothing can be read now; also where somebody has renamed the file, of which nothing is given
            then: that is not its end.
    """
    items = reader.read(READ_BYTES)
    if reader.reused:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), segment.path)
    return [Entry(segment, *item) for item in items]


def _end_of_frames(path: str) -> int | None:
    """Where the last frame of a segment in memory ends, behind which there may be more memory; None where
    it is damaged."""
    reader = _core.SegmentReader(path)
    while reader.read(READ_BYTES):
        pass
    return None if reader.damaged else reader.offset


def _copy_damaged(path: str) -> None:
    """Leaves the file under another name, for people to look at. What precedes the damage has been
    read."""
    aside = damaged_copy_of(path)
    try:
        if os.path.exists(path) and not os.path.exists(aside):
            os.link(path, aside)
    except OSError:
        pass
    logger.error("%s is damaged; what precedes the damage is delivered, a copy is %s", path, aside)
