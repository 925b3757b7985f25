"""Delivery to an MLflow tracking server: OTLP for spans, StartTraceV3 for a trace's info.

MLflow's code resolves host, credentials and headers; urllib3 sends. What urllib3 cannot sign goes
through MLflow's own request function.
"""

from __future__ import annotations

import base64
import gzip
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import requests
import urllib3
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracing.utils.otlp import MLFLOW_EXPERIMENT_ID_HEADER, OTLP_TRACES_PATH
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.tracking.request_header.registry import resolve_request_headers
from mlflow.utils.rest_utils import http_request
from mlflow.utils.workspace_context import get_request_workspace
from mlflow.utils.workspace_utils import WORKSPACE_HEADER_NAME

from mlflow_fasttrace import _core
from mlflow_fasttrace.sender.delivery import (
    SIGN_IN_HINT,
    Artifacts,
    Away,
    Failed,
    Inexact,
    Refused,
    TooLarge,
    Unsupported,
    upload_artifacts,
)
from mlflow_fasttrace.sender.finish import InfoDict, start_trace_body

logger = logging.getLogger("mlflow_fasttrace.sender")

_TRACES_PATH = "/api/3.0/mlflow/traces"
_TIMEOUT = urllib3.Timeout(connect=5.0, read=60.0)
_COMPRESS_FROM = 64 << 10  # on a network; loopback pays more for the compression than for the bytes
_HEADERS_SECONDS = 5.0
_FILES_SECONDS = 600.0  # that a server is taken for one without OTLP before it is asked again
_AWAY_STATUS = frozenset({401, 403, 407, 408, 425, 429, 502, 503, 504})
_NO_OTLP_STATUS = frozenset({404, 405, 501})


