"""How a tracking server is reached and signed in to, by the variables and files that MLflow's client reads.

MLflow's own code, which takes a hundred megabytes, is asked only where it alone knows: for plugins, signatures
and Databricks (mlflow_access.py).
"""

from __future__ import annotations

import base64
import configparser
import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

from mlflow_fasttrace._internal.base.version import mlflow_version
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.sender.answers import Answer
from mlflow_fasttrace._internal.sender.exceptions import Unavailable

WORKSPACE_HEADER = "X-MLFLOW-WORKSPACE"

#: Makes a request in MLflow's own way, which signs it: of method, path, body, headers, and seconds that it may
#: take.
SignedRequest = Callable[[str, str, "bytes | None", "dict[str, str]", float], Answer]


class Host(NamedTuple):
    """A tracking server, as it is connected to.

    ``uri``: without a slash at the end. ``verify``: whether its certificate is checked, or the file or folder
    of those that are trusted. ``client_certificate``: a file, if any.
    """

    uri: str
    verify: bool | str
    client_certificate: str | None


class Access(Protocol):
    """What MLflow's client knows of a tracking server."""

    host: Host
    #: None where requests are sent as they are.
    signed_request: SignedRequest | None

    def headers(self) -> dict[str, str]:
        """The headers of every request. Asked again every few seconds: credentials may change."""


class EnvironmentAccess:
    """The access by environment variables and ``~/.mlflow/credentials``.

    Raises:
        Unavailable: two of them contradict each other.
    """

    signed_request: SignedRequest | None = None

    def __init__(self, uri: str):
        trusted = environment.server_certificates()
        if trusted and environment.trusts_any_server():
            raise Unavailable(
                "MLFLOW_TRACKING_INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH exclude each other: "
                "remove one of them",
                kind="certificates",
            )
        self.host = Host(
            uri.rstrip("/"),
            trusted or not environment.trusts_any_server(),
            environment.client_certificate(),
        )
        version = mlflow_version()
        self._version = {
            "User-Agent": f"mlflow-python-client/{version}",
            "X-MLflow-Client-Version": version,
        }

    def headers(self) -> dict[str, str]:
        headers = dict(self._version)
        if workspace := environment.workspace():
            headers[WORKSPACE_HEADER] = workspace
        user, password = _user_and_password()
        if user and password:
            headers["Authorization"] = basic(user, password)
        elif token := environment.token():
            headers["Authorization"] = f"Bearer {token}"
        return headers


def basic(user: str, password: str) -> str:
    """The ``Authorization`` of a user. Bytes of the environment that are no text go as they are."""
    pair = f"{user}:{password}".encode(errors="surrogateescape")
    return "Basic " + base64.b64encode(pair).decode()


def _user_and_password() -> tuple[str | None, str | None]:
    """Those of the environment; what that lacks is looked for in the credentials file.

    Raises:
        Unavailable: the file cannot be read.
    """
    user, password = environment.user_name(), environment.password()
    if user and password:
        return user, password
    path = os.path.expanduser("~/.mlflow/credentials")
    file = configparser.ConfigParser()
    try:
        file.read(path)
        return (
            user or file.get("mlflow", "mlflow_tracking_username", fallback=None),
            password or file.get("mlflow", "mlflow_tracking_password", fallback=None),
        )
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        reason = f"{path} cannot be read: {type(error).__name__}"  # its text may hold the password
        raise Unavailable(reason, kind=("credentials", type(error))) from error
