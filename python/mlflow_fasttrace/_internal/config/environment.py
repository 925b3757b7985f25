"""The environment variables of this package, and those of MLflow that it reads: all are read here.
Those of OpenTelemetry are in ``otlp.py``.

There is one way to read a truth value, an integer, a number of seconds, a ratio. A value that cannot
be read costs one log line, and the default applies; an empty one counts as not set. The environment
is read at each call, never kept.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from typing import TypeVar

_T = TypeVar("_T")

#: What a truth value may be, in capitals or not; bootstrap/sitecustomize.py reads the same.
_TRUE = ("1", "true")
_FALSE = ("0", "false")

#: Bounds of a ring's size, which is whole pages; they are those of the core.
_RING_BYTES_MIN, _RING_BYTES_MAX, _PAGE_BYTES = 64 << 10, 1 << 30, 4096
_SPOOL_BYTES_MIN = 64 << 10

#: Variables that decide how a sender signs in, and where; their values never leave the environment.
_CREDENTIALS = (
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
#: Variables that decide how requests are signed, where MLflow is told to sign them.
_SIGNING = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")

#: Variables of MLflow that `mlflow-fasttrace doctor` shows besides this package's own.
_SHOWN = (
    "MLFLOW_TRACE_SAMPLING_RATIO",
    "MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT",
    "MLFLOW_USE_DEFAULT_TRACER_PROVIDER",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING",
)


# ---- how a value is read ----


def _text(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _truth(
    name: str, default: bool, true: tuple[str, ...] = _TRUE, false: tuple[str, ...] = _FALSE
) -> bool:
    text = _text(name)
    if text is None:
        return default
    if text.lower() in true:
        return True
    if text.lower() in false:
        return False
    return _bad(name, text, f"neither {true[-1]} nor {false[-1]}", default)


def _integer(name: str, default: _T, unit: str) -> int | _T:
    text = _text(name)
    try:
        return default if text is None else int(text)
    except ValueError:
        return _bad(name, text, f"no whole number of {unit}", default)


def _seconds(name: str, default: _T) -> float | _T:
    text = _text(name)
    try:
        seconds = math.nan if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not math.isnan(seconds):
        return seconds
    return default if text is None else _bad(name, text, "no number of seconds", default)


def _ratio(name: str, default: float) -> float:
    text = _text(name)
    try:
        ratio = default if text is None else float(text)
    except ValueError:
        ratio = math.nan
    return ratio if 0.0 <= ratio <= 1.0 else _bad(name, text, "no number from 0 to 1", default)


def _choice(name: str, default: str, others: tuple[str, ...]) -> str:
    text = _text(name)
    if text is None or text in (default, *others):
        return text or default
    return _bad(name, text, "none of " + ", ".join((default, *others)), default)


def _bad(name: str, text: str | None, what: str, default: _T) -> _T:
    from mlflow_fasttrace._internal.base import log  # only here: a program may never need it

    shown = str(default).lower() if isinstance(default, bool) else default
    then = "it counts as not set" if default is None else f"{shown} applies"
    log.warn(f"{name} is {what}: {text!r}. Correct or remove it; until then {then}.")
    return default


# ---- whether the core is in force ----


def disabled() -> bool:
    """``MLFLOW_FASTTRACE_DISABLE``: everything runs on MLflow itself."""
    return _truth("MLFLOW_FASTTRACE_DISABLE", False)


def installs() -> bool:
    """``MLFLOW_FASTTRACE``: MLflow runs on the core as soon as it is imported."""
    return _truth("MLFLOW_FASTTRACE", False) and not disabled()


def not_covered() -> str | None:
    """Why the environment asks for what only MLflow itself does; None where it does not."""
    if not _truth("MLFLOW_USE_DEFAULT_TRACER_PROVIDER", True):
        return (
            "MLFLOW_USE_DEFAULT_TRACER_PROVIDER=false gives MLflow's spans to the program's own "
            "OpenTelemetry provider"
        )
    if _truth("IS_IN_DB_MODEL_SERVING_ENV", False):
        return "Databricks serves this model, and its traces go with its answers"
    if "." in (_text("MLFLOW_TRACING_DESTINATION") or ""):
        return "MLFLOW_TRACING_DESTINATION names a location in Unity Catalog"
    return None


# ---- where traces go ----


def tracking_uri() -> str | None:
    """``MLFLOW_TRACKING_URI``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def set_tracking_uri(uri: str | None) -> None:
    """Sets or removes ``MLFLOW_TRACKING_URI``, as MLflow does, so that child processes inherit it."""
    if uri is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = uri


