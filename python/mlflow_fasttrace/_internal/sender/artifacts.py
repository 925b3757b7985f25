"""Files of a trace: attachments, and spans where a server does not take them by OTLP. MLflow's own code
finds the place and uploads."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from typing import Any, NamedTuple

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.sender.exceptions import (
    Forbidden,
    Rejected,
    TransientError,
    Unavailable,
)
from mlflow_fasttrace._internal.spool.records import span_id_of

#: Statuses below 500 that another try may not see.
_TRANSIENT_STATUS = frozenset({401, 403, 408, 425, 429})


class Artifacts(NamedTuple):
    """What of a trace is stored as files, wherever its server keeps artifacts.

    ``attachments``: by their ids. ``spans``: the record of each; all of them are in one file.
    ``added``: the spans join those that the file has, rather than take their place.
    """

    attachments: dict[str, bytes] = {}
    spans: list[bytes] = []
    added: bool = False


def upload_artifacts(uri: str, trace_id: str, artifacts: Artifacts) -> None:
    """Uploads a trace's files to the place that its server names.

    Args:
        uri: The tracking URI.
        trace_id: The trace's id as MLflow writes it; its info is known to the server.
        artifacts: What is uploaded.

    Raises:
        Unavailable, Forbidden, TransientError, Rejected, MemoryError: not all of it is there.
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
        reason = f"{trace_id} cannot be read: {error}"
        if 400 <= status < 500 and status not in _TRANSIENT_STATUS:
            raise Rejected(reason) from error
        raise Unavailable(reason, kind=("info", status)) from error
    try:
        repository = get_artifact_repository(get_artifact_uri_for_trace(info))
        for attachment_id, content in artifacts.attachments.items():
            repository.upload_attachment(attachment_id, content)
        if artifacts.spans:
            if info.tags.get(TraceTagKey.SPANS_LOCATION) == SpansLocation.TRACKING_STORE:
                raise Forbidden(
                    f"spans of {trace_id} are in the server's database, where it reads no file",
                    kind="file",
                )
            earlier = _earlier(repository, artifacts) if artifacts.added else []
            _upload_trace_data(repository, earlier, artifacts.spans)
    except (Unavailable, TransientError, MemoryError):
        raise
    except Exception as error:
        # The code of an artifact store raises anything: where its package, its credentials or its
        # folder are missing, say.
        reason = f"artifacts cannot be uploaded: {type(error).__name__}: {error}"
        status = None
        if isinstance(error, requests.HTTPError) and error.response is not None:
            status = error.response.status_code
        elif isinstance(error, MlflowException) and isinstance(
            error.__context__, requests.RequestException
        ):
            # The server hands artifacts on, and is not there.
            raise Unavailable(reason, kind=("artifacts", type(error.__context__))) from error
        elif isinstance(error, (requests.RequestException, ConnectionError, TimeoutError)):
            status = 500
        if status is None or (status < 500 and status not in _TRANSIENT_STATUS):
            raise Rejected(reason) from error
        raise TransientError(reason) from error


def _upload_trace_data(repository: Any, earlier: list[str], records: list[bytes]) -> None:
    """Uploads the file of a trace's spans.

    Args:
        repository: MLflow's.
        earlier: The JSON of spans that come first.
        records: The records of the others. Their JSON, which may be large, is written to the file piece by
            piece, where the repository takes a file.
    """
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracing.utils.artifact_utils import TRACE_DATA_FILE_NAME

    if type(repository).upload_trace_data is not ArtifactRepository.upload_trace_data:
        spans = [*earlier, *map(_core.span_json, records)]
        repository.upload_trace_data(f'{{"spans": [{", ".join(spans)}]}}')
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, TRACE_DATA_FILE_NAME)
        with open(path, "wb", buffering=0) as file:
            file.write(b'{"spans": [' + ", ".join(earlier).encode())
            for number, record in enumerate(records):
                if earlier or number:
                    file.write(b", ")
                _core.write_span_json(file.fileno(), record)
            file.write(b"]}")
        repository.log_artifact(path)


def _earlier(repository: Any, artifacts: Artifacts) -> list[str]:
    """The JSON of the spans in the file that the new one takes the place of, but for those that come again."""
    from mlflow.tracing.utils.artifact_utils import TRACE_DATA_FILE_NAME

    if all(file.path != TRACE_DATA_FILE_NAME for file in repository.list_artifacts()):
        return []
    new = {base64.b64encode(span_id_of(record)).decode() for record in artifacts.spans}
    try:
        earlier = repository.download_trace_data()["spans"]
    except MemoryError:
        raise
    except Exception as error:
        raise TransientError(f"spans that were uploaded before cannot be read: {error}") from error
    return [json.dumps(span) for span in earlier if span["span_id"] not in new]
