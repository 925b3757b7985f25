"""Packing: what cannot be delivered moves from rings, and from memory, to disk, within a bound."""

from __future__ import annotations

import logging
import time

from mlflow_fasttrace._internal.sender.intake import Intake
from mlflow_fasttrace._internal.sender.sources import RingSource, SpillSegment
from mlflow_fasttrace._internal.spool.files import folder_bytes, new_segment_path
from mlflow_fasttrace._internal.spool.folder import spool_max_bytes

logger = logging.getLogger("mlflow_fasttrace.sender")

_MEASURE_SECONDS = 1.0


class SpoolBound:
    """What a spool's folder holds and may hold (``MLFLOW_FASTTRACE_SPOOL_MAX_BYTES``). An eighth of
    the bound is for the traces that have begun; when only that is left, programs begin no new ones."""

    def __init__(self, folder: str):
        self.is_full = False  # for new traces
        self._folder = folder
        self._has_room = True
        self._measured_at = float("-inf")

    def has_room(self) -> bool:
        """Whether more may be written. Measures once a second."""
        now = time.monotonic()
        if now - self._measured_at >= _MEASURE_SECONDS:
            self._measured_at = now
            self._measure()
        return self._has_room

    def _measure(self) -> None:
        held, bound = folder_bytes(self._folder), spool_max_bytes(self._folder)
        self._has_room = held < bound
        full = held >= bound - bound // 8
        if full and not self.is_full:
            logger.error(
                "what waits for delivery takes %d bytes: new traces are refused until it is "
                "less (MLFLOW_FASTTRACE_SPOOL_MAX_BYTES is %d)",
                held,
                bound,
            )
        # A full spool stays full down to three quarters of the bound, lest programs stop and go
        # with every segment that is delivered.
        self.is_full = full or (self.is_full and held >= bound // 4 * 3)


class Packing:
    """Moves records to disk.

    Args:
        folder: The spool's folder, where segments go.
        rings_folder: The folder of the rings, beside which programs spill to memory.
        intake: The rings and the segments.
    """

    def __init__(self, folder: str, rings_folder: str | None, intake: Intake):
        self.bound = SpoolBound(folder)
        self._folder = folder
        self._rings_folder = rings_folder
        self._intake = intake
        self._fails = False  # and the log says so

    def pack(self, *, unavailable: bool) -> bool:
        """Moves what a ring holds undelivered to disk when the ring is filling up, and everything
        when the server is unavailable.

        Returns:
            Whether entries of rings have moved: the assembler still has them.
        """
        if not self.bound.has_room():
            return False
        packed = False
        for ring in self._intake.rings.values():
            if ring.pending and (ring.filling() or (unavailable and ring.pack_is_due())):
                packed |= self._pack_ring(ring)
        if unavailable:
            self._move_to_disk()
        return packed

    def _pack_ring(self, ring: RingSource) -> bool:
        path = new_segment_path(self._folder)
        try:
            segment = ring.pack(path)
        except (OSError, MemoryError) as error:
            self._cannot_write(path, error)
            return False
        self._fails = False
        if segment is None:
            return False
        self._intake.segments[path] = segment
        return True

    def _move_to_disk(self) -> None:
        """Moves the segments that programs spilled to memory and are done with."""
        if self._rings_folder in (None, self._folder):
            return
        segments = self._intake.segments
        for path, segment in segments.items():
            if not isinstance(segment, SpillSegment) or not segment.in_memory:
                continue
            if not segment.ended():
                continue
            try:
                segment.move(self._folder)
            except (OSError, MemoryError) as error:
                self._cannot_write(path, error)
                break
            self._fails = False
        self._intake.segments = {segment.path: segment for segment in segments.values()}

    def _cannot_write(self, path: str, error: OSError | MemoryError) -> None:
        if not self._fails:
            logger.error("%s cannot be written: %s", path, error or "no memory")
        self._fails = True
