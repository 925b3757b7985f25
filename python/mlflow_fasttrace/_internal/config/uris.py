"""URIs: relative ones made absolute, credentials taken out of what is written or shown."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit, urlunsplit

from mlflow_fasttrace._internal.config import otlp

_CREDENTIALS = re.compile(r"://[^/?#\s'\"]*@")
_QUERY = re.compile(r"(https?://[^\s'\"?#]+)[?#][^\s'\"]*")
_DATABASES = ("postgresql", "mysql", "mssql")
#: User and password of a database's URI, as SQLAlchemy reads it: the password may hold anything but
#: an "@".
_DATABASE_CREDENTIALS = re.compile(r"^([\w+]+://)[^:/@]*(?::[^@]*)?@")


def without_credentials(uri: str) -> str:
    """A URI as it may be written to disk: without user and password. A query may hold them too, and
    is left out, but for that of a database file."""
    if not uri.startswith(("http://", "https://", otlp.SCHEME)):
        plain = _DATABASE_CREDENTIALS.sub(r"\1", uri)
        return plain.partition("?")[0] if uri.startswith(_DATABASES) else plain
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def without_secrets(text: str) -> str:
    """A message as it may be written to disk or shown: without users, passwords and queries in its URIs."""
    return _QUERY.sub(r"\1?...", _CREDENTIALS.sub("://", text))


def absolute_uri(uri: str) -> str:
    """A tracking URI that means the same in another folder: relative SQLite and file paths are made
    absolute."""
    if uri.startswith("sqlite:///"):
        path = uri[len("sqlite:///") :]
        if path and not path.startswith("/") and not path.startswith(":memory:"):
            return "sqlite:///" + os.path.abspath(path)
        return uri
    if "://" not in uri and not uri.startswith(("databricks", "file:")):
        return "file://" + os.path.abspath(uri or "mlruns")
    return uri


def why_no_store(uri: str) -> str | None:
    """Why MLflow here cannot open the store of a tracking URI, and what to do; None where it can, or a server
    has the store."""
    if uri.startswith(("http://", "https://", "databricks", otlp.SCHEME)):
        return None
    import importlib.util

    if all(importlib.util.find_spec(name) for name in ("sqlalchemy", "sqlparse")):
        return None
    return (
        f"the package mlflow-tracing alone has no store for {without_credentials(uri)}: set "
        "MLFLOW_TRACKING_URI to a server (http://...), or install mlflow"
    )
