"""Delivery to an MLflow tracking server: OTLP for spans, StartTraceV3 for a trace's info.

MLflow's code resolves host, credentials and headers, requests finds proxies, certificates and
~/.netrc, urllib3 sends. What has to be signed goes through MLflow's own request function.
"""

from __future__ import annotations

import base64
import gzip
import json
import logging
import re
import time
from typing import Any
from urllib.parse import quote

import requests
import urllib3
from mlflow.environment_variables import MLFLOW_ALLOW_HTTP_REDIRECTS, MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracing.utils.otlp import MLFLOW_EXPERIMENT_ID_HEADER, OTLP_TRACES_PATH
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.tracking.request_header.registry import resolve_request_headers
from mlflow.utils.request_utils import TCPKeepAliveHTTPAdapter
from mlflow.utils.rest_utils import http_request
from mlflow.utils.workspace_context import get_request_workspace
from mlflow.utils.workspace_utils import WORKSPACE_HEADER_NAME

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.config.uris import without_credentials
from mlflow_fasttrace._internal.sender.answers import Answer, check, reason_of
from mlflow_fasttrace._internal.sender.artifacts import Artifacts, upload_artifacts
from mlflow_fasttrace._internal.sender.destinations import INFOS_AT_ONCE
from mlflow_fasttrace._internal.sender.exceptions import (
    Inexact,
    Rejected,
    Unavailable,
    Unsupported,
)
from mlflow_fasttrace._internal.sender.trace_infos import InfoDict, start_trace_body
from mlflow_fasttrace._internal.sender.transport import network_settings

logger = logging.getLogger("mlflow_fasttrace.sender")

_TRACES_PATH = "/api/3.0/mlflow/traces"
_EXPERIMENTS_PATH = "/api/2.0/mlflow/experiments"
_LOOK_UP_PATH = f"{_EXPERIMENTS_PATH}/get-by-name"
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0  # where MLFLOW_HTTP_REQUEST_TIMEOUT does not say
_ANSWER_BYTES = 8 << 20
_COMPRESS_FROM = 64 << 10  # bytes, on a network; on loopback compression costs more than it saves
_HEADERS_SECONDS = 5.0
_FILES_SECONDS = 600.0  # for which a server counts as one without OTLP before it is asked again
_NO_OTLP_STATUS = frozenset({404, 405, 501})
_VERSION = re.compile(rb"\d+\.\d+[\w.+-]{0,40}\s*")