def experiment_name() -> str | None:
    """``MLFLOW_EXPERIMENT_NAME``."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or None


def set_experiment_id(experiment_id: str) -> None:
    """Sets ``MLFLOW_EXPERIMENT_ID``, as MLflow does, so that child processes inherit it."""
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment_id


def experiment_id() -> str | None:
    """``MLFLOW_EXPERIMENT_ID``, without what a file of it may bring."""
    return _text("MLFLOW_EXPERIMENT_ID")


def trace_location() -> str | None:
    """The experiment's id in ``MLFLOW_TRACING_DESTINATION``; None where that names a location in
    Unity Catalog."""
    location = _text("MLFLOW_TRACING_DESTINATION")
    return location if location and "." not in location else None


def workspace() -> str | None:
    """``MLFLOW_WORKSPACE``."""
    return _text("MLFLOW_WORKSPACE")


def user_name() -> str | None:
    """``MLFLOW_TRACKING_USERNAME``."""
    return os.environ.get("MLFLOW_TRACKING_USERNAME") or None


def password() -> str | None:
    """``MLFLOW_TRACKING_PASSWORD``."""
    return os.environ.get("MLFLOW_TRACKING_PASSWORD") or None


def token() -> str | None:
    """``MLFLOW_TRACKING_TOKEN``, without the line's end that a file of it may bring."""
    return os.environ.get("MLFLOW_TRACKING_TOKEN", "").strip("\r\n") or None


def trusts_any_server() -> bool:
    """``MLFLOW_TRACKING_INSECURE_TLS``: a tracking server's certificate is not checked."""
    return _truth("MLFLOW_TRACKING_INSECURE_TLS", False)


def server_certificates() -> str | None:
    """``MLFLOW_TRACKING_SERVER_CERT_PATH``: a file or folder of the certificates that are trusted."""
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None


def client_certificate() -> str | None:
    """``MLFLOW_TRACKING_CLIENT_CERT_PATH``."""
    return os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH") or None


def signs_by_mlflow() -> bool:
    """``MLFLOW_TRACKING_AWS_SIGV4``, ``MLFLOW_TRACKING_AUTH``, or Databricks' runtime: what only MLflow's own
    code knows goes with a request."""
    names = ("MLFLOW_TRACKING_AUTH", "DATABRICKS_RUNTIME_VERSION")
    return _truth("MLFLOW_TRACKING_AWS_SIGV4", False) or any(map(os.environ.get, names))


def request_seconds() -> float | None:
    """``MLFLOW_HTTP_REQUEST_TIMEOUT``: how long a request may take."""
    return _positive(_seconds("MLFLOW_HTTP_REQUEST_TIMEOUT", None))


def follows_redirects() -> bool:
    """``MLFLOW_ALLOW_HTTP_REDIRECTS``: a tracking server may send the sender on."""
    return _truth("MLFLOW_ALLOW_HTTP_REDIRECTS", True)


