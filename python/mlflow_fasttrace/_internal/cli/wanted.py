"""Whether a trace is wanted, where its records lie here and where it has been delivered."""

from __future__ import annotations

import dataclasses
from typing import Any

from mlflow_fasttrace._internal.cli.filters import Facts, Filter
from mlflow_fasttrace._internal.cli.servers import Servers, Unanswered
from mlflow_fasttrace._internal.spool.traces import TraceView


class Wanted:
    """A filter, with servers that say what is not known here.

    Args:
        wanted: The filter.
    """

    def __init__(self, wanted: Filter):
        self._filter = wanted
        self._servers = Servers()
        self.notes: list[str] = []  # why traces are left out that may be wanted

    def __bool__(self) -> bool:
        """Whether anything is asked of traces."""
        return self._filter != Filter()

    @property
    def since(self) -> float | None:
        """When wanted traces did something at the earliest, in seconds since the epoch."""
        return self._filter.since

    def takes(self, trace: TraceView, now_ns: int) -> bool:
        """Whether a trace is wanted whose records lie here, or that a server has."""
        begun = trace.begun_ns()
        took = trace.duration_ns
        facts = Facts(
            name=trace.name,
            state=trace.state,
            begun_ns=begun,
            duration_ns=max(0, now_ns - begun) if took is None and begun else took,
            last_ns=trace.last_ns,
            tags=trace.tags(),
            experiment=trace.experiment,
        )
        if self._filter.takes(facts):
            return True
        # A trace that names its experiment by id may be asked for by name, which the server knows.
        experiment_id = trace.experiment.get("id")
        if experiment_id is None or trace.destination is None or self._filter.experiment is None:
            return False
        if not self._filter.takes(facts._replace(experiment=None)):
            return False
        name = self._servers.experiment_name(trace.destination, experiment_id)
        return name == self._filter.experiment

    def takes_delivered(self, trace: dict[str, Any]) -> bool:
        """Whether a trace of ``delivered_traces()`` is wanted. Its server is asked where that depends on more
        than is known here."""
        took = trace["duration_ns"]
        facts = Facts(
            name=trace["name"],
            state=trace["state"],
            begun_ns=trace["start_ns"],
            duration_ns=took,
            last_ns=trace["start_ns"] + (took or 0),
            tags=None,
            experiment=None,
        )
        if not self._filter.takes(facts) or not self._filter.asks_the_server:
            return self._filter.takes(facts)
        try:
            found = self._servers.trace(trace["destination"], trace["trace_id"])
        except Unanswered as reason:
            note = f"traces that were delivered are left out: {reason}"
            if note not in self.notes:
                self.notes.append(note)
            return False
        # What the server says of times is rounded, and they are right already.
        loose = dataclasses.replace(self._filter, slower_than=None, since=None)
        return found is not None and Wanted(loose).takes(found, found.last_ns)
