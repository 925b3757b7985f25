"""MLflow Tracing on a C core: ``import mlflow_fasttrace as mlflow``.

The tracing functions below are this package's; every other name is MLflow's own and is imported
when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from mlflow_fasttrace import _settings

__version__ = "0.1.0"

_FLUENT = frozenset(
    {
        "flush_trace_async_logging",
        "get_active_trace_id",
        "get_current_active_span",
        "get_last_active_trace_id",
        "get_trace",
        "get_tracking_uri",
        "set_experiment",
        "set_tracking_uri",
        "start_span",
        "trace",
        "update_current_trace",
    }
)

#: MLflow's own functions on traces that may still be on their way.
_AFTER_FLUSH = frozenset(
    {
        "delete_assessment",
        "delete_trace_tag",
        "get_assessment",
        "log_assessment",
        "log_expectation",
        "log_feedback",
        "override_feedback",
        "search_traces",
        "set_trace_tag",
        "update_assessment",
    }
)

_SUBMODULES = frozenset({"entities", "fluent", "sender"})

_PURE = _settings.disabled()
if not _PURE:
    try:
        from mlflow_fasttrace import _core as _core
    except ImportError as error:
        import logging

        logging.getLogger("mlflow_fasttrace").warning(
            "The C core cannot be loaded (%s); tracing runs on MLflow itself.", error
        )
        _PURE = True


def __getattr__(name: str) -> Any:
    # "from mlflow_fasttrace import x" asks here before it looks for a submodule x: ours must not be
    # looked for in MLflow, which would import it.
    if name.startswith("_"):
        raise AttributeError(f"module 'mlflow_fasttrace' has no attribute {name!r}")
    if name in _SUBMODULES:
        return importlib.import_module(f"mlflow_fasttrace.{name}")
    if _PURE:
        value = getattr(importlib.import_module("mlflow"), name)
    elif name in _FLUENT:
        value = getattr(importlib.import_module("mlflow_fasttrace.fluent"), name)
    elif name in _AFTER_FLUSH:
        value = importlib.import_module("mlflow_fasttrace.fluent").after_flush(name)
    elif name == "SpanType":
        value = importlib.import_module("mlflow_fasttrace.entities").SpanType
    else:
        # Not kept: what MLflow's own module says may change.
        return getattr(importlib.import_module("mlflow"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FLUENT, *_AFTER_FLUSH, *_SUBMODULES, "SpanType"})
