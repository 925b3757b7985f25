"""Records of open traces on disk.

A trace that is delivered as far as it is goes on. Its program does not write again where the trace
goes: that must outlive this sender, too, and the number of traces that it remembers. Where the program
ends and the trace does not, the record is all that the trace's info is made of.
"""

from __future__ import annotations

from collections.abc import Callable

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.sender.assemble import (
    OPEN_AFTER_SECONDS,
    Assembler,
    TraceBuffer,
)
from mlflow_fasttrace._internal.sender.sources import Entry
from mlflow_fasttrace._internal.sender.spool_writer import SpoolWriter
from mlflow_fasttrace._internal.spool.files import (
    open_trace_path,
    open_trace_paths,
    remove,
)
from mlflow_fasttrace._internal.spool.reading import READ_BYTES
from mlflow_fasttrace._internal.spool.records import TRACE, TraceInfoRecord


class OpenTraces:
    """Stores and recalls the records of open traces.

    Args:
        writer: Of the spool's folder; None: nothing is stored, since there is no folder, or since
            spans are of use without the record of their trace.
    """

    def __init__(self, writer: SpoolWriter | None):
        self._writer = writer

    def store(self, trace: TraceBuffer) -> None:
        """Stores the last record of a trace that is not complete; removes that of one that is."""
        if self._writer is None:
            return
        path = open_trace_path(self._writer.folder, trace.trace_id)
        if trace.complete():
            if trace.on_disk.record is not None:
                trace.on_disk.record = None
                remove(path)
            return
        record = trace.last_record()
        if record is None or record == trace.on_disk.record:
            return
        if self._writer.write(path, [record]):
            trace.on_disk.record = record

    def recall(self, traces: list[TraceBuffer], assembler: Assembler) -> None:
        """Adds what is stored of traces that this sender, or an earlier one, has delivered in part:
        spans may come without their record then, or with an older one, which must not be sent after
        the last."""
        if self._writer is None:
            return
        for trace in traces:
            if trace.on_disk.asked:
                continue
            try:
                entry = _stored_record(self._writer.folder, trace.trace_id)
            except (OSError, MemoryError):
                continue  # for now: the next look may find it
            trace.on_disk.asked = True
            if entry is not None:
                trace.on_disk.record = entry.record
                since = trace.info_since  # the record is older than what has come since
                assembler.add([entry])
                trace.info_since = since

    def recall_abandoned(
        self, assembler: Assembler, has_ended: Callable[[int | None], bool]
    ) -> None:
        """Adds what is stored of traces that will not go on, and whose infos nobody has sent: those are due.

        Args:
            assembler: Gets the records.
            has_ended: Whether the program of a process id is gone, and all is read that it recorded.
        """
        if self._writer is None:
            return
        for path in open_trace_paths(self._writer.folder):
            try:
                entry = _record_in(path)
                if entry is None or entry.info_sent:
                    continue
                if not has_ended(TraceInfoRecord(entry.record).destination.get("pid")):
                    continue
            except (OSError, MemoryError, ValueError, TypeError, OverflowError):
                continue  # a record that cannot be used comes to light with the trace's next span
            known = assembler.open.get(entry.trace_id)
            if known is not None and not known.info_was_sent():
                continue  # it is among what is to be sent
            assembler.add([entry])
            trace = assembler.open[entry.trace_id]
            trace.on_disk.asked, trace.on_disk.record = True, entry.record
            trace.since -= OPEN_AFTER_SECONDS
            trace.info_since = float("-inf")  # nothing lies unread that was recorded before

    def forget(self) -> None:
        """Removes the records that no span will need any more; for when there are no programs. Those that are still to
        be sent stay."""
        if self._writer is None:
            return
        for path in open_trace_paths(self._writer.folder):
            if not _is_to_be_sent(path):
                remove(path)


def _is_to_be_sent(path: str) -> bool:
    """Whether the record in a file is what a trace's info has to be made of."""
    try:
        entry = _record_in(path)
        if entry is None or entry.info_sent:
            return False
        return not TraceInfoRecord(entry.record).remote
    except (OSError, MemoryError):
        return True  # as far as anybody can say now
    except (ValueError, TypeError, OverflowError):
        return False


class _StoredRecord:
    """The source of a record that is known already: nothing waits for its delivery."""

    def delivered_one(self) -> None:
        pass

    def was_tried(self, position: int) -> bool:
        return True


def _stored_record(folder: str, trace_id: bytes) -> Entry | None:
    """The record of a trace; None where none is stored.

    Raises:
        OSError, MemoryError: nobody can say.
    """
    entry = _record_in(open_trace_path(folder, trace_id))
    return entry if entry is not None and entry.trace_id == trace_id else None


def _record_in(path: str) -> Entry | None:
    """The trace record of a file; None where there is none.

    Raises:
        OSError, MemoryError: the file cannot be read.
    """
    try:
        items = _core.SegmentReader(path).read(READ_BYTES)
    except FileNotFoundError:
        return None
    for position, kind, trace_id, record in items:
        if kind == TRACE:
            return Entry(_StoredRecord(), position, kind, trace_id, record)
    return None
