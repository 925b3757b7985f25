"""Delivery to an MLflow tracking server: OTLP for spans, StartTraceV3 for a trace's info.

MLflow's code resolves host, credentials and headers; urllib3 sends. What urllib3 cannot sign goes
through MLflow's own request function.
"""

from __future__ import annotations

import base64
import gzip
import json
import logging
import time
from typing import Any

import urllib3
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracing.utils.otlp import MLFLOW_EXPERIMENT_ID_HEADER, OTLP_TRACES_PATH
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.tracking.request_header.registry import resolve_request_headers
from mlflow.utils.rest_utils import http_request

from mlflow_fasttrace import _core
from mlflow_fasttrace.sender.delivery import Artifacts, Away, Inexact, Refused, upload_artifacts
from mlflow_fasttrace.sender.finish import InfoDict, start_trace_body

logger = logging.getLogger("mlflow_fasttrace.sender")

_TRACES_PATH = "/api/3.0/mlflow/traces"
_TIMEOUT = urllib3.Timeout(connect=5.0, read=60.0)
_COMPRESS_FROM = 64 << 10  # on a network; loopback pays more for the compression than for the bytes
_HEADERS_SECONDS = 5.0
_RETRIED = frozenset({401, 403, 408, 425, 429, 500, 502, 503, 504})


class HttpDestination:
    """An MLflow tracking server."""

    def __init__(self, uri: str):
        self._uri = uri
        self.store: RestStore = _get_store(uri)
        self._credentials = self.store.get_host_creds()
        host = self._credentials.host.rstrip("/")
        self._host = host
        self._loopback = "//127.0.0.1" in host or "//localhost" in host or "//[::1]" in host
        self._pool = self._make_pool()
        self._known_headers: dict[str, str] = {}
        self._headers_asked = float("-inf")

    def _make_pool(self) -> urllib3.PoolManager:
        options: dict[str, Any] = {"maxsize": 2, "timeout": _TIMEOUT, "retries": False}
        verify = self._credentials.verify
        if verify is False:
            options["cert_reqs"] = "CERT_NONE"
        elif isinstance(verify, str):
            options["ca_certs"] = verify
        if self._credentials.client_cert_path:
            options["cert_file"] = self._credentials.client_cert_path
        return urllib3.PoolManager(**options)

    def _headers(self) -> dict[str, str]:
        """What MLflow's header providers and the credentials say; asked again every few seconds,
        since the providers look around on every call."""
        now = time.monotonic()
        if now - self._headers_asked >= _HEADERS_SECONDS:
            self._known_headers = self._resolve_headers()
            self._headers_asked = now
        return self._known_headers

    def _resolve_headers(self) -> dict[str, str]:
        headers = dict(resolve_request_headers())
        creds = self._credentials
        if creds.username and creds.password:
            pair = f"{creds.username}:{creds.password}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        elif creds.token:
            headers["Authorization"] = f"Bearer {creds.token}"
        return headers

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        creds = self._credentials
        try:
            if creds.aws_sigv4 or creds.auth or creds.use_databricks_sdk:
                answer = http_request(
                    creds,
                    path,
                    "POST",
                    max_retries=0,
                    raise_on_status=False,
                    extra_headers=headers,
                    data=body,
                )
                status, text = answer.status_code, answer.content
            else:
                if len(body) >= _COMPRESS_FROM and not self._loopback:
                    body = gzip.compress(body, compresslevel=1)
                    headers = {**headers, "Content-Encoding": "gzip"}
                answer = self._pool.request(
                    "POST", self._host + path, body=body, headers={**self._headers(), **headers}
                )
                status, text = answer.status, answer.data
        except Exception as error:
            raise Away(f"{self._host} does not answer: {type(error).__name__}") from error
        if status == 200:
            return text
        reason = f"{path} answered {status}: {text[:300].decode('utf-8', 'replace')}"
        if status in (401, 403):
            reason += (
                " (set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
                "MLFLOW_TRACKING_TOKEN; nothing is lost meanwhile)"
            )
        if status in _RETRIED or status >= 500:
            raise Away(reason)
        raise Refused(reason)

    def send_info(self, info: InfoDict) -> None:
        body = start_trace_body(info)
        answer = self._post(_TRACES_PATH, body, {"Content-Type": "application/json"})
        try:
            json.loads(answer)
        except ValueError:
            raise Away(f"{self._host} answered something that is not MLflow's") from None

    def send_spans(self, experiment_id: str, records: list[bytes], *, exact: bool) -> None:
        body, refused, inexact = _core.otlp_request(records)
        if exact and inexact:
            raise Inexact(inexact)
        for index in refused:
            logger.error("a span record cannot be encoded and is left out: %d", index)
        self._post(
            OTLP_TRACES_PATH,
            body,
            {
                "Content-Type": "application/x-protobuf",
                MLFLOW_EXPERIMENT_ID_HEADER: experiment_id,
            },
        )

    def upload(self, trace_id: str, artifacts: Artifacts) -> None:
        upload_artifacts(self._uri, trace_id, artifacts)
