"""Two methods that MLflow's LlamaIndex integration lacks. LlamaIndex hands the context of a trace to a workflow that
runs in another task or process, by its dispatcher; MLflow's handler of its spans takes no part in that.
They become the handler's when the integration is loaded."""

from __future__ import annotations

import sys
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mlflow_fasttrace import _core, tracing
from mlflow_fasttrace._internal.base.patching import replace_attribute, when_loaded
from mlflow_fasttrace._internal.spans.otel_context import parent_of

_TRACER = "mlflow.llama_index.tracer"
_KEY = "mlflow"


def complete_when_loaded() -> None:
    """Give the handler its methods as soon as MLflow's integration is loaded."""
    when_loaded(_TRACER, _complete)


def _complete() -> None:
    handler = getattr(sys.modules[_TRACER], "MlflowSpanHandler", None)
    if handler is None:
        return
    for method in (capture_propagation_context, restore_propagation_context):
        if method.__name__ not in vars(handler):  # a later version of MLflow may have its own
            replace_attribute(handler, method.__name__, method)


def capture_propagation_context(self: Any) -> dict[str, Any]:
    """What another task or process needs to go on with the current trace.

    Returns:
        A dictionary of JSON values; empty where no span is current.
    """
    if not isinstance(_core.current(), _core.LiveSpan):
        return {}
    return {_KEY: tracing.get_tracing_context_headers_for_http_request()}


def restore_propagation_context(self: Any, context: dict[str, Any]) -> None:
    """Go on, for the rest of this task or thread, with the trace that was captured. Where that trace is
    current already, the current span stays.

    Args:
        context: What ``capture_propagation_context`` returned.
    """
    headers = context.get(_KEY)
    if not isinstance(headers, dict):
        return
    span = get_current_span(TraceContextTextMapPropagator().extract(headers, Context()))
    current = _core.current()
    if getattr(current, "_trace_id", None) == f"{span.get_span_context().trace_id:032x}":
        return
    if (parent := parent_of(span)) is not None:
        _core.current_span_var.set(parent)
