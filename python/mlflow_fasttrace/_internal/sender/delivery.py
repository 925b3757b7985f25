"""What a destination is, and the ways in which it can say no."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from mlflow_fasttrace._internal.sender.finish import InfoDict


class Away(Exception):
    """The destination cannot take anything now: keep all, try later.

    Args:
        reason: What is wrong.
        seconds: When the destination wants to be asked again, where it said so.
        kind: What is the same where only the words differ; whoever was told once is not told again.
        unanswered: It was asked and did not answer, perhaps because of the size of the question.
        unknown_to_it: It does not know who asks: other credentials may help.
    """

    def __init__(
        self,
        reason: str,
        seconds: float | None = None,
        *,
        kind: object = None,
        unanswered: bool = False,
        unknown_to_it: bool = False,
    ):
        super().__init__(reason)
        self.seconds = seconds
        self.kind = kind
        self.unanswered = unanswered
        self.unknown_to_it = unknown_to_it


class Denied(Away):
    """The destination cannot take this experiment now (or this trace in this way); others it may."""


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
INFOS_AT_ONCE = 4  # MLflow's client: 10 in every process
RETRY_AFTER_MAX_SECONDS = 300.0
LATELY_SECONDS = 60.0

_TRANSIENT_STATUS = frozenset({401, 403, 408, 425, 429})

#: MLflow's error codes that another try may not see.
TRANSIENT_CODES = frozenset({"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR"})


class Destination(Protocol):
    """Every call may raise `Away`, `Refused`, `Failed` and `TooLarge`."""

    #: False where spans go as files.
    takes_spans: bool

    #: How many calls of `send_info` may be under way, in threads.
    infos_at_once: int

    def experiment_id(self, name: str) -> str:
        """The experiment of that name; made where it is missing."""

    def send_info(self, info: InfoDict) -> None: ...

    def send_spans(self, experiment_id: str, records: list[bytes], *, exact: bool) -> None:
        """``exact``: raise `Inexact` rather than degrade a value. May raise `Unsupported`."""

    def upload(self, trace_id: str, artifacts: Artifacts) -> None: ...


class Artifacts(NamedTuple):
    """What of a trace is kept as files, wherever its server keeps artifacts."""

    attachments: dict[str, bytes] = {}
    spans: list[str] = []  # the JSON of each; all in one file
    added: bool = False  # to the spans that the file has


def upload_artifacts(uri: str, trace_id: str, artifacts: Artifacts) -> None:
    """Raises:
    Away, Denied, Failed, Refused: they are not there.
    """
    import requests
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.tracing.client import TracingClient
    from mlflow.tracing.constant import SpansLocation, TraceTagKey
    from mlflow.tracing.utils.artifact_utils import get_artifact_uri_for_trace

    try:
        info = TracingClient(uri).get_trace_info(trace_id)
    except MlflowException as error:
        status = error.get_http_status_code()
        known = 400 <= status < 500 and status not in _TRANSIENT_STATUS
        raise (Refused if known else Away)(f"{trace_id} cannot be read: {error}") from error
    try:
        repository = get_artifact_repository(get_artifact_uri_for_trace(info))
        for attachment_id, content in artifacts.attachments.items():
            repository.upload_attachment(attachment_id, content)
        if artifacts.spans:
            if info.tags.get(TraceTagKey.SPANS_LOCATION) == SpansLocation.TRACKING_STORE:
                raise Denied(
                    f"spans of {trace_id} are in the server's database, where it reads no file",
                    kind="file",
                )
            spans = _with_earlier(repository, artifacts) if artifacts.added else artifacts.spans
            repository.upload_trace_data(f'{{"spans": [{", ".join(spans)}]}}')
    except (Away, Failed):
        raise
    except Exception as error:
        # Whatever code keeps artifacts here: without its package, its credentials, its folder.
        reason = f"artifacts cannot be uploaded: {type(error).__name__}: {error}"
        status = None
        if isinstance(error, requests.HTTPError) and error.response is not None:
            status = error.response.status_code
        elif isinstance(error, MlflowException) and isinstance(
            error.__context__, requests.RequestException
        ):
            raise Away(reason) from error  # by way of the server, which is not there
        elif isinstance(error, (requests.RequestException, ConnectionError, TimeoutError)):
            status = 500
        if status is None or (status < 500 and status not in _TRANSIENT_STATUS):
            raise Refused(reason) from error
        raise Failed(reason) from error


def _with_earlier(repository: Any, artifacts: Artifacts) -> list[str]:
    """The spans, and those of the file that this one takes the place of."""
    from mlflow.tracing.utils.artifact_utils import TRACE_DATA_FILE_NAME

    if all(file.path != TRACE_DATA_FILE_NAME for file in repository.list_artifacts()):
        return artifacts.spans
    new = {json.loads(text)["span_id"] for text in artifacts.spans}
    try:
        earlier = repository.download_trace_data()["spans"]
    except Exception as error:
        raise Failed(f"spans that were uploaded before cannot be read: {error}") from error
    return [json.dumps(span) for span in earlier if span["span_id"] not in new] + artifacts.spans


def open_destination(uri: str) -> Destination:
    if uri.startswith(("http://", "https://")):
        from mlflow_fasttrace._internal.sender.http import HttpDestination

        return HttpDestination(uri)
    from mlflow_fasttrace._internal.sender.store import StoreDestination

    return StoreDestination(uri)


class Experiments:
    """Ids of the experiments that traces name."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def id_of(self, experiment: dict[str, str], destination: Destination) -> str:
        if "id" in experiment:
            return experiment["id"]
        name = experiment["name"]
        if name not in self._ids:
            try:
                self._ids[name] = destination.experiment_id(name)
            except (Refused, Failed, Denied) as error:
                reason = f"experiment {name!r} could not be resolved: {error}"
                unknown = isinstance(error, Denied) and error.unknown_to_it
                raise Denied(reason, kind=("experiment", name), unknown_to_it=unknown) from error
            except Away as error:
                error.args = (f"experiment {name!r} could not be resolved: {error}",)
                raise
        return self._ids[name]

    def forget(self, experiment: dict[str, str]) -> None:
        """It is not there any more: the server was set up anew, say."""
        self._ids.pop(experiment.get("name", ""), None)


class Backoff:
    """When to try again: after 0.25 s, doubling up to 15 s, give or take a quarter; or when the
    destination says. One that took something within the last minute is likely to be back soon, and is
    asked every second."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._until = 0.0
        self._succeeded_at = float("-inf")

    def failed(self, seconds: float | None = None) -> None:
        lately = time.monotonic() - self._succeeded_at < LATELY_SECONDS
        self._delay = min(self._delay * 2 or 0.25, 1.0 if lately else 15.0)
        wait = self._delay * random.uniform(0.75, 1.25)
        if seconds:
            # Not before, and not all senders at the same moment.
            wait = max(wait, min(seconds, RETRY_AFTER_MAX_SECONDS) * random.uniform(1.0, 1.1))
        self._until = time.monotonic() + wait

    def succeeded(self) -> None:
        self._delay = 0.0
        self._until = 0.0
        self._succeeded_at = time.monotonic()

    def waiting(self) -> bool:
        return time.monotonic() < self._until
