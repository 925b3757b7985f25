"""What a destination is, and the ways in which it can say no."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from mlflow_fasttrace.sender.finish import InfoDict


class Away(Exception):
    """The destination cannot take anything now: keep all, try later.

    Args:
        reason: What is wrong.
        seconds: When the destination wants to be asked again, where it said so.
    """

    def __init__(self, reason: str, seconds: float | None = None):
        super().__init__(reason)
        self.seconds = seconds


class Refused(Exception):
    """The destination will never take this: set it aside, go on with the rest."""


class Failed(Exception):
    """The destination is there and could not do this: perhaps because of what was sent."""


class TooLarge(Exception):
    """The destination takes less at a time."""


class Unsupported(Exception):
    """The destination takes no spans by OTLP: they go to it as files."""


class Inexact(Exception):
    """OTLP would turn values of these records (by index) into texts; JSON would not."""

    def __init__(self, indexes: list[int]):
        super().__init__(indexes)
        self.indexes = indexes


SIGN_IN_HINT = (
    "(set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; nothing "
    "is lost meanwhile)"
)
_EXPERIMENT_TIMEOUT_SECONDS = 30.0
RETRY_AFTER_MAX_SECONDS = 300.0

#: MLflow's error codes that another try may not see.
TRANSIENT_CODES = frozenset({"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR"})


class Destination(Protocol):
    """Every call may raise `Away`, `Refused`, `Failed` and `TooLarge`."""

    #: False where spans go as files.
    takes_spans: bool

    def send_info(self, info: InfoDict) -> None: ...

    def send_spans(self, experiment_id: str, records: list[bytes], *, exact: bool) -> None:
        """``exact``: raise `Inexact` rather than degrade a value. May raise `Unsupported`."""

    def upload(self, trace_id: str, artifacts: Artifacts) -> None: ...


class Artifacts(NamedTuple):
    """What of a trace is kept as files, wherever its server keeps artifacts."""

    attachments: dict[str, bytes] = {}
    spans: str | None = None  # the JSON of TraceData.to_dict()


def upload_artifacts(uri: str, trace_id: str, artifacts: Artifacts) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.tracing.client import TracingClient
    from mlflow.tracing.utils.artifact_utils import get_artifact_uri_for_trace

    try:
        info = TracingClient(uri).get_trace_info(trace_id)
        repository = get_artifact_repository(get_artifact_uri_for_trace(info))
        for attachment_id, content in artifacts.attachments.items():
            repository.upload_attachment(attachment_id, content)
        if artifacts.spans is not None:
            repository.upload_trace_data(artifacts.spans)
    except MlflowException as error:
        if error.error_code == "TEMPORARILY_UNAVAILABLE":
            raise Away(f"artifacts cannot be uploaded: {error}") from error
        raise (Failed if error.error_code in TRANSIENT_CODES else Refused)(str(error)) from error
    except OSError as error:  # requests' exceptions are OSErrors too
        raise Away(f"artifacts cannot be uploaded: {error}") from error


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
        try:
            if self._uri.startswith(("http://", "https://")):
                return _experiment_of_server(self._uri, name)
            return _experiment_of_store(self._uri, name)
        except Exception as error:
            raise Away(f"experiment {name!r} could not be resolved: {error}") from error


def _experiment_of_store(uri: str, name: str) -> str:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


def _experiment_of_server(uri: str, name: str) -> str:
    """MLflow's client would try again for minutes, while nothing else is delivered."""
    from mlflow.tracking._tracking_service.utils import _get_store
    from mlflow.utils.rest_utils import http_request

    def call(endpoint: str, method: str, **what: Any) -> Any:
        return http_request(
            _get_store(uri).get_host_creds(),
            f"/api/2.0/mlflow/experiments/{endpoint}",
            method,
            max_retries=0,
            timeout=_EXPERIMENT_TIMEOUT_SECONDS,
            raise_on_status=False,
            **what,
        )

    answer = call("get-by-name", "GET", params={"experiment_name": name})
    if answer.status_code == 200:
        return answer.json()["experiment"]["experiment_id"]
    if answer.status_code in (401, 403):
        raise OSError(f"the server answered {answer.status_code} {SIGN_IN_HINT}")
    if answer.status_code != 404:
        raise OSError(f"the server answered {answer.status_code}: {answer.text[:300]}")
    answer = call("create", "POST", json={"name": name})
    if answer.status_code != 200:  # somebody else may have been faster: the next try finds it
        raise OSError(f"the server answered {answer.status_code}: {answer.text[:300]}")
    return answer.json()["experiment_id"]


class Backoff:
    """When to try again: after 0.25 s, doubling up to 15 s, give or take a quarter; or when the
    destination says."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._until = 0.0

    def failed(self, seconds: float | None = None) -> None:
        self._delay = min(self._delay * 2 or 0.25, 15.0)
        wait = self._delay * random.uniform(0.75, 1.25)
        self._until = time.monotonic() + max(wait, min(seconds or 0.0, RETRY_AFTER_MAX_SECONDS))

    def succeeded(self) -> None:
        self._delay = 0.0
        self._until = 0.0

    def waiting(self) -> bool:
        return time.monotonic() < self._until