class HttpDestination:
    """An MLflow tracking server.

    Args:
        uri: Its URI, with credentials if it holds any.

    Raises:
        Exception: whatever MLflow raises for a URI that it cannot use.
    """

    infos_at_once = INFOS_AT_ONCE

    def __init__(self, uri: str):
        self._uri = uri
        self.store: RestStore = _get_store(uri)
        self._credentials = self.store.get_host_creds()
        self._host = self._credentials.host.rstrip("/")
        self._name = without_credentials(self._host)  # for log lines
        self._loopback = bool(re.match(r"https?://(127\.0\.0\.1|localhost|\[::1\])", self._name))
        self._signed = bool(
            self._credentials.aws_sigv4
            or self._credentials.auth
            or self._credentials.use_databricks_sdk
        )
        read = MLFLOW_HTTP_REQUEST_TIMEOUT.get() if MLFLOW_HTTP_REQUEST_TIMEOUT.is_set() else 0
        self._read_seconds = float(read or _READ_SECONDS)
        self._timeout = urllib3.Timeout(
            connect=min(_CONNECT_SECONDS, self._read_seconds), read=self._read_seconds
        )
        self._session = requests.Session()
        self._adapter = TCPKeepAliveHTTPAdapter(pool_connections=1, pool_maxsize=self.infos_at_once)
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._prefix = ""  # goes before every path
        self._known_headers: dict[str, str] = {}
        self._headers_asked = float("-inf")
        self._files_until = float("-inf")
        self._moved = False

    @property
    def takes_spans(self) -> bool:
        """False for a while after the server has shown that it has no OTLP."""
        return time.monotonic() >= self._files_until

    # ---- the connection ----

    def _open(self) -> urllib3.HTTPConnectionPool:
        """The connections, which are made as requests makes them."""
        if self._pool is None:
            session, creds = self._session, self._credentials
            verify, cert, proxies = network_settings(
                session, self._host, creds.verify, creds.client_cert_path
            )
            if verify is False:
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            sample = session.prepare_request(requests.Request("POST", self._host + "/"))
            adapter = self._adapter
            assert sample.url is not None
            pool = adapter.get_connection_with_tls_context(sample, verify, proxies, cert)
            adapter.cert_verify(pool, sample.url, verify, cert)
            self._prefix = adapter.request_url(sample, proxies).rstrip("/")
            self._pool = pool
        return self._pool

    def _headers(self) -> dict[str, str]:
        """What MLflow's header providers and the credentials say. They are asked again every few
        seconds only, since the providers look around on every call."""
        now = time.monotonic()
        if now - self._headers_asked >= _HEADERS_SECONDS:
            self._known_headers = self._resolve_headers()
            self._headers_asked = now
        return self._known_headers

    def _resolve_headers(self) -> dict[str, str]:
        """The headers as MLflow's request function and requests put them together: the URI's own
        user and password come first, or else ~/.netrc, then what MLflow was given."""
        headers = dict(resolve_request_headers())
        if workspace := get_request_workspace():
            headers.setdefault(WORKSPACE_HEADER_NAME, workspace)
        self._credentials = creds = self.store.get_host_creds()
        if creds.username and creds.password:
            pair = f"{creds.username}:{creds.password}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        elif creds.token:
            headers["Authorization"] = f"Bearer {creds.token}"
        sample = self._session.prepare_request(
            requests.Request("POST", self._host + "/", headers=headers)
        )
        return {
            name: text.decode("latin-1") if isinstance(text, bytes) else text
            for name, text in sample.headers.items()
            if name != "Content-Length"
        }

    def _request(
        self, path: str, body: bytes | None, headers: dict[str, str], method: str = "POST"
    ) -> Answer:
        try:
            if self._signed:
                return self._request_by_mlflow(path, body, headers, method)
            if body and len(body) >= _COMPRESS_FROM and not self._loopback:
                body = gzip.compress(body, compresslevel=1)
                headers = {**headers, "Content-Encoding": "gzip"}
            pool = self._open()
            response = pool.urlopen(
                method,
                self._prefix + path,
                body=body,
                headers={**self._headers(), **headers},
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=self._timeout,
                preload_content=False,
            )
            answer = Answer(response.status, response.headers, self._read(response))
            if answer.status in (307, 308) and MLFLOW_ALLOW_HTTP_REDIRECTS.get():
                if not self._moved:
                    self._moved = True
                    place = without_credentials(answer.headers.get("Location", ""))
                    logger.warning("%s%s is now %s", self._name, path, place)
                return self._request_by_mlflow(path, body, headers, method)
            return answer
        except Exception as error:
            raise Unavailable(
                f"{self._name} does not answer: {type(error).__name__}: {error}",
                kind=type(error),
                unanswered=not isinstance(error, urllib3.exceptions.NewConnectionError),
            ) from error

    def _request_by_mlflow(
        self, path: str, body: bytes | None, headers: dict[str, str], method: str
    ) -> Answer:
        """Makes a request by MLflow's own function, which signs, and follows a server that moved."""
        limits = {} if self._credentials.use_databricks_sdk else {"timeout": self._read_seconds}
        answer = http_request(
            self._credentials,
            path,
            method,
            max_retries=0,
            raise_on_status=False,
            extra_headers=headers,
            data=body,
            **limits,
        )
        return Answer(answer.status_code, answer.headers, answer.content)

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """The whole answer.

        Raises:
            OSError: it is too long, or takes too long.
        """
        deadline = time.monotonic() + self._read_seconds
        content = b""
        while part := response.read1(64 << 10):
            content += part
            if len(content) > _ANSWER_BYTES or time.monotonic() > deadline:
                response.close()
                raise OSError("its answer has no end")
        response.release_conn()
        return content

    def _checked(self, path: str, answer: Answer) -> Answer:
        """Gives an answer back whose status is 200.

        Raises:
            Unavailable, Forbidden, Rejected, TransientError, TooLarge: See ``answers.check``.
            Unsupported: The server has no OTLP.
        """
        if answer.status in (401, 403):
            self._headers_asked = float("-inf")
        if path == OTLP_TRACES_PATH and answer.status in _NO_OTLP_STATUS:
            self._check_for_otlp(answer)
        check(answer, self._name + path)
        return answer

    def _check_for_otlp(self, answer: Answer) -> None:
        """Finds out who says that nothing takes spans: MLflow, which has no OTLP then, or a proxy."""
        if answer.error_code():
            return
        reason = reason_of(answer, self._name + OTLP_TRACES_PATH)
        if not answer.is_of_mlflow() and not self._is_mlflow():
            raise Unavailable(reason, answer.retry_after(), kind=answer.status)
        self._files_until = time.monotonic() + _FILES_SECONDS
        logger.info("traces go as files, whole, since %s", reason)
        raise Unsupported(reason)

    def _is_mlflow(self) -> bool:
        """Whether MLflow is there now, and not only the proxy before it."""
        answer = self._request("/version", None, {}, "GET")
        return answer.status == 200 and _VERSION.fullmatch(answer.body) is not None

    def _not_of_mlflow(self, path: str, answer: Answer) -> Unavailable:
        text = answer.body[:100].decode("utf-8", "replace")
        return Unavailable(f"{self._name}{path} answered what is not MLflow's: {text}", kind=path)

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, which is made where it is missing. The requests are our own, since
        MLflow's client would ask for more, and read less of an answer."""
        answer = self._look_up(name)
        if answer.status == 404 and answer.error_code():
            path = f"{_EXPERIMENTS_PATH}/create"
            body = json.dumps({"name": name}).encode()
            answer = self._request(path, body, {"Content-Type": "application/json"})
            if answer.error_code() != "RESOURCE_ALREADY_EXISTS":
                return self._id_in(path, answer, self._checked(path, answer).json())
            answer = self._look_up(name)  # somebody else has made it meanwhile
        found = self._checked(_LOOK_UP_PATH, answer).json()
        found = found.get("experiment") if isinstance(found, dict) else None
        return self._id_in(_LOOK_UP_PATH, answer, found)

    def _look_up(self, name: str) -> Answer:
        path = f"{_LOOK_UP_PATH}?experiment_name={quote(name, safe='')}"
        return self._request(path, None, {}, "GET")

    def _id_in(self, path: str, answer: Answer, experiment: Any) -> str:
        found = experiment.get("experiment_id") if isinstance(experiment, dict) else None
        if not isinstance(found, str):
            raise self._not_of_mlflow(path, answer)
        return found

    # ---- what is sent ----

    def send_info(self, info: InfoDict) -> None:
        body = start_trace_body(info)
        answer = self._request(_TRACES_PATH, body, {"Content-Type": "application/json"})
        try:
            taken = self._checked(_TRACES_PATH, answer).json()["trace"]["trace_info"]["trace_id"]
        except (TypeError, LookupError):
            taken = None
        if taken != info["trace_id"]:
            raise self._not_of_mlflow(_TRACES_PATH, answer)

    def send_spans(self, experiment_id: str, records: list[bytes], *, exact: bool) -> None:
        body, refused, inexact = _core.otlp_request(records)
        if exact and inexact:
            raise Inexact(inexact)
        if refused:
            raise Rejected(f"{len(refused)} span records cannot be encoded")
        answer = self._request(
            OTLP_TRACES_PATH,
            body,
            {
                "Content-Type": "application/x-protobuf",
                MLFLOW_EXPERIMENT_ID_HEADER: experiment_id,
            },
        )
        partial = self._checked(OTLP_TRACES_PATH, answer).partial_success()
        if partial is None:
            raise self._not_of_mlflow(OTLP_TRACES_PATH, answer)
        if partial.rejected:
            raise Rejected(
                f"{self._name}{OTLP_TRACES_PATH} rejected {partial.rejected} spans: {partial.message}"
            )

    def upload(self, trace_id: str, artifacts: Artifacts) -> None:
        upload_artifacts(self._uri, trace_id, artifacts)
