"""OpenTelemetry's context and the core's: from one kind of span to the other, and their link."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from opentelemetry import context as context_api
from opentelemetry import trace as trace_api
from opentelemetry.context.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import hooks
from mlflow_fasttrace._internal.spans.otel_span import OtelSpanView

SPAN_KEY = trace_api.propagation._SPAN_KEY
#: In a context of OpenTelemetry: what was current in the core when it was attached.
_AT = "mlflow_fasttrace.current"
#: What knows the core's span of another library's: (trace id, span id) -> span or None.
_find_mirror: Callable[[int, int], Any] | None = None
#: Whether somebody else sends the info of a trace of this process, by its id.
_is_recorded_elsewhere: Callable[[str], bool] | None = None


def otel_span_of(current: Any) -> trace_api.Span:
    """The OpenTelemetry span for what is current in the core."""
    if type(current) is _core.LiveSpan:
        if (other := getattr(current, "_twin", None)) is not None:
            return other._span
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
    if type(current) is _core.NonRecordingSpan and current.not_sampled:
        return dropped_span()
    return trace_api.INVALID_SPAN


def dropped_span() -> trace_api.Span:
    """Of a trace that is not sampled: whoever it is told to does not sample it either."""
    context = SpanContext(
        secrets.randbits(128) | 1,
        secrets.randbits(64) | 1,
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.DEFAULT),
    )
    return NonRecordingSpan(context)


def parent_of(span: trace_api.Span) -> Any:
    """What stands in the core for an OpenTelemetry span that is to be a parent: a span, a
    non-recording one, or
    None where it is no parent."""
    if isinstance(span, OtelSpanView):
        return span._live
    context = span.get_span_context()
    if not isinstance(context, SpanContext) or not context.is_valid:
        return None
    if not context.trace_flags.sampled:
        return _core.non_recording_span(True)
    if _find_mirror is not None:
        if (mirror := _find_mirror(context.trace_id, context.span_id)) is not None:
            return mirror
    trace_id = f"tr-{context.trace_id:032x}"
    if (trace := _core.live_trace(trace_id)) is not None:
        span_id = f"{context.span_id:016x}"
        for live in trace.spans():
            if live.span_id == span_id:
                return live
    own_info = not context.is_remote and not (
        _is_recorded_elsewhere is not None and _is_recorded_elsewhere(trace_id)
    )
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


def _external_parent(at: Any) -> Any:
    """Called at the start of a span while the contexts are linked: the parent, where that is a span
    of OpenTelemetry's context that was attached inside of what is current in the core."""
    context = context_api._RUNTIME_CONTEXT._current_context.get()
    if context.get(_AT) is not at:
        return None
    span = context.get(SPAN_KEY)
    if span is None or (isinstance(span, OtelSpanView) and span._live is at):
        return None
    parent = parent_of(span)
    return parent if type(parent) is _core.LiveSpan else None


def link_contexts(linked: bool) -> bool:
    """Makes the core and OpenTelemetry's process-wide context see each other, or ends that. Whether
    it could: a context that is not OpenTelemetry's own is left alone."""
    runtime_context = context_api._RUNTIME_CONTEXT
    wanted, other = LinkedRuntimeContext, ContextVarsRuntimeContext
    if not linked:
        wanted, other = other, wanted
    if type(runtime_context) is other:
        runtime_context.__class__ = wanted
    if type(runtime_context) is not wanted:
        return False
    hooks.external_parent.answer(_external_parent if linked else None)
    return True
