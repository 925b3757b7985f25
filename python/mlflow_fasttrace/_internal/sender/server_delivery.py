"""Delivery to a tracking server or store: of each trace the info first, then its files and spans."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from mlflow_fasttrace._internal.sender.acknowledge import Acknowledgements
from mlflow_fasttrace._internal.sender.assemble import (
    Assembler,
    TraceBuffer,
    orphans,
    ready_traces,
)
from mlflow_fasttrace._internal.sender.availability import Availability
from mlflow_fasttrace._internal.sender.batches import BatchSize, by_experiment
from mlflow_fasttrace._internal.sender.dead_letters import DeadLetters
from mlflow_fasttrace._internal.sender.destinations import (
    Destination,
    Experiments,
    Target,
)
from mlflow_fasttrace._internal.sender.exceptions import Forbidden, TransientError, Unavailable
from mlflow_fasttrace._internal.sender.info_requests import InfoRequests
from mlflow_fasttrace._internal.sender.span_files import TraceFiles
from mlflow_fasttrace._internal.sender.span_requests import SpanRequests
from mlflow_fasttrace._internal.sender.verdicts import Canary, Verdicts


class ServerDelivery:
    """The strategy of a `Sender` for what MLflow calls a tracking URI.

    Args:
        uri: The tracking URI.
        acknowledgements, dead_letters, availability: The sender's own.
        let_burst_pass: Called before requests.
        is_abandoned: Whether nothing of a trace will come any more.
        executor: For several requests at once; None: one after another.
    """

    def __init__(
        self,
        uri: str,
        acknowledgements: Acknowledgements,
        dead_letters: DeadLetters,
        availability: Availability,
        let_burst_pass: Callable[[], None],
        is_abandoned: Callable[[TraceBuffer], bool],
        executor: Executor | None = None,
    ):
        self.destination: Destination | None = None
        self.size = BatchSize()
        canary = Canary()
        self.verdicts = Verdicts(canary.is_taken)
        self._uri = uri
        self._availability = availability
        self._experiments = Experiments()
        self._files = TraceFiles(
            self.verdicts, dead_letters, acknowledgements, availability, is_abandoned
        )
        self._infos = InfoRequests(
            self.verdicts, dead_letters, self._experiments, let_burst_pass, executor
        )
        self._spans = SpanRequests(
            self.verdicts, canary, self.size, self._files, dead_letters, acknowledgements
        )

    def ready(self, assembler: Assembler, *, everything: bool) -> list[TraceBuffer]:
        return ready_traces(assembler, everything=everything)

    def orphans(self, assembler: Assembler) -> list[TraceBuffer]:
        return orphans(assembler)

    def deliver(self, traces: list[TraceBuffer]) -> None:
        """Delivers a batch.

        Raises:
            Unavailable: the server takes nothing now. What was decided of traces before stands.
        """
        destination = self._open()
        verdicts = self.verdicts
        verdicts.begin_batch()
        for named, group in by_experiment(traces):
            verdicts.begin_experiment()
            try:
                target = Target(destination, self._experiments.id_of(named, destination))
                known = self._infos.send(target, group)
                uploaded = [
                    trace for trace in known if self._files.upload_attachments(destination, trace)
                ]
                self._spans.send(target, uploaded)
            except Forbidden as reason:
                verdicts.forbade_experiment(group, reason)
        verdicts.judge(self._give_up)
        if verdicts.forbidden is not None:
            if not verdicts.accepted:
                raise verdicts.forbidden
            self._availability.log(verdicts.forbidden)

    def interrupted(self) -> None:
        """The server took no more: the next requests are made one by one."""
        self._infos.slow_down()

    def _give_up(self, trace: TraceBuffer, reason: TransientError) -> None:
        self._files.send_or_set_aside(self._open(), trace, reason)

    def _open(self) -> Destination:
        if self.destination is None:
            try:
                self.destination = _open_destination(self._uri)
            except Exception as error:
                raise Unavailable(
                    f"the destination cannot be opened: {error}", kind=("open", type(error))
                ) from error
        return self.destination


def _open_destination(uri: str) -> Destination:
    """The destination of a tracking URI.

    Raises:
        Exception: whatever MLflow raises where the URI cannot be used.
    """
    if uri.startswith(("http://", "https://")):
        from mlflow_fasttrace._internal.sender.http import HttpDestination

        return HttpDestination(uri)
    from mlflow_fasttrace._internal.sender.store import StoreDestination

    return StoreDestination(uri)