class HttpDestination:
    """An MLflow tracking server."""

    def __init__(self, uri: str):
        self._uri = uri
        self.store: RestStore = _get_store(uri)
        self._credentials = self.store.get_host_creds()
        self._host = self._credentials.host.rstrip("/")
        self._loopback = bool(re.match(r"https?://(127\.0\.0\.1|localhost|\[::1\])", self._host))
        self._signed = bool(
            self._credentials.aws_sigv4
            or self._credentials.auth
            or self._credentials.use_databricks_sdk
        )
        self._pool: urllib3.PoolManager | None = None
        self._known_headers: dict[str, str] = {}
        self._headers_asked = float("-inf")
        self._is_mlflow = False  # something has been accepted
        self._files_until = float("-inf")

    @property
    def takes_spans(self) -> bool:
        return time.monotonic() >= self._files_until

    # ---- the connection ----

    def _open(self) -> urllib3.PoolManager | None:
        """Proxies and certificates as requests finds them; None for what only requests can do."""
        if self._pool is None:
            creds = self._credentials
            with requests.Session() as session:
                settings = session.merge_environment_settings(
                    self._host, {}, None, creds.verify, creds.client_cert_path
                )
            options: dict[str, Any] = {"maxsize": 2, "timeout": _TIMEOUT, "retries": False}
            verify = settings["verify"]
            if verify is False:
                options["cert_reqs"] = "CERT_NONE"
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            elif isinstance(verify, str) and os.path.isdir(verify):
                options["ca_cert_dir"] = verify
            else:
                options["ca_certs"] = verify if isinstance(verify, str) else requests.certs.where()
            if settings["cert"]:
                options["cert_file"] = settings["cert"]
            proxy = requests.utils.select_proxy(self._host, settings["proxies"])
            if proxy is None:
                self._pool = urllib3.PoolManager(**options)
            elif proxy.lower().startswith("socks"):
                self._signed = True
                return None
            else:
                proxy = requests.utils.prepend_scheme_if_needed(proxy, "http")
                user, password = requests.utils.get_auth_from_url(proxy)
                if user:
                    options["proxy_headers"] = urllib3.make_headers(
                        proxy_basic_auth=f"{user}:{password}"
                    )
                self._pool = urllib3.ProxyManager(proxy, **options)
        return self._pool

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
        if workspace := get_request_workspace():
            headers.setdefault(WORKSPACE_HEADER_NAME, workspace)
        creds = self._credentials
        if creds.username and creds.password:
            login = (creds.username, creds.password)
        elif creds.token:
            headers["Authorization"] = f"Bearer {creds.token}"
            return headers
        else:
            login = requests.utils.get_netrc_auth(self._host)
        if login:
            pair = f"{login[0]}:{login[1]}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        return headers

    def _request(self, path: str, body: bytes, headers: dict[str, str]) -> _Answer:
        try:
            pool = None if self._signed else self._open()
            if pool is None:
                answer = http_request(
                    self._credentials,
                    path,
                    "POST",
                    max_retries=0,
                    raise_on_status=False,
                    extra_headers=headers,
                    data=body,
                )
                return _Answer(answer.status_code, answer.headers, answer.content)
            if len(body) >= _COMPRESS_FROM and not self._loopback:
                body = gzip.compress(body, compresslevel=1)
                headers = {**headers, "Content-Encoding": "gzip"}
            answer = pool.request(
                "POST",
                self._host + path,
                body=body,
                headers={**self._headers(), **headers},
                redirect=False,
            )
            return _Answer(answer.status, answer.headers, answer.data)
        except Exception as error:
            raise Away(f"{self._host} does not answer: {type(error).__name__}: {error}") from error

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> _Answer:
        """The answer where it is a 200.

        Raises:
            Away, Refused, Failed, TooLarge: what any other answer means.
        """
        answer = self._request(path, body, headers)
        status = answer.status
        if status == 200:
            return answer
        text = answer.body[:300].decode("utf-8", "replace")
        reason = f"{self._host}{path} answered {status}: {text}"
        if status in (401, 403):
            self._headers_asked = float("-inf")
            reason += f" {SIGN_IN_HINT}"
        if status in _AWAY_STATUS:
            raise Away(reason, answer.retry_after())
        if status == 413:
            raise TooLarge(reason)
        known = self._is_mlflow or answer.is_of_mlflow()
        if path == OTLP_TRACES_PATH and status in _NO_OTLP_STATUS and known:
            if not answer.error_code():
                self._files_until = time.monotonic() + _FILES_SECONDS
                raise Unsupported(reason)
        if not answer.is_of_mlflow():
            raise Away(reason, answer.retry_after())
        raise (Failed if status >= 500 else Refused)(reason)

    # ---- what is sent ----

    def send_info(self, info: InfoDict) -> None:
        body = start_trace_body(info)
        answer = self._post(_TRACES_PATH, body, {"Content-Type": "application/json"})
        taken = answer.json()
        if not (isinstance(taken, dict) and "trace" in taken):
            raise Away(f"{self._host}{_TRACES_PATH} answered something that is not MLflow's")
        self._is_mlflow = True

    def send_spans(self, experiment_id: str, records: list[bytes], *, exact: bool) -> None:
        body, refused, inexact = _core.otlp_request(records)
        if exact and inexact:
            raise Inexact(inexact)
        for index in refused:
            logger.error("a span record cannot be encoded and is left out: %d", index)
        answer = self._post(
            OTLP_TRACES_PATH,
            body,
            {
                "Content-Type": "application/x-protobuf",
                MLFLOW_EXPERIMENT_ID_HEADER: experiment_id,
            },
        )
        kind = answer.headers.get("Content-Type", "")
        if not kind.startswith(("application/x-protobuf", "application/json")):
            raise Away(f"{self._host}{OTLP_TRACES_PATH} answered something that is not MLflow's")

    def upload(self, trace_id: str, artifacts: Artifacts) -> None:
        upload_artifacts(self._uri, trace_id, artifacts)


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def error_code(self) -> str | None:
        content = self.json()
        return content.get("error_code") if isinstance(content, dict) else None

    def is_of_mlflow(self) -> bool:
        """Whether MLflow wrote it, and not whatever stands in its place or in between."""
        content = self.json()
        return isinstance(content, dict) and ("error_code" in content or "detail" in content)

    def retry_after(self) -> float | None:
        """Seconds until the server wants to be asked again."""
        text = self.headers.get("Retry-After")
        if not text:
            return None
        try:
            return urllib3.Retry().parse_retry_after(text)
        except urllib3.exceptions.InvalidHeader:
            return None
