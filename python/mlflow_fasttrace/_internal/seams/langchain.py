"""MLflow's tracer of LangChain and LangGraph looks for the right parent of a span upwards from the current one, by
``get_span_from_id()``. In MLflow a trace in flight holds all of its spans; here ended ones are let go, but in traces
that this tracer has a span in."""

from __future__ import annotations

import sys
from typing import Any

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base.patching import replace_attribute, when_loaded

_TRACER = "mlflow.langchain.langchain_tracer"


def keep_spans_when_loaded() -> None:
    """Keep the spans of the tracer's traces as soon as MLflow's integration is loaded."""
    when_loaded(_TRACER, _keep_spans)


def _keep_spans() -> None:
    tracer = getattr(sys.modules[_TRACER], "MlflowLangchainTracer", None)
    own = vars(tracer).get("_start_span") if tracer is not None else None
    if own is None:
        return

    def start_span(self: Any, *args: Any, **kwargs: Any) -> Any:
        span = own(self, *args, **kwargs)
        if type(span) is _core.LiveSpan:
            span._trace.keep_spans()
        return span

    replace_attribute(tracer, "_start_span", start_span)
