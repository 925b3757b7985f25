"""Where records come from: rings in shared memory and segments on disk.

Every record that has been read and not yet delivered is an ``Entry``. A source keeps its entries in
the order in which it read them, and gives up (a ring: space; a segment: the file) only what has no
undelivered entry before it. So whatever happens to the sender, what was not delivered is read again.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Collection

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.spool.files import (
    COMPRESSION_LEVEL,
    RING_NAME,
    SPILL_NAME,
    open_trace_path,
    own_file,
    remove,
    written_at,
)
from mlflow_fasttrace._internal.spool.records import INFO_SENT, PHASE_OFFSET, SPAN, TRACE

logger = logging.getLogger("mlflow_fasttrace.sender")

READ_BYTES = 4 << 20
PACK_AFTER_SECONDS = 1.0
_SPILLED_BYTES = 300  # of a record, about
_COPIED_AT_ONCE = 1 << 20


class Entry:
    """A record on its way. ``info_sent`` says that the server has acknowledged a trace's info, which
    is then never sent again; ``held`` that it waits for nothing but the end of its trace."""

    __slots__ = ("done", "held", "info_sent", "kind", "position", "record", "source", "trace_id")

    def __init__(self, source, position, kind, trace_id, record):
        self.source = source
        self.position = position
        self.kind = kind
        self.trace_id = trace_id
        self.record = record
        self.done = False
        self.held = False
        self.info_sent = kind == TRACE and bool(record[PHASE_OFFSET] & INFO_SENT)

    def record_to_keep(self) -> bytes:
        """The record as it goes to disk: it remembers that its info was acknowledged."""
        if self.kind == TRACE and self.info_sent:
            kept = bytearray(self.record)
            kept[PHASE_OFFSET] |= INFO_SENT
            return bytes(kept)
        return self.record


class RingSource:
    """One agent's ring: a file, or memory of this process that ``fd`` is open for."""

    def __init__(self, path: str | None, fd: int = -1):
        self.path = path
        self.stem = RING_NAME.match(os.path.basename(path))["stem"] if path else ""
        self.reader = _core.RingReader(path, fd)
        self.pending: deque[Entry] = deque()
        self.unpacked_since: float | None = None
        self.flush_wanted = False
        self._recorded = 0
        self._earlier: tuple[Entry, set[str]] | None = None

    def await_earlier(self, segments: Collection[str]) -> None:
        """What an earlier sender moved out of the ring is delivered when the segments are gone that
        there are now."""
        if self.reader.delivered < self.reader.tail:
            marker = self._marker(done=False)
            self.pending.append(marker)
            self._earlier = (marker, set(segments))
            self.settle_earlier(segments)

    def settle_earlier(self, segments: Collection[str]) -> None:
        if self._earlier is not None and self._earlier[1].isdisjoint(segments):
            self._earlier[0].done = True
            self._earlier = None
            self.settle()

    def grown(self) -> int:
        """Bytes, about, that the agent recorded since this was last asked."""
        self.flush_wanted |= self.reader.take_flush()
        recorded = self.reader.head + self.reader.spilled * _SPILLED_BYTES
        grown, self._recorded = recorded - self._recorded, recorded
        return grown

    def read(self) -> list[Entry]:
        self.flush_wanted |= self.reader.take_flush()
        entries = [Entry(self, *item) for item in self.reader.drain(READ_BYTES)]
        self.pending.extend(entries)
        if entries and self.unpacked_since is None:
            self.unpacked_since = time.monotonic()
        if self.reader.damaged:
            lost = self.reader.skip_damage()
            logger.error("%s is damaged: %d bytes of it cannot be read", self.path, lost)
            self.pending.append(self._marker(done=True))
        return entries

    def _marker(self, done: bool) -> Entry:
        marker = Entry(self, self.reader.cursor, SPAN, b"", b"")
        marker.done = done
        return marker

    def delivered_one(self) -> None:
        """One of its entries is done; ``settle`` sees that in the entry."""

    def settle(self) -> None:
        """Tells the agent how far everything is delivered."""
        position = None
        while self.pending and self.pending[0].done:
            position = self.pending.popleft().position
        if position is not None:
            self.reader.release(position)
        if self.flush_wanted:  # whoever waits for delivery does not wait for the end of traces
            for entry in self.pending:
                if not (entry.done or entry.held):
                    break
                position = entry.position
        if position is not None:
            self.reader.set_delivered(position)
        if not self.pending:
            self.unpacked_since = None

    def filling(self) -> bool:
        return self.reader.head - self.reader.tail > self.reader.capacity // 2

    def pack_is_due(self) -> bool:
        """With the server away: soon, but not a file for every few records."""
        if not self.pending or self.unpacked_since is None:
            return False
        return (
            self.flush_wanted
            or time.monotonic() - self.unpacked_since >= PACK_AFTER_SECONDS
            or not self.reader.alive()
        )

    def pack(self, path: str) -> PackedSegment | None:
        """Moves what is undelivered into a segment and gives its space back to the agent."""
        kept = [entry for entry in self.pending if not entry.done and entry.record]
        if not kept:
            return None
        _core.write_segment(path, [entry.record_to_keep() for entry in kept], COMPRESSION_LEVEL)
        for entry in kept:
            entry.done = True
        # What the agent waits for is now: the segment, and markers of earlier ones.
        markers = [entry for entry in self.pending if not entry.done]
        marker = self._marker(done=False)
        self.pending = deque([*markers, marker])
        self.reader.release(self.reader.cursor)
        self.unpacked_since = None
        self.flush_wanted = False
        return PackedSegment(path, marker)

    def finished(self) -> bool:
        """The agent is gone and nothing of its ring is needed any more."""
        reader = self.reader
        return not reader.alive() and reader.tail >= reader.head

    def remove(self) -> None:
        self.pending.clear()
        self.reader.close()
        if self.path is not None:
            remove(self.path)


