"""Being done with a trace: every source and every count hears of it."""

from __future__ import annotations

from mlflow_fasttrace._internal.sender.assemble import Assembler, Disposition, TraceBuffer
from mlflow_fasttrace._internal.sender.open_traces import OpenTraces
from mlflow_fasttrace._internal.sender.status import Status


class Acknowledgements:
    """Passes on that nothing is left to do for a trace."""

    def __init__(self, assembler: Assembler, status: Status, open_traces: OpenTraces):
        self._assembler = assembler
        self._status = status
        self._open_traces = open_traces

    def done(self, trace: TraceBuffer, disposition: Disposition) -> None:
        """Acknowledges all that is known of a trace. Rings and segments give up what they can when
        the intake settles them next.

        Args:
            trace: One of the assembler's.
            disposition: What has become of it.
        """
        self._open_traces.store(trace)
        self._status.done(trace, disposition)
        for entry in trace.entries():
            entry.acknowledge()
        self._assembler.delivered(trace)

    def spans_done(self, trace: TraceBuffer) -> None:
        """Acknowledges the spans and attachments of a trace, whose info is not sent yet."""
        self._status.spans_done(trace)
        for entry in (*trace.attachments, *trace.spans):
            entry.acknowledge()
        self._assembler.spans_delivered(trace)
