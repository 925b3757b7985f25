"""``mlflow_fasttrace.otel`` where MLflow's own code records: its names, on the tracers that MLflow itself uses."""

from __future__ import annotations

from opentelemetry import trace as trace_api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace import Tracer as Tracer
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.util.types import Attributes

from mlflow_fasttrace._internal.base import mlflow_names

_OWN = ("Tracer", "TracerProvider", "process_provider")


class TracerProvider(SdkTracerProvider):
    """A provider whose spans MLflow records. Its tracers are those of MLflow's own provider, so that spans of the
    library and of MLflow are parts of one trace."""

    def __init__(self, resource: Resource | None = None):
        super().__init__(resource=resource, shutdown_on_exit=False)

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace_api.Tracer:
        """A tracer for a library; what is said of the library but its name is not recorded."""
        from mlflow.tracing import provider

        return provider._get_tracer(instrumenting_module_name)

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Let a processor see all of MLflow's spans that start from now on, whoever starts them."""
        from mlflow.tracing import provider

        provider._get_tracer(__name__)
        own = provider.provider.get()
        if isinstance(own, SdkTracerProvider):
            own.add_span_processor(span_processor)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait until what has ended is delivered, as long as MLflow waits."""
        import mlflow

        mlflow.flush_trace_async_logging()
        return True

    def shutdown(self) -> None:
        """Do nothing: MLflow goes on for the rest of the process."""


def process_provider() -> TracerProvider:
    """The provider that serves the whole process."""
    return TracerProvider()


__getattr__, __dir__ = mlflow_names.take_over(globals(), "mlflow.otel")
