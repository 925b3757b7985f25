"""LlamaIndex passes the context of a trace on by its dispatcher, to a workflow that runs in another
task or process; MLflow's handler of its spans takes no part in that. Here it does."""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mlflow_fasttrace import _core, tracing
from mlflow_fasttrace._internal.spans.otel_context import parent_of

_KEY = "mlflow"


def capture_propagation_context(self: Any) -> dict[str, Any]:
    """What another task or process needs to go on with the current trace; JSON."""
    if not isinstance(_core.current(), _core.LiveSpan):
        return {}
    return {_KEY: tracing.get_tracing_context_headers_for_http_request()}


def restore_propagation_context(self: Any, context: dict[str, Any]) -> None:
    """Goes on, for the rest of this task or thread, with the trace that was captured. Where that is
    current already, it stays as it is."""
    headers = context.get(_KEY)
    if not isinstance(headers, dict):
        return
    span = get_current_span(TraceContextTextMapPropagator().extract(headers, Context()))
    current = _core.current()
    if getattr(current, "_trace_id", None) == f"{span.get_span_context().trace_id:032x}":
        return
    if (parent := parent_of(span)) is not None:
        _core.current_span_var.set(parent)
