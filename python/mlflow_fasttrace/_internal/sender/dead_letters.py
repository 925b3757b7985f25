"""Dead letters: what nothing takes stays on disk, with the reason beside it, and the rest goes on."""

from __future__ import annotations

import logging
import time

from mlflow_fasttrace._internal.sender.acknowledge import Acknowledgements
from mlflow_fasttrace._internal.sender.assemble import Disposition, TraceBuffer
from mlflow_fasttrace._internal.sender.sources import Entry
from mlflow_fasttrace._internal.sender.spool_writer import SpoolWriter
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.spool.files import new_dead_letter_path, note_of
from mlflow_fasttrace._internal.spool.private_files import open_private
from mlflow_fasttrace._internal.spool.records import span_id_of

logger = logging.getLogger("mlflow_fasttrace.sender")

RETRY_SECONDS = 60.0  # after which a dead letter that could not be written is tried again


class DeadLetters:
    """Sets aside what nothing takes.

    Args:
        writer: Of the spool's folder; None: there is none, and what nothing takes is lost.
        acknowledgements: Hears of the traces that are set aside.
        status: Counts records that cannot be used.
    """

    def __init__(
        self, writer: SpoolWriter | None, acknowledgements: Acknowledgements, status: Status
    ):
        self._writer = writer
        self._acknowledgements = acknowledgements
        self._status = status
        self._unusable_not_before = 0.0

    def set_aside(self, trace: TraceBuffer, reason: Exception) -> None:
        """Makes a dead letter of what is undelivered of a trace; where that cannot be written the
        trace waits."""
        if self._writer is None:
            logger.error("trace %s is refused and lost: %s", trace.mlflow_id, reason)
            self._acknowledgements.done(trace, Disposition.SET_ASIDE)
            return
        records = [entry.record_for_disk() for entry in trace.entries()]
        if not trace.infos and (record := trace.last_record()) is not None:
            records.append(record)
        if not self._write(self._writer, trace.trace_id.hex(), records, reason):
            _postpone(trace)
            return
        logger.error("trace %s is refused and set aside: %s", trace.mlflow_id, reason)
        self._acknowledgements.done(trace, Disposition.SET_ASIDE)

    def set_span_aside(self, trace: TraceBuffer, entry: Entry, reason: Exception) -> bool:
        """Makes a dead letter of one span, with the record that says where it was to go; where that
        cannot be written its trace waits.

        Returns:
            Whether nothing is left to do for the span.
        """
        if self._writer is None:
            logger.error("a span of %s is refused and lost: %s", trace.mlflow_id, reason)
            return True
        record = trace.last_record()
        records = [entry.record] if record is None else [record, entry.record]
        ids = f"{trace.trace_id.hex()}-{span_id_of(entry.record).hex()}"
        if not self._write(self._writer, ids, records, reason):
            _postpone(trace)
            return False
        logger.error("a span of %s is refused and set aside: %s", trace.mlflow_id, reason)
        return True

    def set_unusable_aside(self, unusable: list[tuple[Entry, str]]) -> bool:
        """Makes dead letters of records that are whole and that no program of this release writes.

        Args:
            unusable: The records, and why they cannot be used. What remains in the list could not
                be written.

        Returns:
            Whether any were tried.
        """
        now = time.monotonic()
        if not unusable or now < self._unusable_not_before:
            return False
        by_trace: dict[bytes, list[tuple[Entry, str]]] = {}
        for entry, reason in unusable:
            by_trace.setdefault(entry.trace_id, []).append((entry, reason))
        unusable.clear()
        for trace_id, found in by_trace.items():
            records = [entry.record for entry, _reason in found]
            reason = f"a record cannot be used: {found[0][1]}"
            if self._writer is not None:
                if not self._write(self._writer, trace_id.hex(), records, reason):
                    unusable += found
                    self._unusable_not_before = now + RETRY_SECONDS
                    continue
            fate = "set aside" if self._writer is not None else "lost"
            logger.error("tr-%s: %s; it is %s", trace_id.hex(), reason, fate)
            self._status.refused_records(reason)
            for entry, _reason in found:
                entry.acknowledge()
        return True

    def _write(self, writer: SpoolWriter, ids: str, records: list[bytes], reason: object) -> bool:
        """Writes a dead letter and its note beside earlier ones of those ids.

        Returns:
            Whether the records are on disk.
        """
        path = new_dead_letter_path(writer.folder, ids)
        if not writer.write(path, records):
            return False
        note = note_of(path)
        try:
            with open(note, "w", encoding="utf-8", errors="replace", opener=open_private) as file:
                file.write(f"{reason}\n")
        except (OSError, MemoryError) as error:
            logger.error("%s cannot be written: %s", note, error or "no memory")
        return True


def _postpone(trace: TraceBuffer) -> None:
    """Leaves a trace that could not be set aside where it is, for another try."""
    trace.schedule.suspect = True
    trace.schedule.failures += 1
    trace.schedule.not_before = time.monotonic() + RETRY_SECONDS
    trace.postpone()