def keepalive() -> tuple[int, int, int] | None:
    """``MLFLOW_HTTP_TCP_KEEPALIVE``: after how many seconds a silent connection is probed, the seconds between
    two probes, and how many may get no answer; None: it is not."""
    if not _truth("MLFLOW_HTTP_TCP_KEEPALIVE", True):
        return None
    return (
        _integer("MLFLOW_HTTP_TCP_KEEPALIVE_IDLE", 30, "seconds"),
        _integer("MLFLOW_HTTP_TCP_KEEPALIVE_INTERVAL", 10, "seconds"),
        _integer("MLFLOW_HTTP_TCP_KEEPALIVE_COUNT", 3, "probes"),
    )


def credentials() -> list[str]:
    """``NAME=value`` of all that decides how a sender signs in. Secrets: they go into a hash and
    nowhere else."""
    signs = bool(os.environ.get("MLFLOW_TRACKING_AWS_SIGV4"))
    names = _CREDENTIALS + _SIGNING if signs else _CREDENTIALS
    return [f"{name}={os.environ.get(name, '')}" for name in names]


def exports_otlp() -> bool:
    """``MLFLOW_ENABLE_OTLP_EXPORTER``: OpenTelemetry's variables are meant for traces."""
    return _truth("MLFLOW_ENABLE_OTLP_EXPORTER", True)


def dual_export() -> bool:
    """``MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT``: traces that go to a collector go where they would go
    without it, too."""
    return _truth("MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT", False)


def genai_names() -> bool:
    """``MLFLOW_ENABLE_OTEL_GENAI_SEMCONV``: a collector gets spans in the words of OpenTelemetry's
    conventions for generative AI."""
    return _truth("MLFLOW_ENABLE_OTEL_GENAI_SEMCONV", False)


# ---- what is recorded ----


def sampling_ratio() -> float:
    """``MLFLOW_TRACE_SAMPLING_RATIO``: the share of traces that is recorded, from 0 to 1."""
    return _ratio("MLFLOW_TRACE_SAMPLING_RATIO", 1.0)


def keep_rules() -> str | None:
    """``MLFLOW_FASTTRACE_KEEP``: the rules of tail sampling, as the sender reads them."""
    return _text("MLFLOW_FASTTRACE_KEEP")


