"""OpenTelemetry over the core: a ``TracerProvider`` whose spans are MLflow's, and the links between
OpenTelemetry's context and the core's.

Used by itself::

    from mlflow_fasttrace.otel import TracerProvider

    SomeInstrumentor().instrument(tracer_provider=TracerProvider())

A span started under another library's, by a context that holds it, joins that trace by its ids.
With ``MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT=true`` the process-wide context of OpenTelemetry and the
core see each other: spans of any library start under MLflow's, and MLflow's under theirs. The
program's own provider is not touched.
"""

from __future__ import annotations

import importlib
import json
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import context as context_api
from opentelemetry import trace as trace_api
from opentelemetry.context.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from mlflow_fasttrace import _core, _runtime
from mlflow_fasttrace._otel_view import OtelSpanView

__all__ = ["Tracer", "TracerProvider"]

_EXPERIMENT = "mlflow.experimentId"
_START_TIME = "mlflow.spanStartTimeNs"
_SPAN_KEY = trace_api.propagation._SPAN_KEY

#: In a context of OpenTelemetry: what was current in the core when it was attached.
_AT = "mlflow_fasttrace.current"

_NOWHERE = object()

#: What knows the core's span of another library's: (trace id, span id) -> span or None.
_find_mirror: Callable[[int, int], Any] | None = None

#: Whether somebody else sends the info of a trace of this process, by its id.
_is_recorded_elsewhere: Callable[[str], bool] | None = None


# ---- from one kind of span to the other ----


def otel_span_of(current: Any) -> trace_api.Span:
    """The OpenTelemetry span for what is current in the core."""
    if type(current) is _core.LiveSpan:
        if (other := getattr(current, "_stands_for", None)) is not None:
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
    if type(current) is _core.Gap and current.dropped:
        return _dropped_span()
    return trace_api.INVALID_SPAN


def _dropped_span() -> trace_api.Span:
    """Of a trace that is not sampled: whoever it is told to does not sample it either."""
    context = SpanContext(
        secrets.randbits(128) | 1,
        secrets.randbits(64) | 1,
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.DEFAULT),
    )
    return NonRecordingSpan(context)


def parent_of(span: trace_api.Span) -> Any:
    """What stands in the core for an OpenTelemetry span that is to be a parent: a span, a gap, or
    None where it is no parent."""
    if isinstance(span, OtelSpanView):
        return span._live
    context = span.get_span_context()
    if not isinstance(context, SpanContext) or not context.is_valid:
        return None
    if not context.trace_flags.sampled:
        return _core.gap(True)
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


# ---- tracer and provider ----