class KeptRecord:
    """The source of a trace record that is known already: nothing waits for it."""

    def delivered_one(self) -> None:
        pass


class PackedSegment:
    """A segment that a sender wrote; complete from the start."""

    def __init__(self, path: str, marker: Entry | None = None):
        self.path = path
        self.marker = marker
        self.left = 0
        self.loaded = False

    def read(self) -> list[Entry]:
        entries: list[Entry] = []
        reader = _core.SegmentReader(self.path)
        while batch := reader.read(READ_BYTES):
            entries += [Entry(self, *item) for item in batch]
        if reader.damaged or reader.rest:
            _set_aside(self.path)
        self.left = len(entries)
        self.loaded = True
        return entries

    def delivered_one(self) -> None:
        self.left -= 1

    def settle(self) -> None:
        if self.loaded and self.left == 0:
            remove(self.path)
            if self.marker is not None:
                self.marker.done = True
                self.marker.source.settle()


class SpillSegment:
    """A segment that an agent writes while its ring is full; read as it grows."""

    def __init__(self, path: str, ring: RingSource | None):
        self.path = path
        self.ring = ring
        match = SPILL_NAME.match(os.path.basename(path))
        self.stem, self.sequence = match["stem"], int(match["sequence"])
        self.reader = _core.SegmentReader(path)
        self.left = 0
        self.loaded = False

    def ended(self) -> bool:
        """Whether the agent will not write to it any more."""
        if self.ring is None:
            return True
        return self.ring.reader.spill_sequence > self.sequence or not self.ring.reader.alive()

    def read(self) -> list[Entry]:
        entries: list[Entry] = []
        ended = self.ended()  # before reading: what is there then is all there is
        while batch := self.reader.read(READ_BYTES):
            entries += [Entry(self, *item) for item in batch]
        self.left += len(entries)
        if ended or self.reader.damaged:
            self.loaded = True
            if self.reader.damaged or (self.reader.rest and not self._was_being_written()):
                _set_aside(self.path)
        return entries

    def _was_being_written(self) -> bool:
        """Whether an agent may have been killed in the middle of its last record, whose span had not
        ended then: a frame that is cut off is no damage there."""
        return self.ring is None or self.ring.reader.spill_sequence == self.sequence

    def move(self, folder: str) -> None:
        """From memory to the disk, where a reboot leaves it. It is there whole or not at all.

        Raises:
            OSError: it cannot be; it stays where it is.
        """
        there = os.path.join(folder, os.path.basename(self.path))
        fresh = there + ".new"
        written = written_at(self.path)
        try:
            with open(self.path, "rb", opener=own_file) as source:
                with open(fresh, "wb", opener=own_file) as target:
                    shutil.copyfileobj(source, target, _COPIED_AT_ONCE)
            os.utime(fresh, ns=(written, written))
            os.rename(fresh, there)
        except OSError:
            remove(fresh)
            raise
        remove(self.path)
        self.path = there

    def delivered_one(self) -> None:
        self.left -= 1
        if self.ring is not None:
            self.ring.reader.add_spill_delivered(1)

    def settle(self) -> None:
        if self.loaded and self.left == 0:
            remove(self.path)


def _set_aside(path: str) -> None:
    """What precedes the damage has been read; the file is kept for whoever wants to look."""
    aside = path.removesuffix(".seg") + ".damaged"
    try:
        if os.path.exists(path) and not os.path.exists(aside):
            os.link(path, aside)
    except OSError:
        pass
    logger.error("%s is damaged; what precedes the damage is delivered, a copy is %s", path, aside)


def open_trace_entry(folder: str, trace_id: bytes) -> Entry | None:
    """What is kept there; None where it is nothing."""
    try:
        items = _core.SegmentReader(open_trace_path(folder, trace_id)).read(READ_BYTES)
    except OSError:
        return None
    for position, kind, named, record in items:
        if kind == TRACE and named == trace_id:
            return Entry(KeptRecord(), position, kind, named, record)
    return None
