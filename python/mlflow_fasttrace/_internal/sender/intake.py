"""The intake: rings and segments are found, read, settled with what is delivered, and removed."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Collection
from typing import NamedTuple

from mlflow_fasttrace._internal.sender.assemble import Assembler, TraceBuffer
from mlflow_fasttrace._internal.sender.sources import PackedSegment, RingSource, SpillSegment
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.spool.files import (
    free,
    free_spare,
    remove_moved,
    ring_paths,
    segment_paths,
    spares,
    spill_stem,
    written_at,
)
from mlflow_fasttrace._internal.spool.ring_states import ServerState

logger = logging.getLogger("mlflow_fasttrace.sender")

SCAN_SECONDS = 0.05  # between looks for rings of new programs
MEMORY_BYTES = 32 << 20  # that records take, above which no segment is read
SPARE_SECONDS = 10.0  # that a program may keep memory which it spilled to before
_SPARES_LOOKED_AT_SECONDS = 1.0
_FORGOTTEN_SECONDS = 600.0  # after which memory that was being taken belongs to nobody
RETRY_SECONDS = 60.0  # after which a file that could not be read is tried again
#: Errors that say nothing of the file itself.
_PASSING = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EAGAIN, errno.EINTR}
)


class _Look(NamedTuple):
    """What there was at a moment."""

    began: float  # of time.monotonic()
    heads: dict[str, int]  # of rings, by their paths
    living: frozenset[int]  # the process ids of programs


class Intake:
    """The sources of a spool.

    Args:
        folder: The spool's folder; None: there are no folders, and rings are handed in.
        rings_folder: The folder of its rings.
        assembler: Takes the records.
        status: Hears of files that cannot be read.
    """

    def __init__(
        self, folder: str | None, rings_folder: str | None, assembler: Assembler, status: Status
    ):
        self.rings: dict[str, RingSource] = {}
        self.segments: dict[str, PackedSegment | SpillSegment] = {}
        self.flush_wanted = False
        self.scanned_at = 0.0
        #: All that was recorded before this moment (of time.monotonic()) is read, as far as it can be.
        self.read_up_to = float("-inf")
        self._look: _Look | None = None  # at the last scan, of which not all is read yet
        #: Programs at the last moment of which all is read.
        self._living: frozenset[int] | None = None
        self._some_have_ended = False  # programs, since somebody asked
        self._beat_at = 0.0
        self._spares_looked_at = 0.0
        #: Memory that programs may use again (path and inode), and since when.
        self._spares: dict[tuple[str, int], float] = {}
        self._spool_is_full = False
        self._folder = folder
        self._rings_folder = rings_folder
        self._assembler = assembler
        self._status = status
        self._reported = ServerState.UNKNOWN
        self._left_alone: dict[str, float] = {}  # files, and when each is tried again
        self._failed_once: set[str] = set()  # those of them that the next look may read
        # The segments among them: of one a part may have been read, and a ring may wait for it.
        self._resting: dict[str, PackedSegment | SpillSegment] = {}
        if folder is not None and rings_folder is not None:
            remove_moved(folder, rings_folder)

    # ---- finding ----

    def scan(self, *, spool_is_full: bool = False) -> None:
        """Finds rings of new programs and segments, and tells all programs that they have a sender.

        Args:
            spool_is_full: What the programs are told of the spool's bound.
        """
        begins = self.scanned_at == 0.0
        self.scanned_at = time.monotonic()
        found = self._new_rings()
        if self._look is None:  # else it goes on: a busy program would never be caught up with
            # Programs come first: what one that is gone has recorded is all in the rings and files that are found next.
            living = self.living()
            heads = {path: ring.reader.head for path, ring in self.rings.items()}
            self._look = _Look(self.scanned_at, heads, living)
        self._spool_is_full = spool_is_full
        self._beat_at = 0.0
        self.beat()
        if self._folder is None:
            return
        if self.scanned_at >= self._spares_looked_at + _SPARES_LOOKED_AT_SECONDS:
            self._free_spares()
        known = len(self.segments)
        packed, spilled = segment_paths(self._folder, self._rings_folder)
        for path in packed:
            if path not in self.segments and not self._is_left_alone(path):
                resting = self._resting.pop(path) if path in self._resting else None
                self.segments[path] = resting or PackedSegment(path)
        self._forget_left_alone({*packed, *spilled})
        for ring in found:
            ring.await_earlier(packed)
        by_stem = {ring.stem: ring for ring in self.rings.values()}
        for path in spilled:
            if path not in self.segments and not self._is_left_alone(path):
                try:
                    begun = self._resting.pop(path, None)
                    ring_of_it = by_stem.get(spill_stem(path))
                    self.segments[path] = begun or SpillSegment(
                        path,
                        ring_of_it,
                        in_memory=self._is_in_memory(path),
                        found_at_start=begins,
                    )
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._leave_alone(path, error)
        if len(self.segments) > known:
            # The order is nearly that of their records: fewer traces are delivered in parts.
            in_order = sorted(self.segments.items(), key=lambda item: written_at(item[0]))
            self.segments = dict(in_order)

    def _is_in_memory(self, path: str) -> bool:
        """Whether a segment lies where programs spill first."""
        return self._rings_folder != self._folder and os.path.dirname(path) == self._rings_folder

    def _free_spares(self) -> None:
        """Frees the memory of delivered segments that its program is not likely to need soon."""
        if self._rings_folder in (None, self._folder):
            return
        now = self._spares_looked_at = time.monotonic()
        alive = {ring.stem: ring.reader.alive() for ring in self.rings.values()}
        seen: dict[tuple[str, int], float] = {}
        for spare in spares(self._rings_folder):
            since = seen[spare.path, spare.inode] = self._spares.get((spare.path, spare.inode), now)
            is_alive = alive.get(spare.stem)  # None: it has no ring here
            if is_alive is False:
                free(spare.path)
            elif not spare.is_taken:
                if is_alive is None or now - since >= SPARE_SECONDS:
                    free_spare(spare.path)
            elif is_alive is None and now - since >= _FORGOTTEN_SECONDS:
                free(spare.path)
        self._spares = seen

    def beat(self) -> None:
        """Tells all programs that their sender is at work. It is called between any two requests: who has not
        heard of a sender for longer than one may take ends it (recording/supervisor.py)."""
        now = time.monotonic()
        if now - self._beat_at >= SCAN_SECONDS:
            self._beat_at = now
            for ring in self.rings.values():
                ring.reader.heartbeat(self._spool_is_full)

    def _new_rings(self) -> list[RingSource]:
        found = []
        folders = [path for path in (self._rings_folder, self._folder) if path is not None]
        for path in ring_paths(*folders):
            if path in self.rings or self._is_left_alone(path):
                continue
            try:
                ring = RingSource(path)
            except OSError as error:
                self._leave_alone(path, error)
                continue
            self._is_readable(path)
            self.adopt(ring)
            found.append(ring)
        return found

    def adopt(self, ring: RingSource) -> None:
        """Serves a ring from now on."""
        ring.reader.set_server_state(self._reported)
        self.rings[ring.path or ""] = ring

    def _is_left_alone(self, path: str) -> bool:
        return time.monotonic() < self._left_alone.get(path, 0.0)

    def _leave_alone(self, path: str, error: Exception) -> None:
        """Looks at a file again after a while: one that is no ring or segment of this user, or that
        the disk does not give back."""
        passing = isinstance(error, MemoryError) or (
            isinstance(error, OSError) and error.errno in _PASSING
        )
        if passing and path not in self._left_alone:
            self._failed_once.add(path)
        else:
            self._failed_once.discard(path)
        if path not in self._left_alone:
            reason = f"{path} cannot be read and is left alone: {str(error) or 'no memory'}"
            logger.error(reason)
            self._status.error(reason)
        self._left_alone[path] = time.monotonic() + RETRY_SECONDS

    def _is_readable(self, path: str) -> None:
        self._left_alone.pop(path, None)
        self._failed_once.discard(path)

    def _rest(
        self, path: str, segment: PackedSegment | SpillSegment, error: OSError | MemoryError
    ) -> None:
        """Puts a segment away until it is tried again."""
        if not isinstance(error, FileNotFoundError):
            self._resting[path] = segment
            self._leave_alone(path, error)
        elif isinstance(segment, PackedSegment):
            segment.let_ring_go()

    def _forget_left_alone(self, there: Collection[str]) -> None:
        """Forgets files that were left alone and are gone.

        Args:
            there: The segments that are there.
        """
        for path in [path for path in self._left_alone if path not in there]:
            segment = self._resting.pop(path, None)
            if isinstance(segment, PackedSegment):
                segment.let_ring_go()
            if segment is not None or not os.path.lexists(path):
                self._is_readable(path)

    # ---- reading ----

    def read(self, *, with_segments: bool = True) -> int:
        """Hands new records to the assembler.

        Args:
            with_segments: Read segments, too, as memory allows.

        Returns:
            The number of records.
        """
        count = 0
        for ring in self.rings.values():
            entries = ring.read()
            self._assembler.add(entries)
            count += len(entries)
            self.flush_wanted |= ring.flush_wanted
        if with_segments:
            read, all_of_them = self._read_segments()
            count += read
            if all_of_them:
                self._all_is_read()
        return count

    def _all_is_read(self) -> None:
        """Takes note of what the last scan found, when all of that has been read."""
        look = self._look
        if look is None or self._failed_once:
            return
        if all(
            path not in self.rings or self.rings[path].reader.cursor >= head
            for path, head in look.heads.items()
        ):
            self._some_have_ended |= self._living is None or not self._living <= look.living
            self._look, self.read_up_to, self._living = None, look.began, look.living

    def _read_segments(self) -> tuple[int, bool]:
        """Reads segments as memory allows; the number of records, and whether that was all of them."""
        count, all_of_them = 0, True
        for path, segment in list(self.segments.items()):
            if segment.loaded:
                continue
            if self._assembler.memory_bytes >= MEMORY_BYTES:
                return count, False
            try:
                entries = segment.read()
            except (OSError, MemoryError) as error:
                del self.segments[path]
                self._rest(path, segment, error)
                continue
            self._is_readable(path)
            self._assembler.add(entries)
            count += len(entries)
            all_of_them &= segment.is_read
        return count, all_of_them

    # ---- settling ----

    def settle(self) -> None:
        """Tells programs how far everything is delivered, and removes segments that are."""
        for ring in self.rings.values():
            ring.settle()
        for path, segment in list(self.segments.items()):
            segment.settle()
            if segment.loaded and segment.left == 0:
                del self.segments[path]
        undelivered = {*self.segments, *self._resting}
        for ring in self.rings.values():
            ring.settle_earlier(undelivered)

    def flush_is_done(self) -> None:
        """Everything that was read before has been delivered or tried."""
        for ring in self.rings.values():
            ring.flush_is_done()
        self.flush_wanted = any(ring.flush_wanted for ring in self.rings.values())

    def sweep(self) -> bool:
        """Removes rings whose programs are gone and that are empty; whether there were any."""
        before = len(self.rings)
        for path, ring in list(self.rings.items()):
            if ring.finished() and not any(
                isinstance(segment, SpillSegment) and segment.ring is ring
                for segment in self.segments.values()
            ):
                for segment in self._resting.values():
                    if isinstance(segment, SpillSegment) and segment.ring is ring:
                        segment.ring = None  # the program has ended it
                ring.remove()
                del self.rings[path]
        swept = len(self.rings) < before
        if swept:
            self._free_spares()
        self._some_have_ended |= swept
        return swept

    def report_server_state(self, state: ServerState) -> None:
        """Writes the state of the server into all rings, also into those that come later."""
        self._reported = state
        for ring in self.rings.values():
            ring.reader.set_server_state(state)

    # ---- what is known of the sources ----

    def is_abandoned(self, trace: TraceBuffer) -> bool:
        """Whether the trace's program is gone, and all is read that it has recorded: nothing of the trace will
        come any more."""
        return self.is_all_read(trace) and self.has_ended(trace.destination.get("pid"))

    def has_ended(self, pid: int | None) -> bool:
        """Whether a program that was known at the last moment of which all is read was gone by then, and has no ring
        now."""
        return self._living is not None and pid not in self._living and self.is_gone(pid)

    def is_all_read(self, trace: TraceBuffer) -> bool:
        """Whether all is read, as far as it can be, that was recorded before the last trace record came here. That one
        may be read from a ring before spans that lie in segments."""
        return self.read_up_to > trace.info_since and not self._assembler.has_deferred()

    def is_whole(self, trace: TraceBuffer) -> bool:
        """Whether no span of a trace that has ended can lie unread."""
        return trace.all_spans_were_seen() or self.is_all_read(trace)

    def expect_ended(self) -> None:
        """Has ``programs_have_ended`` be true at the next moment of which all is read."""
        self._living = None

    def programs_have_ended(self) -> bool:
        """Whether there are programs that are gone, and all of which is read, since the last call."""
        ended, self._some_have_ended = self._some_have_ended, False
        return ended

    def is_gone(self, pid: int | None) -> bool:
        """Whether no program of this process id has a ring here."""
        return not any(
            ring.reader.pid == pid and ring.reader.alive() for ring in self.rings.values()
        )

    def living(self) -> frozenset[int]:
        """The process ids of the programs that have a ring here and live."""
        return frozenset(ring.reader.pid for ring in self.rings.values() if ring.reader.alive())

    def has_live_program(self) -> bool:
        return any(ring.reader.alive() for ring in self.rings.values())

    def is_empty(self) -> bool:
        """Whether there is no ring and no segment."""
        return not self.rings and not self.segments

    def has_unread_files(self) -> bool:
        """Whether files were left alone since they could not be read."""
        return bool(self._left_alone)