class Tracer(SdkTracer):
    """Starts spans of the core. Made by :py:meth:`TracerProvider.get_tracer`."""

    def __init__(self, provider: TracerProvider, scope: InstrumentationScope):
        self._provider = provider
        self.sampler = provider.sampler
        self.resource = provider.resource
        self.span_processor = provider._active_span_processor
        self.id_generator = provider.id_generator
        self.instrumentation_info = None
        self._span_limits = provider._span_limits
        self._instrumentation_scope = scope

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Any = None,
        links: Sequence[trace_api.Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace_api.Span:
        """Start a span under the one in ``context`` (by default OpenTelemetry's current one).

        Args:
            name: Name of the span.
            context: Where the parent is looked for.
            kind: Kept on the returned span only.
            attributes: Attributes of the span.
            links: Links to other spans.
            start_time: Nanoseconds since the Unix epoch; by default now.
            record_exception: Whether ``with`` records an exception that leaves its body.
            set_status_on_exception: Whether that sets the status to ERROR.

        Returns:
            A recording span, or one that records nothing where tracing is off or the trace is not
            sampled.
        """
        attributes = dict(attributes or {})
        around = trace_api.get_current_span(context)
        parent = parent_of(around)
        if type(parent) is _core.Gap:
            return NonRecordingSpan(around.get_span_context())
        experiment = None
        if parent is None and _EXPERIMENT in attributes:
            experiment = _decoded(attributes.pop(_EXPERIMENT))
        live = _core.start_span(
            str(name),
            parent,
            None if experiment is None else str(experiment),
            start_time,
            None,
            None,
            b"" if parent is None else None,
        )
        if type(live) is not _core.LiveSpan:
            return trace_api.INVALID_SPAN if live is None else _dropped_span()
        if start_time is not None and _START_TIME not in attributes:
            live._remove_attribute(_START_TIME)
        live.set_span_type(None)
        view = OtelSpanView(live)
        if kind is not SpanKind.INTERNAL:
            view._kind = kind
        view._instrumentation_scope = self._instrumentation_scope
        view._record_exception = record_exception
        view._set_status_on_exception = set_status_on_exception
        view.set_attributes(attributes)
        for link in links or ():
            view.add_link(link.context, link.attributes)
        return self._provider._started(view, context)

    def _is_enabled(self) -> bool:
        return _core.enabled()


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


class _ObservedSpan(OtelSpanView):
    """Of a provider that others have added span processors to."""

    _processor: SpanProcessor

    def end(self, end_time: int | None = None) -> None:
        if self.is_recording():
            super().end(end_time)
            self._processor.on_end(self._readable_span())


class TracerProvider(SdkTracerProvider):
    """A provider whose spans are recorded by the core, as MLflow's traces.

    Args:
        resource: Seen on ``provider.resource``. What a collector is told of this process comes from
            OpenTelemetry's variables.
    """

    def __init__(self, resource: Resource | None = None):
        super().__init__(
            sampler=ALWAYS_ON,
            resource=resource or Resource.get_empty(),
            shutdown_on_exit=False,
            span_limits=SpanLimits(),
        )
        self._observers: tuple[SpanProcessor, ...] = ()

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Any = None,
    ) -> trace_api.Tracer:
        """A tracer of that name; one that does nothing while tracing is off."""
        if not _core.enabled():
            return trace_api.NoOpTracer()
        scope = InstrumentationScope(
            instrumenting_module_name, instrumenting_library_version, schema_url, attributes
        )
        return Tracer(self, scope)

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Lets a processor see the spans that tracers of this provider start, besides the core."""
        self._observers = (*self._observers, span_processor)
        super().add_span_processor(span_processor)

    def _started(self, view: OtelSpanView, context: Context | None) -> OtelSpanView:
        if not self._observers:
            return view
        observed = _ObservedSpan(view._live)
        observed.__dict__.update(view.__dict__)
        observed._processor = self._active_span_processor
        self._active_span_processor.on_start(observed, parent_context=context)
        return observed

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait until what has ended is delivered; whether that was reached in time."""
        observed = super().force_flush(timeout_millis)
        return _runtime.flush(timeout_millis / 1000) and observed

    def shutdown(self) -> None:
        """Shut the added processors down. The core goes on for the rest of the process."""
        for observer in self._observers:
            observer.shutdown()

    def _handle_fork(self) -> None:
        pass  # the resource says nothing of the process


_default_provider: TracerProvider | None = None


def default_provider() -> TracerProvider:
    """One provider for the whole process."""
    global _default_provider
    if _default_provider is None:
        _default_provider = TracerProvider()
    return _default_provider


# ---- the process-wide context of OpenTelemetry ----


class LinkedRuntimeContext(ContextVarsRuntimeContext):
    """OpenTelemetry's context, in which a span of the core that started later is the current one."""

    def get_current(self) -> Context:
        context = self._current_context.get()
        current = _core.current()
        if type(current) is not _core.LiveSpan or context.get(_AT) is current:
            return context
        return Context({**context, _SPAN_KEY: otel_span_of(current), _AT: current})

    def attach(self, context: Context) -> Any:
        return super().attach(Context({**context, _AT: _core.current()}))


def _outside(at: Any) -> Any:
    """Called at the start of a span while the contexts are linked: the parent, where that is a span
    of OpenTelemetry's context that was attached inside of what is current in the core."""
    context = context_api._RUNTIME_CONTEXT._current_context.get()
    if context.get(_AT) is not at:
        return None
    span = context.get(_SPAN_KEY)
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
    _core.set_hook("outside", _outside if linked else None)
    return True


def __getattr__(name: str) -> Any:
    # mlflow.otel: MLflow's export of what other tracers record
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(importlib.import_module("mlflow.otel"), name)
