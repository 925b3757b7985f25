"""The environment variables of this package, and those of MLflow that it reads: all are read here.
Those of OpenTelemetry are in ``otlp.py``.

A docstring says of each variable what it does, in a paragraph that begins with its name: .ci/configuration.py makes
the table of docs/configuration.md of them, and of the defaults that stand beside the names in the code.

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
    """``MLFLOW_FASTTRACE_DISABLE``: ``1``: everything runs on MLflow itself."""
    return _truth("MLFLOW_FASTTRACE_DISABLE", False)


def installs() -> bool:
    """``MLFLOW_FASTTRACE``: ``1``: MLflow runs on the core as soon as it is imported. ``mlflow-fasttrace run`` sets it
    for a program and its children."""
    return _truth("MLFLOW_FASTTRACE", False) and not disabled()


def not_covered() -> str | None:
    """Why the environment asks for what only MLflow itself does; None where it does not.

    ``MLFLOW_USE_DEFAULT_TRACER_PROVIDER``: ``false``: MLflow's spans go to the program's own OpenTelemetry
    provider, and MLflow itself records.

    ``IS_IN_DB_MODEL_SERVING_ENV``: ``true``, as Databricks sets it where it serves a model: MLflow itself records.
    """
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
    """``MLFLOW_TRACKING_URI``: where traces go: ``http(s)://...``, the URI of a database, or a folder. Without it they
    go to ``./mlruns`` where that holds experiments, otherwise to ``sqlite:///mlflow.db``; with ``mlflow-tracing``
    alone, which has neither, they wait."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def set_tracking_uri(uri: str | None) -> None:
    """Sets or removes ``MLFLOW_TRACKING_URI``, as MLflow does, so that child processes inherit it."""
    if uri is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = uri


def experiment_name() -> str | None:
    """``MLFLOW_EXPERIMENT_NAME``: the experiment of the traces, which is made if it is missing. It goes before
    ``MLFLOW_EXPERIMENT_ID``."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or None


def set_experiment_id(experiment_id: str) -> None:
    """Sets ``MLFLOW_EXPERIMENT_ID``, as MLflow does, so that child processes inherit it."""
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment_id


def experiment_id() -> str | None:
    """``MLFLOW_EXPERIMENT_ID``: the id of the experiment of the traces. Not set: ``0``, the default experiment.

    The line's end that a file of it may bring is left out.
    """
    return _text("MLFLOW_EXPERIMENT_ID")


def trace_location() -> str | None:
    """``MLFLOW_TRACING_DESTINATION``: the id of the experiment, which goes before ``MLFLOW_EXPERIMENT_NAME`` and
    ``MLFLOW_EXPERIMENT_ID``; with a location in Unity Catalog (``catalog.schema``) MLflow itself records.

    None where it names a location in Unity Catalog.
    """
    location = _text("MLFLOW_TRACING_DESTINATION")
    return location if location and "." not in location else None


def workspace() -> str | None:
    """``MLFLOW_WORKSPACE``: the workspace of the server, which goes with each request."""
    return _text("MLFLOW_WORKSPACE")


def user_name() -> str | None:
    """``MLFLOW_TRACKING_USERNAME``: the user that signs in, also shown as that of the traces. What is missing of user
    and password is looked for in ``~/.mlflow/credentials``."""
    return os.environ.get("MLFLOW_TRACKING_USERNAME") or None


def password() -> str | None:
    """``MLFLOW_TRACKING_PASSWORD``: that user's password."""
    return os.environ.get("MLFLOW_TRACKING_PASSWORD") or None


def token() -> str | None:
    """``MLFLOW_TRACKING_TOKEN``: a bearer token, where there is no user with a password.

    The line's end that a file of it may bring is left out.
    """
    return os.environ.get("MLFLOW_TRACKING_TOKEN", "").strip("\r\n") or None


def trusts_any_server() -> bool:
    """``MLFLOW_TRACKING_INSECURE_TLS``: ``true``: a tracking server's certificate is not checked."""
    return _truth("MLFLOW_TRACKING_INSECURE_TLS", False)


def server_certificates() -> str | None:
    """``MLFLOW_TRACKING_SERVER_CERT_PATH``: a file or folder of the certificates that are trusted, in the place of the
    usual ones."""
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None


