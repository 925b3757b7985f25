"""The environment variables of this package, and the folders and names that follow from them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from mlflow_fasttrace import _otlp

#: Variables that decide how a sender signs in, and where; their values never leave the environment.
CREDENTIAL_VARIABLES = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_WORKSPACE",
)

#: The same of what signs requests, where MLflow is told to sign them.
_SIGNING_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
)

DEFAULT_RING_BYTES = 4 << 20
DEFAULT_SPOOL_BYTES = 1 << 30

#: What a spool may hold that is not on a disk.
MEMORY_BYTES = 64 << 20

_SHARED_MEMORY = "/dev/shm"

_FALSE = ("false", "0")

_CREDENTIALS = re.compile(r"://[^/?#\s'\"]*@")

#: Of a database's URI, as SQLAlchemy reads it: a password may hold anything but an "@".
_DATABASES = ("postgresql", "mysql", "mssql")
_DATABASE_CREDENTIALS = re.compile(r"^([\w+]+://)[^:/@]*(?::[^@]*)?@")


def ring_bytes() -> int:
    value = _integer("MLFLOW_FASTTRACE_RING_BYTES", DEFAULT_RING_BYTES)
    # Whole pages, and within what the core takes.
    return min(max(value, 64 << 10), 1 << 30) // 4096 * 4096


def spool_max_bytes(state: str) -> int:
    """What the state folder of a spool may hold."""
    value = max(_integer("MLFLOW_FASTTRACE_SPOOL_MAX_BYTES", DEFAULT_SPOOL_BYTES), 64 << 10)
    return min(value, MEMORY_BYTES) if state.startswith(_SHARED_MEMORY + "/") else value


def spool_on_disk() -> bool:
    """Whether what waits for delivery may be written to disk (``MLFLOW_FASTTRACE_SPOOL``)."""
    text = os.environ.get("MLFLOW_FASTTRACE_SPOOL", "on")
    return text.strip().lower() not in ("off", "false", "0", "no")


def keep_rules() -> str | None:
    """Which finished traces are kept (``MLFLOW_FASTTRACE_KEEP``), as the sender reads it."""
    return os.environ.get("MLFLOW_FASTTRACE_KEEP", "").strip() or None


def exit_timeout_seconds() -> float:
    text = os.environ.get("MLFLOW_FASTTRACE_EXIT_TIMEOUT", "5")
    try:
        return max(0.0, float(text))
    except ValueError:
        return 5.0


def sender_mode() -> str:
    """``process`` (default), ``thread`` or ``none``."""
    mode = os.environ.get("MLFLOW_FASTTRACE_SENDER", "process")
    return mode if mode in ("process", "thread", "none") else "process"


def sampling_ratio() -> float:
    """The share of traces that is recorded, from 0 to 1.

    Raises:
        ValueError: the environment gives none.
    """
    text = os.environ.get("MLFLOW_TRACE_SAMPLING_RATIO") or "1"
    ratio = float(text)
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"{ratio} is not between 0 and 1")
    return ratio


def asynchronous() -> bool:
    """Whether a trace may end before it is delivered."""
    text = os.environ.get("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "true")
    return text.strip().lower() not in ("false", "0")


def active_model_id() -> str | None:
    """The model that traces belong to unless the program sets another."""
    names = ("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def disabled() -> bool:
    return os.environ.get("MLFLOW_FASTTRACE_DISABLE", "").lower() in ("1", "true")


def not_covered() -> str | None:
    """Why the environment asks for what only MLflow itself does; None where it does not."""
    if os.environ.get("MLFLOW_USE_DEFAULT_TRACER_PROVIDER", "true").strip().lower() in _FALSE:
        return (
            "MLFLOW_USE_DEFAULT_TRACER_PROVIDER=false gives MLflow's spans to the program's own "
            "OpenTelemetry provider"
        )
    if os.environ.get("IS_IN_DB_MODEL_SERVING_ENV", "false").lower() in ("true", "1"):
        return "Databricks serves this model, and its traces go with its answers"
    if "." in os.environ.get("MLFLOW_TRACING_DESTINATION", ""):
        return "MLFLOW_TRACING_DESTINATION names a location in Unity Catalog"
    return None


def propagates() -> bool:
    """Whether OpenTelemetry's process-wide context and the core see each other."""
    text = os.environ.get("MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT", "false")
    return text.strip().lower() in ("true", "1")


def _integer(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, ""))
    except ValueError:
        return default


def without_credentials(uri: str) -> str:
    """The URI as it may be written to disk: no user or password; of a collector's and a database
    server's, no query, which may hold them too."""
    if not uri.startswith(("http://", "https://", _otlp.SCHEME)):
        plain = _DATABASE_CREDENTIALS.sub(r"\1", uri)
        return plain.partition("?")[0] if uri.startswith(_DATABASES) else plain
    parts = urlsplit(uri)
    if _otlp.is_collector(uri):
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def without_secrets(text: str) -> str:
    """A message as it may be written to disk or shown: no user or password in its URIs."""
    return _CREDENTIALS.sub("://", text)