def active_model_id() -> str | None:
    """``MLFLOW_ACTIVE_MODEL_ID``: the model that traces belong to unless the program sets another."""
    names = ("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def propagates() -> bool:
    """``MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT``: OpenTelemetry's process-wide context and the core
    see each other."""
    return _truth("MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT", False)


def extracts_attachments() -> bool:
    """``MLFLOW_TRACE_EXTRACT_ATTACHMENTS``: binary content is taken out of inputs and outputs."""
    return _truth("MLFLOW_TRACE_EXTRACT_ATTACHMENTS", True)


def max_attachment_bytes() -> int | None:
    """``MLFLOW_TRACE_MAX_ATTACHMENT_SIZE``: bytes that one attachment may have; None: any number."""
    limit = _integer("MLFLOW_TRACE_MAX_ATTACHMENT_SIZE", None, "bytes")
    return limit if limit is not None and limit > 0 else None


def trace_timeout_seconds() -> float | None:
    """``MLFLOW_TRACE_TIMEOUT_SECONDS``: how long a trace may take; None: any time."""
    return _positive(_seconds("MLFLOW_TRACE_TIMEOUT_SECONDS", None))


def trace_timeout_interval_seconds() -> float:
    """``MLFLOW_TRACE_TIMEOUT_CHECK_INTERVAL_SECONDS``: how often that is looked at."""
    return _positive(_seconds("MLFLOW_TRACE_TIMEOUT_CHECK_INTERVAL_SECONDS", None)) or 1.0


def _positive(number: float | None) -> float | None:
    return number if number is not None and number > 0 else None


# ---- how it is delivered ----


def asynchronous() -> bool:
    """``MLFLOW_ENABLE_ASYNC_TRACE_LOGGING``: a trace may end before it is delivered."""
    return _truth("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", True)


def sender_mode() -> str:
    """``MLFLOW_FASTTRACE_SENDER``: ``process`` (default), ``thread`` or ``none``."""
    return _choice("MLFLOW_FASTTRACE_SENDER", "process", ("thread", "none"))


def ring_bytes() -> int:
    """``MLFLOW_FASTTRACE_RING_BYTES``: the size of a ring, in whole pages."""
    value = _integer("MLFLOW_FASTTRACE_RING_BYTES", 4 << 20, "bytes")
    return min(max(value, _RING_BYTES_MIN), _RING_BYTES_MAX) // _PAGE_BYTES * _PAGE_BYTES


def spool_dir() -> str | None:
    """``MLFLOW_FASTTRACE_SPOOL_DIR``: the folder of all spools; None: the user's state folder."""
    return os.environ.get("MLFLOW_FASTTRACE_SPOOL_DIR") or None


def spool_on_disk() -> bool:
    """``MLFLOW_FASTTRACE_SPOOL``: what waits for delivery may be written to disk."""
    return _truth("MLFLOW_FASTTRACE_SPOOL", True, (*_TRUE, "yes", "on"), (*_FALSE, "no", "off"))


def spool_max_bytes() -> int:
    """``MLFLOW_FASTTRACE_SPOOL_MAX_BYTES``: what may wait in a spool."""
    return max(_integer("MLFLOW_FASTTRACE_SPOOL_MAX_BYTES", 1 << 30, "bytes"), _SPOOL_BYTES_MIN)


def open_trace_seconds() -> float:
    """``MLFLOW_FASTTRACE_OPEN_TRACE_SECONDS``: how long the ended spans of an open trace wait for its end."""
    return max(0.0, _seconds("MLFLOW_FASTTRACE_OPEN_TRACE_SECONDS", 4.0))


def exit_timeout_seconds() -> float:
    """``MLFLOW_FASTTRACE_EXIT_TIMEOUT``: how long an exiting process waits for delivery."""
    return max(0.0, _seconds("MLFLOW_FASTTRACE_EXIT_TIMEOUT", 5.0))


def container_exit_timeout_seconds() -> float:
    """``MLFLOW_FASTTRACE_CONTAINER_EXIT_TIMEOUT``: how long an exiting process waits where nothing that it leaves
    outlives it."""
    return max(0.0, _seconds("MLFLOW_FASTTRACE_CONTAINER_EXIT_TIMEOUT", 120.0))


def lock_patience_seconds() -> float:
    """``MLFLOW_FASTTRACE_AGENT_PATIENCE``, which a program sets for a sender that goes on with what it leaves: how
    long that waits for the spool's lock."""
    return max(0.0, _seconds("MLFLOW_FASTTRACE_AGENT_PATIENCE", 0.0))


# ---- for other processes, and for MLflow's code in this one ----


def of_child(**variables: str) -> dict[str, str]:
    """The environment of a child process: this one's with some variables set."""
    return {**os.environ, **variables}


def python_path() -> list[str]:
    """``PYTHONPATH``: the folders in it."""
    return [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


@contextlib.contextmanager
def changed(**variables: str | None) -> Iterator[None]:
    """Set variables for the time of the block; None stands for one that is not set."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def disable() -> None:
    """Sets ``MLFLOW_FASTTRACE_DISABLE`` for this process: a sender is never traced."""
    os.environ["MLFLOW_FASTTRACE_DISABLE"] = "1"


def stop_retries_of_mlflow() -> None:
    """Sets ``MLFLOW_HTTP_REQUEST_MAX_RETRIES`` to 0 for this process: while MLflow's client tries a
    request again nothing else is delivered. The sender does that itself."""
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"


def shown() -> list[tuple[str, str]]:
    """Names and values of the variables that are set and that decide how traces are recorded. The
    values may hold credentials."""
    return [
        (name, value)
        for name, value in sorted(os.environ.items())
        if name.startswith("MLFLOW_FASTTRACE") or name in _SHOWN
    ]
