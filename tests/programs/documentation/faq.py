"""Questions that are often asked, where no other chapter answers them."""

from __future__ import annotations

from programs import Programs
from programs.documentation import last, of, raised_by, read, tree

PROGRAMS = Programs()
program = PROGRAMS.add


@program
def asynchronous_logging_is_switched_on(mlflow):
    mlflow.config.enable_async_logging()
    with mlflow.start_span(name="foo") as span:
        span.set_inputs({"a": 1})
        span.set_outputs({"b": 2})
    mlflow.flush_trace_async_logging()
    found = mlflow.get_trace(span.trace_id).data.spans[0]
    mlflow.config.enable_async_logging(False)
    return [found.inputs, found.outputs]


@program
def flushing_with_and_without_an_end(mlflow):
    with mlflow.start_span("a"):
        pass
    return [
        mlflow.flush_trace_async_logging(),
        mlflow.flush_trace_async_logging(terminate=False),
        mlflow.flush_trace_async_logging(terminate=True),
        tree(last(mlflow)),
    ]


@program
def recording_after_a_flush_that_terminates(mlflow):
    mlflow.flush_trace_async_logging(terminate=True)
    with mlflow.start_span("afterwards") as span:
        pass
    return tree(read(mlflow, span.trace_id))


@program
def notebooks_show_traces_or_not(mlflow):
    tracing = of(mlflow, "tracing")
    tracing.disable_notebook_display()
    with mlflow.start_span("hidden"):
        pass
    tracing.enable_notebook_display()
    with mlflow.start_span("shown"):
        pass
    trace = last(mlflow)
    return [tree(trace), hasattr(trace, "_repr_mimebundle_")]


@program
def a_trace_in_a_notebook(mlflow):
    with mlflow.start_span("shown"):
        pass
    bundle = last(mlflow)._repr_mimebundle_()
    return sorted(bundle)


@program
def where_traces_go(mlflow):
    uri = mlflow.get_tracking_uri()
    with mlflow.start_span("span"):
        pass
    return [uri.startswith("http://127.0.0.1"), mlflow.is_tracking_uri_set(), tree(last(mlflow))]


NAMES = (
    "configure",
    "context",
    "disable",
    "disable_notebook_display",
    "enable",
    "enable_notebook_display",
    "get_bridged_tracer_provider",
    "get_tracing_context_headers_for_http_request",
    "reset",
    "set_databricks_monitoring_sql_warehouse_id",
    "set_destination",
    "set_experiment_trace_location",
    "set_span_chat_tools",
    "set_tracing_context_from_http_request_headers",
    "unset_experiment_trace_location",
)


@program
def names_are_the_same_in_submodules(mlflow):
    tracing = of(mlflow, "tracing")
    fluent = of(mlflow, "tracing.fluent")
    return [
        raised_by(lambda: tracing.trace),
        fluent.trace(len)("ab"),
        of(mlflow, "entities").SpanType.LLM,
        of(mlflow, "entities.span").SpanType.TOOL,
        of(mlflow, "client").MlflowClient is mlflow.MlflowClient,
        mlflow.tracking.MlflowClient is mlflow.MlflowClient,
        [name for name in NAMES if name not in tracing.__all__ or not hasattr(tracing, name)],
    ]
