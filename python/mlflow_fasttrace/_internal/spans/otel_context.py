"""OpenTelemetry's context and the core's: from one kind of span to the other, and the link between the two
contexts.

A span that OpenTelemetry's SDK made for one of MLflow's integrations has a twin in the core with the same
ids. While MLflow runs on the core, ``seams/sdk_spans.py`` keeps ``twins``, and ``seams/apply.py`` tells by
``ask_mlflow`` who knows the traces of MLflow's own code.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry import context as context_api
from opentelemetry import trace as trace_api
from opentelemetry.context.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import hooks
from mlflow_fasttrace._internal.spans.otel_span import OtelSpanView

if TYPE_CHECKING:
    from mlflow_fasttrace._core import LiveSpan

SPAN_KEY = trace_api.propagation._SPAN_KEY
#: Key in a context of OpenTelemetry for what was current in the core when the context was attached.
_AT = "mlflow_fasttrace.current"

#: The core's span for each open span of OpenTelemetry's SDK that has one, by (trace id, span id).
twins: dict[tuple[int, int], LiveSpan] = {}


def _mlflow_records_nothing(trace_id: str) -> bool:
    return False


_mlflow_records: Callable[[str], bool] = _mlflow_records_nothing


def ask_mlflow(records: Callable[[str], bool] | None) -> None:
    """Say who knows the traces that MLflow's own code records, and whose info it sends.

    Args:
        records: Whether MLflow's own code records the trace of an id in this process; None where it
            records none.
    """
    global _mlflow_records
    _mlflow_records = records or _mlflow_records_nothing


def otel_span_of(current: LiveSpan | _core.NonRecordingSpan | None) -> trace_api.Span:
    """The OpenTelemetry span for what is current in the core."""
    if isinstance(current, _core.LiveSpan):
        if (sdk_span := getattr(current, "_twin", None)) is not None:
            return sdk_span._span
        if not current._remote:
            return OtelSpanView(current)
        return NonRecordingSpan(
            SpanContext(
                int(current._trace_id, 16),
                int(current.span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(TraceFlags.SAMPLED),
            )
        )
    if current is not None and current.not_sampled:
        return not_sampled_span()
    return trace_api.INVALID_SPAN


def not_sampled_span() -> trace_api.Span:
    """A span of a trace that is not sampled, with ids that nobody has: a service that gets them does not
    sample the trace either."""
    context = SpanContext(
        secrets.randbits(128) | 1,
        secrets.randbits(64) | 1,
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.DEFAULT),
    )
    return NonRecordingSpan(context)


def parent_of(span: trace_api.Span) -> Any:
    """What stands in the core for an OpenTelemetry span that is to be a parent.

    Returns:
        A span of the core, a non-recording one, or None where the span is no parent.
    """
    if isinstance(span, OtelSpanView):
        return span._live
    context = span.get_span_context()
    if not isinstance(context, SpanContext) or not context.is_valid:
        return None
    if not context.trace_flags.sampled:
        return _core.non_recording_span(True)
    if (twin := twins.get((context.trace_id, context.span_id))) is not None:
        return twin
    trace_id = f"tr-{context.trace_id:032x}"
    if (trace := _core.live_trace(trace_id)) is not None:
        span_id = f"{context.span_id:016x}"
        for live in trace.spans():
            if live.span_id == span_id:
                return live
    own_info = not context.is_remote and not _mlflow_records(trace_id)
    return _core.remote_span(context.trace_id.to_bytes(16, "big"), context.span_id, own_info)


class LinkedRuntimeContext(ContextVarsRuntimeContext):
    """OpenTelemetry's context, in which a span of the core that started later is the current one."""

    def get_current(self) -> Context:
        context = self._current_context.get()
        current = _core.current()
        if type(current) is not _core.LiveSpan or context.get(_AT) is current:
            return context
        return Context({**context, SPAN_KEY: otel_span_of(current), _AT: current})

    def attach(self, context: Context) -> Any:
        return super().attach(Context({**context, _AT: _core.current()}))


def _external_parent(at: LiveSpan | _core.NonRecordingSpan | None) -> LiveSpan | None:
    """The parent for a span that starts while the contexts are linked, where that is a span of
    OpenTelemetry's context which was attached inside of what is current in the core. The core calls it.

    Args:
        at: What is current in the core.
    """
    runtime_context = context_api._RUNTIME_CONTEXT
    if not isinstance(runtime_context, ContextVarsRuntimeContext):
        return None
    context = runtime_context._current_context.get()
    if context.get(_AT) is not at:
        return None
    span: Any = context.get(SPAN_KEY)
    if span is None or (isinstance(span, OtelSpanView) and span._live is at):
        return None
    parent = parent_of(span)
    return parent if type(parent) is _core.LiveSpan else None


def link_contexts(linked: bool) -> bool:
    """Make the core and OpenTelemetry's process-wide context see each other, or end that.

    Returns:
        Whether it could be done: a context that is not OpenTelemetry's own is left alone.
    """
    runtime_context = context_api._RUNTIME_CONTEXT
    wanted: type[ContextVarsRuntimeContext] = LinkedRuntimeContext
    other: type[ContextVarsRuntimeContext] = ContextVarsRuntimeContext
    if not linked:
        wanted, other = other, wanted
    if type(runtime_context) is other:
        runtime_context.__class__ = wanted
    if type(runtime_context) is not wanted:
        return False
    hooks.external_parent.answer(_external_parent if linked else None)
    return True
