"""MLflow Tracing on a C core: ``import mlflow_fasttrace as mlflow``.

The tracing functions below are this package's; every other name is MLflow's own and is imported
when it is first asked for. Once the program traces, or asks for such a name, MLflow itself runs on the core too
(``install()``), so that its integrations, and whoever imports ``mlflow``, share one current span with this package.
"""

from __future__ import annotations

import sys
from typing import Any

from mlflow_fasttrace._internal.base import mlflow_names
from mlflow_fasttrace._internal.base.imports import imported
from mlflow_fasttrace._internal.base.version import VERSION
from mlflow_fasttrace._internal.config import engine
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

#: The modules of this package whose names MLflow has for modules, too.
_MLFLOWS_TOO = frozenset({"entities", "otel", "tracing"})

_SUBMODULES = frozenset({*_MLFLOWS_TOO, "fluent", "traces"})

#: The public names that do not come from MLflow's module as they are.
_OWN = frozenset(
    {*_FLUENT, *_TRACES, *_AFTER_FLUSH, *_INSTALL, *_SUBMODULES, "SpanType", "autolog", "context"}
)

#: The functions by which tracing begins.
_BEGIN = frozenset({"add_trace", "log_trace", "start_span", "start_span_no_context", "trace"})

#: The names that are stored here since they were asked for.
_stored: set[str] = set()
#: This package's modules, while MLflow's are in their places.
_put_aside: dict[str, Any] = {}


def _forget_own() -> None:
    for name in (*_stored, *_MLFLOWS_TOO):
        globals().pop(name, None)
    for name in _MLFLOWS_TOO:
        module = sys.modules.pop(own := f"mlflow_fasttrace.{name}", None)
        if module is not None and module.__name__ == own:
            _put_aside[name] = module


def _take_back_own() -> None:
    for name in _MLFLOWS_TOO:
        module = sys.modules.get(own := f"mlflow_fasttrace.{name}")
        if module is not None and module.__name__ != own:  # MLflow's
            del sys.modules[own]
            globals().pop(name, None)
        if name in _put_aside:
            sys.modules[own] = globals()[name] = _put_aside.pop(name)


def _in_notebook() -> bool:
    """Whether this process is a notebook's kernel, or IPython's shell."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and get_ipython() is not None


def _share_with_mlflow() -> None:
    imported("mlflow_fasttrace._internal.seams.install").follow()


def _hand_over() -> None:
    # Where it is not loaded nothing was chosen here.
    if (choices := sys.modules.get("mlflow_fasttrace._internal.seams.choices")) is not None:
        choices.hand_over()


engine.when_mlflow(_forget_own)
engine.when_mlflow(_hand_over)
engine.when_unsettled(_take_back_own)
engine.when_core(_share_with_mlflow)
aliases.enable(_SUBMODULES)

_of_mlflow, __dir__ = mlflow_names.take_over(globals(), "mlflow")


def __getattr__(name: str) -> Any:
    # "from mlflow_fasttrace import x" asks here before it looks for a submodule x.
    if name.startswith("_"):
        return _of_mlflow(name)
    reason = engine.why_mlflow()
    if name in _SUBMODULES:
        return imported(f"mlflow_fasttrace.{name}")
    if name in _INSTALL:
        return getattr(imported("mlflow_fasttrace._internal.seams.install"), name)
    if name == "autolog":
        return imported("mlflow_fasttrace._internal.seams.autolog").autolog
    if reason is not None:
        if name in _BEGIN:
            engine.settle()
        if name == "SpanType":
            return imported("mlflow_fasttrace.entities").SpanType
        return _of_mlflow(name)
    if name in _BEGIN and _in_notebook():
        # MLflow's code shows the traces of each cell.
        imported("mlflow_fasttrace._internal.seams.install").install()
        imported("mlflow")
    if name in _FLUENT:
        value = getattr(imported("mlflow_fasttrace.fluent"), name)
    elif name in _TRACES:
        value = getattr(imported("mlflow_fasttrace.traces"), name)
    elif name == "context":
        value = imported("mlflow_fasttrace.tracing").context
    elif name in _AFTER_FLUSH:
        value = imported("mlflow_fasttrace.traces").after_flush(name)
    elif name == "SpanType":
        value = imported("mlflow_fasttrace.entities").SpanType
    else:
        imported("mlflow_fasttrace._internal.seams.install").install()
        # Not stored here, since a program may set the name in MLflow's own module.
        return _of_mlflow(name)
    _stored.add(name)
    globals()[name] = value
    return value


# What records is imported here and not when it is asked for: a signal handler that starts a span in the middle of
# that import would find half of a module.
if engine.why_mlflow() is None:
    for _module in (
        "fluent",
        "traces",
        "tracing",
        "_internal.seams.install",
        "_internal.seams.choices",
    ):
        imported(f"mlflow_fasttrace.{_module}")