def absolute_uri(uri: str) -> str:
    """Relative SQLite and file paths depend on the agent's folder: made absolute."""
    if uri.startswith("sqlite:///"):
        path = uri[len("sqlite:///") :]
        if path and not path.startswith("/") and not path.startswith(":memory:"):
            return "sqlite:///" + os.path.abspath(path)
        return uri
    if "://" not in uri and not uri.startswith(("databricks", "file:")):
        return "file://" + os.path.abspath(uri or "mlruns")
    return uri


class Spool(NamedTuple):
    """Where one sender's agents leave what they recorded."""

    name: str
    state: str  # segments, lock, log: survives a reboot
    rings: str  # rings, on tmpfs where there is one

    def in_memory(self) -> Spool | None:
        """The same with nothing on a disk: all of it on tmpfs, where there is one."""
        if not self.rings.startswith(_SHARED_MEMORY):
            return None
        folder = self.rings + "-memory"
        return Spool(name=self.name + "-memory", state=folder, rings=folder)

    def spill_prefixes(self, stem: str) -> tuple[str, str | None]:
        """The paths up to their numbers of what an agent spills: to the disk, and to memory before
        that where rings lie there and segments do not."""
        name = f"spill-{stem}"
        in_memory = self.rings.startswith(_SHARED_MEMORY + "/") and self.rings != self.state
        memory = os.path.join(self.rings, name) if in_memory else None
        return os.path.join(self.state, name), memory

    @property
    def lock(self) -> str:
        return os.path.join(self.state, "sender.lock")

    @property
    def log(self) -> str:
        return os.path.join(self.state, "sender.log")

    def make_state(self) -> None:
        """Creates the state folder, 0700.

        Raises:
            OSError: it cannot be made, or is another user's.
        """
        _make_private(self.state)
        # A link or a pipe in place of them would stop every sender to come.
        for path in (self.lock, self.log):
            _refuse_other_than_own_file(path)

    def make_rings(self) -> None:
        """The same for the folder of the rings."""
        _make_private(self.rings)


class Holder(NamedTuple):
    """Who an open lock file says is the sender; 0 and "" where it names none."""

    pid: int = 0
    version: str = ""
    stays: bool = False  # an agent's thread, or a command: nobody may ask it to end


def holder_of(lock: int) -> Holder:
    words = os.pread(lock, 100, 0).decode("ascii", "replace").split()
    if len(words) < 2 or not words[0].isdigit():
        return Holder()
    return Holder(int(words[0]), words[1], words[2:] == ["stays"])


def release_of(version: str) -> tuple[int, ...] | None:
    """The numbers of a version, to compare; None where it is none."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else None


def _refuse_other_than_own_file(path: str) -> None:
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a file of this user; remove it")


def _make_private(folder: str) -> None:
    parent = os.path.dirname(folder)
    if os.path.dirname(parent) == _SHARED_MEMORY:
        # Everybody may make folders there, and whose a folder is may swap what lies in it.
        _make_private(parent)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    info = os.lstat(folder)
    if os.path.islink(folder) or info.st_uid != os.geteuid():
        raise PermissionError(
            f"{folder} is not a folder of this user; remove it"
            + ("" if folder.startswith(_SHARED_MEMORY) else " or set MLFLOW_FASTTRACE_SPOOL_DIR")
        )
    if info.st_mode & 0o077:
        os.chmod(folder, 0o700)


def state_root() -> str:
    if folder := os.environ.get("MLFLOW_FASTTRACE_SPOOL_DIR"):
        return folder
    import platformdirs

    return platformdirs.user_state_dir("mlflow-fasttrace", appauthor=False)


def rings_prefix(root: str) -> str:
    """Rings of different spool roots must not mix: this part of the root is in their names."""
    return hashlib.blake2b(root.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def spool_for(uri: str) -> Spool:
    """The spool of a destination and of the credentials that this process has for it."""
    names = _otlp.VARIABLES if _otlp.is_collector(uri) else CREDENTIAL_VARIABLES
    if names is CREDENTIAL_VARIABLES and os.environ.get("MLFLOW_TRACKING_AWS_SIGV4"):
        names += _SIGNING_VARIABLES
    secret = "\0".join([uri] + [f"{name}={os.environ.get(name, '')}" for name in names])
    root = os.path.abspath(state_root())
    digest = hashlib.blake2b(
        secret.encode("utf-8", "surrogatepass"), digest_size=8, person=b"mlflow-fasttrace"[:16]
    ).hexdigest()
    return spool_named(root, digest)


def spool_named(root: str, digest: str) -> Spool:
    """The folders of a spool below an absolute state root."""
    state = os.path.join(root, digest)
    rings = (
        os.path.join(
            _SHARED_MEMORY, f"mlflow-fasttrace-{os.geteuid()}", f"{rings_prefix(root)}-{digest}"
        )
        if os.path.isdir(_SHARED_MEMORY) and os.access(_SHARED_MEMORY, os.W_OK)
        else os.path.join(state, "rings")
    )
    return Spool(name=digest, state=state, rings=rings)