def client_certificate() -> str | None:
    """``MLFLOW_TRACKING_CLIENT_CERT_PATH``: the certificate that a server is shown, with its key."""
    return os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH") or None


def signs_by_mlflow() -> bool:
    """Whether only MLflow's own code knows what goes with a request.

    ``MLFLOW_TRACKING_AWS_SIGV4``: ``true``: requests are signed for AWS, with ``AWS_ACCESS_KEY_ID``,
    ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN`` or ``AWS_PROFILE``.

    ``MLFLOW_TRACKING_AUTH``: the name of the plugin that signs requests.

    ``DATABRICKS_RUNTIME_VERSION``: set by Databricks: MLflow's code signs requests.
    """
    names = ("MLFLOW_TRACKING_AUTH", "DATABRICKS_RUNTIME_VERSION")
    return _truth("MLFLOW_TRACKING_AWS_SIGV4", False) or any(map(os.environ.get, names))


def request_seconds() -> float | None:
    """``MLFLOW_HTTP_REQUEST_TIMEOUT``: seconds that a request to a tracking server may take; not set: 60."""
    return _positive(_seconds("MLFLOW_HTTP_REQUEST_TIMEOUT", None))


def follows_redirects() -> bool:
    """``MLFLOW_ALLOW_HTTP_REDIRECTS``: ``false``: a redirect of a tracking server is not followed."""
    return _truth("MLFLOW_ALLOW_HTTP_REDIRECTS", True)


def keepalive() -> tuple[int, int, int] | None:
    """After how many seconds a silent connection is probed, the seconds between two probes, and how many may get no
    answer; None: it is not.

    ``MLFLOW_HTTP_TCP_KEEPALIVE``: ``false``: a silent connection to a tracking server is not probed.

    ``MLFLOW_HTTP_TCP_KEEPALIVE_IDLE``: seconds of silence before the first probe.

    ``MLFLOW_HTTP_TCP_KEEPALIVE_INTERVAL``: seconds between two probes.

    ``MLFLOW_HTTP_TCP_KEEPALIVE_COUNT``: probes that may get no answer before the connection counts as lost.
    """
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
    """``MLFLOW_ENABLE_OTLP_EXPORTER``: ``false``: OpenTelemetry's variables are not meant for traces of MLflow."""
    return _truth("MLFLOW_ENABLE_OTLP_EXPORTER", True)


def dual_export() -> bool:
    """``MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT``: ``true``: traces that go to a collector also go where they would go
    without it."""
    return _truth("MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT", False)


def genai_names() -> bool:
    """``MLFLOW_ENABLE_OTEL_GENAI_SEMCONV``: ``true``: a collector gets spans in the words of OpenTelemetry's
    conventions for generative AI."""
    return _truth("MLFLOW_ENABLE_OTEL_GENAI_SEMCONV", False)


# ---- what is recorded ----


def sampling_ratio() -> float:
    """``MLFLOW_TRACE_SAMPLING_RATIO``: the share of traces that is recorded, from 0 to 1, decided when a trace
    begins."""
    return _ratio("MLFLOW_TRACE_SAMPLING_RATIO", 1.0)


def keep_rules() -> str | None:
    """``MLFLOW_FASTTRACE_KEEP``: which traces are delivered, decided when a trace has ended: ``error``, ``slow>2s``,
    ``5%``, with commas between them. Not set: all of them."""
    return _text("MLFLOW_FASTTRACE_KEEP")


