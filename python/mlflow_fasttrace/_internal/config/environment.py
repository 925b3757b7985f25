"""The environment variables of this package, and the folders and names that follow from them."""

from __future__ import annotations

import os

DEFAULT_RING_BYTES = 4 << 20
DEFAULT_SPOOL_BYTES = 1 << 30


_FALSE = ("false", "0")


def ring_bytes() -> int:
    value = _integer("MLFLOW_FASTTRACE_RING_BYTES", DEFAULT_RING_BYTES)
    # Whole pages, and within what the core takes.
    return min(max(value, 64 << 10), 1 << 30) // 4096 * 4096


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
