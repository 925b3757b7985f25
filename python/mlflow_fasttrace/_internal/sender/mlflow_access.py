"""The access to a tracking server by MLflow's own code, which knows plugins, signatures and Databricks."""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

import requests
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.tracking.request_header.registry import resolve_request_headers
from mlflow.utils.rest_utils import http_request

from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.sender.access import WORKSPACE_HEADER, Host, SignedRequest, basic
from mlflow_fasttrace._internal.sender.answers import Answer
from mlflow_fasttrace._internal.sender.transport import REDIRECTS, read_parts

_REDIRECT_STATUS = (307, 308)


class MlflowAccess:
    """The access by MLflow's store of a URI.

    Raises:
        Exception: whatever MLflow raises for a URI that it cannot use.
    """

    def __init__(self, uri: str):
        self._store: RestStore = _get_store(uri)
        self._credentials = creds = self._store.get_host_creds()
        self.host = Host(creds.host.rstrip("/"), creds.verify, creds.client_cert_path)
        signs = creds.aws_sigv4 or creds.auth or creds.use_databricks_sdk
        self.signed_request: SignedRequest | None = self._request if signs else None

    def headers(self) -> dict[str, str]:
        headers = dict(resolve_request_headers())
        if workspace := environment.workspace():
            headers.setdefault(WORKSPACE_HEADER, workspace)
        self._credentials = creds = self._store.get_host_creds()
        if creds.username and creds.password:
            headers["Authorization"] = basic(creds.username, creds.password)
        elif creds.token:
            headers["Authorization"] = f"Bearer {creds.token}"
        return headers

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], seconds: float
    ) -> Answer:
        """Makes a request by MLflow's own function. A server that has moved is followed on its host, and to no
        other: what signs would sign for anybody."""
        answer = self._request_once(method, path, body, headers, seconds)
        for _ in range(REDIRECTS):
            if answer.status not in _REDIRECT_STATUS or not environment.follows_redirects():
                break
            target = urljoin(self.host.uri + path, answer.headers.get("Location", ""))
            if _origin(target) != _origin(self.host.uri):
                break
            path = re.sub("^" + re.escape(self.host.uri), "", target)
            if path == target:  # below another path than the server's
                break
            answer = self._request_once(method, path, body, headers, seconds)
        return answer

    def _request_once(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], seconds: float
    ) -> Answer:
        # Databricks' own client has read the answer before it hands it over.
        streams = not self._credentials.use_databricks_sdk
        options = {"timeout": seconds, "stream": True, "allow_redirects": False} if streams else {}
        answer: requests.Response = http_request(
            self._credentials,
            path,
            method,
            max_retries=0,
            raise_on_status=False,
            extra_headers=headers,
            data=body,
            **options,
        )
        with answer:
            content = (
                read_parts(answer.iter_content(64 << 10), seconds) if streams else answer.content
            )
            return Answer(answer.status_code, answer.headers, content)


def _origin(uri: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(uri)
    return parts.scheme, parts.hostname, parts.port
