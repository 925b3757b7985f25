"""What a destination is, and the two ways in which it can say no."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mlflow_fasttrace.sender.finish import InfoDict


class Away(Exception):
    """The destination cannot take anything now: keep all, try later."""


class Refused(Exception):
    """The destination will never take this: set it aside, go on with the rest."""


class Destination(Protocol):
    def send_info(self, info: InfoDict) -> None: ...

    def send_spans(self, experiment_id: str, records: list[bytes]) -> None: ...


def open_destination(uri: str) -> Destination:
    if uri.startswith(("http://", "https://")):
        from mlflow_fasttrace.sender.http import HttpDestination

        return HttpDestination(uri)
    from mlflow_fasttrace.sender.store import StoreDestination

    return StoreDestination(uri)


class Experiments:
    """Ids of the experiments that traces name; made where they are missing."""

    def __init__(self, uri: str):
        self._uri = uri
        self._ids: dict[str, str] = {}

    def id_of(self, experiment: dict[str, str]) -> str:
        if "id" in experiment:
            return experiment["id"]
        name = experiment["name"]
        if name not in self._ids:
            self._ids[name] = self._resolve(name)
        return self._ids[name]

    def _resolve(self, name: str) -> str:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self._uri)
        try:
            found = client.get_experiment_by_name(name)
            return found.experiment_id if found else client.create_experiment(name)
        except Exception as error:
            raise Away(f"experiment {name!r} could not be resolved: {error}") from error


class Backoff:
    """When to try again: 0.25 s, doubling up to 15 s."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._until = 0.0

    def failed(self) -> None:
        self._delay = min(self._delay * 2 or 0.25, 15.0)
        self._until = time.monotonic() + self._delay

    def succeeded(self) -> None:
        self._delay = 0.0
        self._until = 0.0

    def waiting(self) -> bool:
        return time.monotonic() < self._until
