"""What a sender delivers to: a tracking server (http.py) or a store that it opens itself (store.py).

Collectors are no destinations in this sense, since they know spans only: see collectors.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mlflow_fasttrace._internal.config.experiments import why_impossible
from mlflow_fasttrace._internal.sender.exceptions import (
    Forbidden,
    Rejected,
    TransientError,
    Unavailable,
)

if TYPE_CHECKING:
    from mlflow_fasttrace._internal.sender.artifacts import Artifacts
    from mlflow_fasttrace._internal.sender.assemble import TraceBuffer
    from mlflow_fasttrace._internal.sender.trace_infos import InfoDict
    from mlflow_fasttrace._internal.spool.changes import Change

logger = logging.getLogger("mlflow_fasttrace.sender")

#: How many infos a tracking server is sent at once, at most. MLflow's client sends 10, from every
#: process.
INFOS_AT_ONCE = 4


class Destination(Protocol):
    """Every call may raise `Unavailable`, `Forbidden`, `Rejected`, `TransientError` and `TooLarge`; those that send
    a trace, `InAnotherExperiment`."""

    @property
    def takes_spans(self) -> bool:
        """False where spans go as files."""

    def adds_up_usage(self) -> bool:
        """Whether it adds the tokens of spans that come behind their trace's info to those that the info says, as servers
        of MLflow before 3.12 do."""

    @property
    def infos_at_once(self) -> int:
        """How many infos that were sent may be without an answer."""

    def experiment_id(self, name: str) -> str:
        """The id of the experiment of that name, which is made where it is missing."""

    def send_info(self, info: InfoDict) -> Callable[[], None]:
        """Makes the trace of this info known. What is returned waits until it is: it is called once, and may raise
        what every call may."""

    @property
    def new_infos_at_once(self) -> int:
        """How many infos `send_new_infos` takes; 0 where there is no such way."""

    def send_new_infos(self, infos: list[InfoDict]) -> bool:
        """Makes many traces known at once, of which none is there: all of them, or none.

        Returns:
            False where that cannot be, as they are or here: each of them is to be sent by itself.
        """

    def send_spans(self, experiment_id: str, records: list[bytes], *, exact: bool) -> None:
        """Sends spans of traces whose infos are known.

        Args:
            experiment_id: The experiment of all their traces.
            records: The spans' records.
            exact: Raise `Inexact` rather than degrade a value.

        Raises:
            Inexact: a value would be degraded; nothing has been sent.
            Unsupported: spans go as files.
        """

    def upload(self, trace_id: str, artifacts: Artifacts) -> None:
        """Puts files of a trace where its server keeps artifacts."""

    def make_change(self, change: Change) -> None:
        """Makes a change to a trace. That the trace is not there may be an error of any kind."""

    def experiment_of(self, trace_id: str) -> str | None:
        """The id of the experiment of a trace; None where there is no trace of that id."""

    def has_trace(self, trace_id: str) -> bool:
        """Whether there is a trace of that id."""

    def has_assessment(self, trace_id: str, assessment_id: str) -> bool:
        """Whether a trace that is there has an assessment of that id."""


class Target(NamedTuple):
    """Where a group of traces goes."""

    destination: Destination
    experiment_id: str

    def that_has(self, trace: TraceBuffer) -> Target:
        """Where a trace is that may be in another experiment, which is remembered; this one where it is nowhere yet.

        Raises:
            Unavailable, Forbidden, Rejected, TransientError: the destination does not say.
        """
        if trace.kept_in is None:
            trace.kept_in = self.destination.experiment_of(trace.mlflow_id)
            if trace.kept_in is None:
                return self
            logger.info(
                "trace %s goes to experiment %s, where it is", trace.mlflow_id, trace.kept_in
            )
        return self._replace(experiment_id=trace.kept_in)


class Experiments:
    """The ids of the experiments that traces name."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def id_of(self, experiment: dict[str, str], destination: Destination) -> str:
        """The id of an experiment.

        Args:
            experiment: ``{"id": ...}`` or ``{"name": ...}``, as trace records have it.
            destination: Whose experiment it is.

        Raises:
            Rejected: there can be no such experiment anywhere.
            Forbidden: the destination does not say, for this experiment.
            Unavailable: the destination does not say, for any.
        """
        if (reason := why_impossible(experiment)) is not None:
            raise Rejected(reason)
        if "id" in experiment:
            return experiment["id"].strip()
        name = experiment["name"]
        if name not in self._ids:
            try:
                self._ids[name] = destination.experiment_id(name)
            except (Rejected, TransientError, Forbidden) as error:
                reason = f"experiment {name!r} could not be resolved: {error}"
                unknown = isinstance(error, Forbidden) and error.unauthenticated
                raise Forbidden(
                    reason, kind=("experiment", name), unauthenticated=unknown
                ) from error
            except Unavailable as error:
                error.args = (f"experiment {name!r} could not be resolved: {error}",)
                raise
        return self._ids[name]

    def forget(self, experiment: dict[str, str]) -> None:
        """Asks for an experiment's id again: a server that was set up anew has another one."""
        self._ids.pop(experiment.get("name", ""), None)
