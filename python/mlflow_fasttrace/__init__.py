"""MLflow Tracing on a C core: ``import mlflow_fasttrace as mlflow``.

The tracing functions below are this package's; every other name is MLflow's own and is imported
when it is first asked for. From then on MLflow itself runs on the core too (``install()``), so that
its integrations, and whoever imports ``mlflow``, share one current span with this package.
"""

from __future__ import annotations

import importlib
from typing import Any

from mlflow_fasttrace._internal.base import mlflow_names
from mlflow_fasttrace._internal.base.version import VERSION
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.seams import aliases

__version__ = VERSION

_FLUENT = frozenset(
    {
        "get_active_trace_id",
        "get_current_active_span",
        "get_last_active_trace_id",
        "get_tracking_uri",
        "set_experiment",
        "set_tracking_uri",
        "start_span",
        "start_span_no_context",
        "trace",
        "update_current_trace",
    }
)

_TRACES = frozenset(
    {
        "add_trace",
        "delete_trace_tag",
        "flush_trace_async_logging",
        "get_trace",
        "log_assessment",
        "log_expectation",
        "log_feedback",
        "log_trace",
        "set_trace_tag",
    }
)

#: MLflow's own functions that read traces, which may still be on their way to the server.
_AFTER_FLUSH = frozenset(
    {
        "delete_assessment",
        "get_assessment",
        "log_issue",
        "override_feedback",
        "search_sessions",
        "search_traces",
        "update_assessment",
    }
)

_INSTALL = frozenset({"install", "is_installed", "uninstall"})

_SUBMODULES = frozenset({"entities", "fluent", "otel", "traces", "tracing"})

#: The public names that do not come from MLflow's module as they are.
_OWN = frozenset(
    {*_FLUENT, *_TRACES, *_AFTER_FLUSH, *_INSTALL, *_SUBMODULES, "SpanType", "autolog", "context"}
)

_reason = environment.not_covered()
#: Whether every name is MLflow's own: where the core is not wanted, or cannot be.
_PURE = environment.disabled() or _reason is not None
if _reason is not None and not environment.disabled():
    from mlflow_fasttrace._internal.base.log import logger as _logger

    _logger.warning("Tracing runs on MLflow itself: %s.", _reason)
if not _PURE:
    try:
        from mlflow_fasttrace import _core as _core
    except ImportError as error:
        from mlflow_fasttrace._internal.base.log import logger as _logger

        _logger.warning("The C core cannot be loaded (%s); tracing runs on MLflow itself.", error)
        _PURE = True

aliases.enable(frozenset() if _PURE else _SUBMODULES)


_of_mlflow, __dir__ = mlflow_names.take_over(globals(), "mlflow")


def __getattr__(name: str) -> Any:
    # "from mlflow_fasttrace import x" asks here before it looks for a submodule x.
    if name.startswith("_"):
        return _of_mlflow(name)
    if name in _SUBMODULES and not _PURE:
        return importlib.import_module(f"mlflow_fasttrace.{name}")
    if name in _INSTALL:
        value = getattr(importlib.import_module("mlflow_fasttrace._internal.seams.install"), name)
    elif name == "autolog":
        value = importlib.import_module("mlflow_fasttrace._internal.seams.autolog").autolog
    elif _PURE:
        value = _of_mlflow(name)
    elif name in _FLUENT:
        value = getattr(importlib.import_module("mlflow_fasttrace.fluent"), name)
    elif name in _TRACES:
        value = getattr(importlib.import_module("mlflow_fasttrace.traces"), name)
    elif name == "context":
        value = importlib.import_module("mlflow_fasttrace.tracing").context
    elif name in _AFTER_FLUSH:
        value = importlib.import_module("mlflow_fasttrace.traces").after_flush(name)
    elif name == "SpanType":
        value = importlib.import_module("mlflow_fasttrace.entities").SpanType
    else:
        importlib.import_module("mlflow_fasttrace._internal.seams.install").install()
        # Not stored here, since a program may set the name in MLflow's own module.
        return _of_mlflow(name)
    globals()[name] = value
    return value