def active_model_id() -> str | None:
    """``MLFLOW_ACTIVE_MODEL_ID``: the model that traces belong to unless the program sets another."""
    names = ("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def propagates() -> bool:
    """``MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT``: ``true``: spans of other OpenTelemetry libraries nest under MLflow's,
    and MLflow's under theirs."""
    return _truth("MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT", False)


def extracts_attachments() -> bool:
    """``MLFLOW_TRACE_EXTRACT_ATTACHMENTS``: ``false``: images, audio and files stay in inputs and outputs, as text.
    ``Attachment`` objects are uploaded all the same."""
    return _truth("MLFLOW_TRACE_EXTRACT_ATTACHMENTS", True)


def max_attachment_bytes() -> int | None:
    """``MLFLOW_TRACE_MAX_ATTACHMENT_SIZE``: bytes that one attachment may have; larger ones are left out. Not set: any
    number."""
    limit = _integer("MLFLOW_TRACE_MAX_ATTACHMENT_SIZE", None, "bytes")
    return limit if limit is not None and limit > 0 else None


def trace_timeout_seconds() -> float | None:
    """``MLFLOW_TRACE_TIMEOUT_SECONDS``: seconds that a trace may take before its root is ended with an error. Not set:
    any time."""
    return _positive(_seconds("MLFLOW_TRACE_TIMEOUT_SECONDS", None))


def trace_timeout_interval_seconds() -> float:
    """``MLFLOW_TRACE_TIMEOUT_CHECK_INTERVAL_SECONDS``: seconds between two looks at how long traces take."""
    return _positive(_seconds("MLFLOW_TRACE_TIMEOUT_CHECK_INTERVAL_SECONDS", None)) or 1.0


def _positive(number: float | None) -> float | None:
    return number if number is not None and number > 0 else None


# ---- how it is delivered ----


def asynchronous() -> bool:
    """``MLFLOW_ENABLE_ASYNC_TRACE_LOGGING``: ``false``: a trace's root returns when the trace is delivered."""
    return _truth("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", True)


def sender_mode() -> str:
    """``MLFLOW_FASTTRACE_SENDER``: who delivers: a ``process`` of its own, a ``thread`` of the program, or ``none``: a
    later process, or ``mlflow-fasttrace send``."""
    return _choice("MLFLOW_FASTTRACE_SENDER", "process", ("thread", "none"))


def ring_bytes() -> int:
    """``MLFLOW_FASTTRACE_RING_BYTES``: bytes of shared memory of a process, 65536 to 1073741824; what a burst needs
    besides is taken from memory, then from the disk."""
    value = _integer("MLFLOW_FASTTRACE_RING_BYTES", 4 << 20, "bytes")
    return min(max(value, _RING_BYTES_MIN), _RING_BYTES_MAX) // _PAGE_BYTES * _PAGE_BYTES


def spool_dir() -> str | None:
    """``MLFLOW_FASTTRACE_SPOOL_DIR``: the folder of what waits for delivery, of locks and of the sender's log. Not set:
    ``mlflow-fasttrace`` in the user's state folder."""
    return os.environ.get("MLFLOW_FASTTRACE_SPOOL_DIR") or None


def spool_on_disk() -> bool:
    """``MLFLOW_FASTTRACE_SPOOL``: ``off``: nothing is written to disk; what waits is in memory, 64 MB at most."""
    return _truth("MLFLOW_FASTTRACE_SPOOL", True, (*_TRUE, "yes", "on"), (*_FALSE, "no", "off"))


def spool_max_bytes() -> int:
    """``MLFLOW_FASTTRACE_SPOOL_MAX_BYTES``: bytes that may wait in that folder for one destination; past them new
    traces are refused, whole. At least 65536."""
    return max(_integer("MLFLOW_FASTTRACE_SPOOL_MAX_BYTES", 1 << 30, "bytes"), _SPOOL_BYTES_MIN)


def open_trace_seconds() -> float:
    """``MLFLOW_FASTTRACE_OPEN_TRACE_SECONDS``: seconds after which the ended spans of a trace that goes on are
    delivered."""
    return max(0.0, _seconds("MLFLOW_FASTTRACE_OPEN_TRACE_SECONDS", 4.0))


def exit_timeout_seconds() -> float:
    """``MLFLOW_FASTTRACE_EXIT_TIMEOUT``: seconds that an exiting process waits for delivery, at most."""
    return max(0.0, _seconds("MLFLOW_FASTTRACE_EXIT_TIMEOUT", 5.0))


def container_exit_timeout_seconds() -> float:
    """``MLFLOW_FASTTRACE_CONTAINER_EXIT_TIMEOUT``: seconds that an exiting process waits for delivery, at most, where
    nothing that it leaves outlives it: the main process of a container."""
    return max(0.0, _seconds("MLFLOW_FASTTRACE_CONTAINER_EXIT_TIMEOUT", 120.0))


def lock_patience_seconds() -> float:
    """``MLFLOW_FASTTRACE_AGENT_PATIENCE``: seconds that a sender waits for the spool's lock; a program sets it for a
    sender that goes on with what it leaves."""
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
