"""Files: attachments, and the spans of traces that a server does not take as spans."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mlflow_fasttrace._internal.sender.acknowledge import Acknowledgements
from mlflow_fasttrace._internal.sender.artifacts import Artifacts
from mlflow_fasttrace._internal.sender.assemble import Disposition, TraceBuffer
from mlflow_fasttrace._internal.sender.availability import Availability
from mlflow_fasttrace._internal.sender.dead_letters import DeadLetters
from mlflow_fasttrace._internal.sender.destinations import Destination
from mlflow_fasttrace._internal.sender.exceptions import Forbidden, Rejected, TransientError
from mlflow_fasttrace._internal.sender.verdicts import (
    Verdicts,
    wait_for_memory,
    wait_for_permission,
)
from mlflow_fasttrace._internal.spool.records import AttachmentRecord, start_of_span

logger = logging.getLogger("mlflow_fasttrace.sender")

_ATTEMPTS_OF_AN_ATTACHMENT = 3


class TraceFiles:
    """Uploads files of traces.

    Args:
        verdicts: On what the server answers.
        dead_letters: Take what goes in no way.
        acknowledgements: Hear of the traces that arrived as files.
        availability: Logs why a trace waits.
        is_abandoned: Whether nothing of a trace will come any more.
        between_requests: Is called before each.
    """

    def __init__(
        self,
        verdicts: Verdicts,
        dead_letters: DeadLetters,
        acknowledgements: Acknowledgements,
        availability: Availability,
        is_abandoned: Callable[[TraceBuffer], bool],
        between_requests: Callable[[], None],
    ):
        self._verdicts = verdicts
        self._dead_letters = dead_letters
        self._acknowledgements = acknowledgements
        self._availability = availability
        self._is_abandoned = is_abandoned
        self._between_requests = between_requests

    def upload_attachments(self, destination: Destination, trace: TraceBuffer) -> bool:
        """Uploads the attachments of a trace whose info the server has, which says where they go. One
        that cannot be uploaded is left out, as in MLflow; the trace is worth more.

        Returns:
            Whether the spans come next; False: the trace is tried again.
        """
        waiting = trace.attachments[trace.uploaded :]
        if not waiting:
            return True
        self._between_requests()
        try:
            records = [AttachmentRecord.of(entry.record) for entry in waiting]
            attachments = {record.attachment_id: record.content for record in records}
            destination.upload(trace.mlflow_id, Artifacts(attachments=attachments))
        except (Rejected, TransientError, Forbidden) as reason:
            final = isinstance(reason, Rejected)
            if not final and trace.schedule.denials < _ATTEMPTS_OF_AN_ATTACHMENT:
                wait_for_permission(trace)
                return False
            logger.error("attachments of %s are left out: %s", trace.mlflow_id, reason)
        except MemoryError:
            wait_for_memory(trace)
            return False
        trace.uploaded = len(trace.attachments)
        return True

    def send(self, destination: Destination, trace: TraceBuffer) -> None:
        """Sends a trace to a server that takes no spans. A file is written whole: it waits for the
        trace. What comes later still (of a forked child, say) is added.

        Raises:
            Unavailable: the server is not there.
        """
        if not trace.complete() and not self._is_abandoned(trace):
            trace.postpone()
            return
        try:
            if trace.spans and trace.remote:
                raise Rejected(
                    "the server takes no spans by OTLP, and the trace is another process's"
                )
            if trace.spans:
                self._between_requests()
                _upload_spans(destination, trace, added=True)
        except TransientError as reason:
            self._verdicts.failed(trace, reason)
        except Forbidden as reason:
            self._availability.log(reason)
            wait_for_permission(trace)
        except Rejected as reason:
            self._dead_letters.set_aside(trace, reason)
        except MemoryError:
            wait_for_memory(trace)
        else:
            self._verdicts.took()
            self._acknowledgements.done(trace, Disposition.DELIVERED)

    def send_or_set_aside(
        self, destination: Destination, trace: TraceBuffer, reason: Exception
    ) -> None:
        """What the server does not take as spans goes as a file, or becomes a dead letter.

        Args:
            reason: Why the server does not take the spans.
        """
        try:
            if not self.send_in_place_of_spans(destination, trace):
                self._dead_letters.set_aside(trace, reason)
        except MemoryError:
            wait_for_memory(trace)

    def send_in_place_of_spans(self, destination: Destination, trace: TraceBuffer) -> bool:
        """Sends a trace as a file that the server takes in no other way. The file is read as long as
        no span of the trace is in the server's database.

        Returns:
            Whether it arrived.

        Raises:
            Unavailable: the server is not there.
            MemoryError: the file cannot be made now.
        """
        if not trace.nothing_is_delivered() or not trace.info_was_sent() or trace.remote:
            return False
        self._between_requests()
        try:
            _upload_spans(destination, trace)
        except (Rejected, TransientError, Forbidden) as reason:
            logger.error(
                "spans of %s could not be uploaded as a file either: %s", trace.mlflow_id, reason
            )
            return False
        self._acknowledgements.done(trace, Disposition.DELIVERED)
        return True


def _upload_spans(destination: Destination, trace: TraceBuffer, *, added: bool = False) -> None:
    records = sorted((entry.record for entry in trace.spans), key=start_of_span)
    destination.upload(trace.mlflow_id, Artifacts(spans=records, added=added))
