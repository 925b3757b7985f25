"""Spans that OpenTelemetry's SDK makes for MLflow's integrations (Strands, Haystack, Semantic Kernel), and
their twins: for each such span that is open there is a span of the core with the same ids, which takes
over what the SDK's span holds when that ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlflow.entities.span import LiveSpan as MlflowLiveSpan
from mlflow.entities.span import create_mlflow_span as mlflow_create_mlflow_span
from mlflow.tracing.client import TracingClient
from mlflow.tracing.display import get_display_handler
from mlflow.tracing.export.mlflow_v3 import MlflowV3SpanExporter
from mlflow.tracing.processor.mlflow_v3 import MlflowV3SpanProcessor
from mlflow.tracing.trace_manager import InMemoryTraceManager
from opentelemetry import trace as trace_api
from opentelemetry.context.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace.export import SpanExportResult

from mlflow_fasttrace import _core, traces
from mlflow_fasttrace._internal.base.patching import original
from mlflow_fasttrace._internal.recording import flush
from mlflow_fasttrace._internal.spans import otel_context
from mlflow_fasttrace._internal.spans.otel_span import OtelSpanView, number_of_kind

if TYPE_CHECKING:
    from mlflow.tracing.display.display_handler import IPythonTraceDisplayHandler


def create_mlflow_span(otel_span: Any, trace_id: str, span_type: str | None = None) -> Any:
    """The span of MLflow's kind for one of OpenTelemetry's: the core's own, where that shows one."""
    if isinstance(otel_span, OtelSpanView):
        if span_type is not None:
            otel_span._live.set_span_type(span_type)
        return otel_span._live
    return original(mlflow_create_mlflow_span)(otel_span, trace_id, span_type)


class CoreSpanExporter(MlflowV3SpanExporter):
    """What MLflow's ``_get_trace_exporter()`` returns, and a queue at the same time. The sender delivers;
    MLflow's code finds an exporter that has nothing to do and a queue that can be waited for."""

    def __init__(self) -> None:
        self._is_async_enabled = True
        self._async_queue: Any = self

    @property
    def _client(self) -> TracingClient:  # type: ignore[override]  # MLflow's is made once
        return TracingClient()

    @property
    def _display_handler(self) -> IPythonTraceDisplayHandler:  # type: ignore[override]  # MLflow's is made once
        return get_display_handler()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # type: ignore[override]  # MLflow's returns None
        """Do nothing: a span is recorded when it ends."""
        return SpanExportResult.SUCCESS

    def flush(self, terminate: bool = False) -> None:
        """Wait for delivery, as the queue of MLflow's exporter does."""
        traces.flush_trace_async_logging()

    def put(self, task: Any) -> None:
        """Do a task of MLflow's queue here and now."""
        task.handle()

    def is_active(self) -> bool:
        """Whether the queue takes tasks."""
        return True

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait for delivery; whether that was reached within the milliseconds."""
        return flush.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Do nothing: no thread of this process delivers."""


class CoreSpanProcessor(MlflowV3SpanProcessor):
    """Starts and ends the twin of every span that OpenTelemetry's SDK makes for MLflow."""

    def __init__(self) -> None:
        self.span_exporter = CoreSpanExporter()
        self._batch_delegate = None
        self._export_metrics = False

    @property
    def _trace_manager(self) -> InMemoryTraceManager:
        return InMemoryTraceManager.get_instance()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Start the twin."""
        if isinstance(span, OtelSpanView):
            return
        context = span.get_span_context()
        if context is None:
            return
        parent = None
        if span.parent is not None:
            parent = otel_context.parent_of(trace_api.NonRecordingSpan(span.parent))
            if type(parent) is not _core.LiveSpan:
                return
        twin = _core.start_span(
            span.name,
            parent,
            None,
            span.start_time,
            context.span_id,
            None,
            None if parent is not None else context.trace_id.to_bytes(16, "big"),
        )
        if type(twin) is not _core.LiveSpan:
            return
        twin._remove_attribute("mlflow.spanStartTimeNs")
        twin._kind = number_of_kind(span.kind)
        # MLflow's class makes the span that MLflow's own processor would make.
        twin._set_twin(MlflowLiveSpan(span, twin.trace_id, None))  # type: ignore[arg-type]  # MLflow passes None itself
        otel_context.twins[context.trace_id, context.span_id] = twin

    def on_end(self, span: ReadableSpan) -> None:
        """Let the twin take over what the span holds, and end."""
        context = span.get_span_context()
        if context is None:
            return
        twin = otel_context.twins.pop((context.trace_id, context.span_id), None)
        if twin is None:
            return
        source = twin.__dict__["_twin"]._span  # what the program has changed is in MLflow's span
        view = OtelSpanView(twin)
        twin._rename(source.name)
        for key in [key for key in view.attributes if key not in source.attributes]:
            twin._remove_attribute(key)
        view.set_attributes(source.attributes)
        for event in span.events:
            view.add_event(event.name, event.attributes, event.timestamp)
        for link in span.links:
            view.add_link(link.context, link.attributes)
        view.set_status(span.status)
        twin._end_at(span.end_time)

    def shutdown(self) -> None:
        """Do nothing: the processor holds no resource."""

    def force_flush(self, timeout_millis: float | None = 30000) -> bool:
        """Wait for delivery; whether that was reached within the milliseconds."""
        return flush.flush((timeout_millis or 0) / 1000)
