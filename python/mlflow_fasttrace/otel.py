"""OpenTelemetry over the core: a ``TracerProvider`` whose spans are MLflow's.

Used by itself::

    from mlflow_fasttrace.otel import TracerProvider

    SomeInstrumentor().instrument(tracer_provider=TracerProvider())

A span that is started under another library's, by a context that holds that one, joins its trace by its ids.
With ``MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT=true`` the process-wide context of OpenTelemetry and the
core see each other: spans of any library start under MLflow's, and MLflow's under theirs. The
program's own provider is not touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import trace as trace_api
from opentelemetry.context.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanKind
from opentelemetry.util.types import Attributes

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import mlflow_names
from mlflow_fasttrace._internal.recording import flush
from mlflow_fasttrace._internal.spans.otel_context import not_sampled_span, parent_of
from mlflow_fasttrace._internal.spans.otel_span import OtelSpanView, number_of_kind

_OWN = ("Tracer", "TracerProvider")

#: Attributes by which a span of another library says where its trace goes, and when it started.
_EXPERIMENT = "mlflow.experimentId"
_START_TIME = "mlflow.spanStartTimeNs"


class Tracer(SdkTracer):
    """Starts spans of the core. Made by :py:meth:`TracerProvider.get_tracer`.

    Args:
        provider: The provider that made it.
        scope: The library that it is for.

    Example:
        >>> from mlflow_fasttrace.otel import Tracer, TracerProvider
        >>> tracer = TracerProvider().get_tracer("library")
        >>> isinstance(tracer, Tracer)
        True
    """

    def __init__(self, provider: TracerProvider, scope: InstrumentationScope):
        self._provider = provider
        self.sampler = provider.sampler
        self.resource = provider.resource
        self.span_processor = provider._active_span_processor
        self.id_generator = provider.id_generator
        self.instrumentation_info = None  # type: ignore[assignment]  # deprecated: a scope came in its place
        self._span_limits = provider._span_limits
        self._instrumentation_scope = scope

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[trace_api.Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace_api.Span:
        """Start a span under the one in ``context`` (by default OpenTelemetry's current one).

        Args:
            name: Name of the span.
            context: Where the parent is looked for.
            kind: MLflow has it from 3.18 on; a collector gets it always.
            attributes: Attributes of the span.
            links: Links to other spans.
            start_time: Nanoseconds since the Unix epoch; by default now.
            record_exception: Whether ``with`` records an exception that leaves its body.
            set_status_on_exception: Whether that sets the status to ERROR.

        Returns:
            A recording span, or one that records nothing where tracing is off or the trace is not
            sampled.

        Example:
            >>> from mlflow_fasttrace.otel import TracerProvider
            >>> span = TracerProvider().get_tracer("library").start_span("work")
            >>> span.set_attribute("key", "value")
            >>> span.is_recording()
            True
            >>> span.end()
        """
        own_attributes = dict(attributes or {})
        around = trace_api.get_current_span(context)
        parent = parent_of(around)
        if type(parent) is _core.NonRecordingSpan:
            return NonRecordingSpan(around.get_span_context())
        experiment = None
        if parent is None and _EXPERIMENT in own_attributes:
            experiment = _decoded(own_attributes.pop(_EXPERIMENT))
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
            return trace_api.INVALID_SPAN if live is None else not_sampled_span()
        if start_time is not None and _START_TIME not in own_attributes:
            live._remove_attribute(_START_TIME)
        live.set_span_type(None)
        view = OtelSpanView(live)
        live._kind = number_of_kind(kind)
        view._instrumentation_scope = self._instrumentation_scope
        view._record_exception = record_exception
        view._set_status_on_exception = set_status_on_exception
        view.set_attributes(own_attributes)
        for link in links or ():
            view.add_link(link.context, link.attributes)
        return self._provider._started(view, context)

    def _is_enabled(self) -> bool:
        return _core.enabled()


def _decoded(value: Any) -> Any:
    """An attribute that may be MLflow's, which is a JSON text, or another library's, which is the value."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


class _ObservedSpan(OtelSpanView):
    """A span of a provider that others have added span processors to."""

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

    Example:
        >>> from mlflow_fasttrace.otel import TracerProvider
        >>> with TracerProvider().get_tracer("library").start_as_current_span("work") as span:
        ...     span.is_recording()
        True
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
        attributes: Attributes = None,
    ) -> trace_api.Tracer:
        """A tracer for a library.

        Args:
            instrumenting_module_name: Name of the library.
            instrumenting_library_version: Its version.
            schema_url: Which conventions its spans follow.
            attributes: Attributes of the library.

        Returns:
            A tracer of the core's; one that does nothing while tracing is off.

        Example:
            >>> from mlflow_fasttrace.otel import TracerProvider
            >>> tracer = TracerProvider().get_tracer("library", "1.0")
            >>> with tracer.start_as_current_span("work") as span:
            ...     span.name
            'work'
        """
        if not _core.enabled():
            return trace_api.NoOpTracer()
        scope = InstrumentationScope(
            instrumenting_module_name, instrumenting_library_version, schema_url, attributes
        )
        return Tracer(self, scope)

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Let a processor see the spans that tracers of this provider start, besides the core.

        Args:
            span_processor: The processor. It is shut down with the provider.

        Example:
            >>> from opentelemetry.sdk.trace import SpanProcessor
            >>> from mlflow_fasttrace.otel import TracerProvider
            >>> class Names(SpanProcessor):
            ...     def on_end(self, span):
            ...         print(span.name)
            >>> provider = TracerProvider()
            >>> provider.add_span_processor(Names())
            >>> with provider.get_tracer("library").start_as_current_span("work"):
            ...     pass
            work
        """
        self._observers = (*self._observers, span_processor)
        super().add_span_processor(span_processor)

    def _started(self, view: OtelSpanView, context: Context | None) -> OtelSpanView:
        """The span as its tracer returns it, after the added processors have seen it."""
        if not self._observers:
            return view
        observed = _ObservedSpan(view._live)
        observed.__dict__.update(view.__dict__)
        observed._processor = self._active_span_processor
        self._active_span_processor.on_start(observed, parent_context=context)
        return observed

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait until what has ended is delivered.

        Args:
            timeout_millis: Milliseconds to wait at most.

        Returns:
            Whether that was reached in time.

        Example:
            >>> from mlflow_fasttrace.otel import TracerProvider
            >>> provider = TracerProvider()
            >>> with provider.get_tracer("library").start_as_current_span("work"):
            ...     pass
            >>> provider.force_flush(timeout_millis=10_000)
            True
        """
        observed = super().force_flush(timeout_millis)
        return flush.flush(timeout_millis / 1000) and observed

    def shutdown(self) -> None:
        """Shut the added processors down. The core goes on for the rest of the process.

        Example:
            >>> from mlflow_fasttrace.otel import TracerProvider
            >>> provider = TracerProvider()
            >>> provider.shutdown()
            >>> with provider.get_tracer("library").start_as_current_span("work") as span:
            ...     span.is_recording()
            True
        """
        for observer in self._observers:
            observer.shutdown()

    def _handle_fork(self) -> None:
        """Do nothing: the resource says nothing of the process."""


#: The provider of ``_default_provider``, once there is one.
_default_providers: dict[str, TracerProvider] = {}


def _default_provider() -> TracerProvider:
    # No lock is held while one is made; of those that several threads make at once one is kept.
    found = _default_providers.get("")
    return found or _default_providers.setdefault("", TracerProvider())


_make_process_provider: Callable[[], TracerProvider] = _default_provider


def process_provider() -> TracerProvider:
    """The provider that serves the whole process: ``mlflow.tracing.get_bridged_tracer_provider()``."""
    return _make_process_provider()


def use_process_provider(make: Callable[[], TracerProvider] | None) -> None:
    """Say which provider serves the process.

    Args:
        make: Returns the provider; it is called whenever one is asked for. None for this module's own.
    """
    global _make_process_provider
    _make_process_provider = make or _default_provider


# mlflow.otel exports to MLflow what other tracers record.
__getattr__, __dir__ = mlflow_names.take_over(globals(), "mlflow.otel")
