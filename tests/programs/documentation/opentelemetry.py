"""OpenTelemetry beside MLflow: spans of its SDK, and traces that are sent to MLflow's own OTLP endpoint."""

from __future__ import annotations

import contextlib

from programs import Programs
from programs.documentation import last, of, own_experiment_id, read, tree

PROGRAMS = Programs()
program = PROGRAMS.add


@program
def a_tracer_of_the_bridge(mlflow):
    tracer = of(mlflow, "tracing").get_bridged_tracer_provider().get_tracer("shop")
    with tracer.start_as_current_span("checkout") as span:
        span.set_attribute("basket", 3)
        span.add_event("paid", {"by": "card"})
        with tracer.start_as_current_span("ship"):
            pass
    return tree(last(mlflow))


@contextlib.contextmanager
def exporting(mlflow, name="service"):
    """A provider of OpenTelemetry's SDK whose spans go to the server's OTLP endpoint."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    exporter = OTLPSpanExporter(
        endpoint=f"{mlflow.get_tracking_uri()}/v1/traces",
        headers={"x-mlflow-experiment-id": own_experiment_id(mlflow)},
    )
    provider = TracerProvider(
        resource=Resource({"service.name": name, "service.instance.id": "instance 1"})
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer(name)
    provider.shutdown()


def trace_id_of(span):
    return f"tr-{span.get_span_context().trace_id:032x}"


@program
def spans_of_another_sdk(mlflow):
    with exporting(mlflow) as tracer:
        with tracer.start_as_current_span("GET /", attributes={"http.method": "GET"}) as span:
            pass
    trace = read(mlflow, trace_id_of(span))
    return [tree(trace), trace.data.spans[0].attributes["http.method"]]


@program
def semantic_conventions_are_understood(mlflow):
    found = []
    with exporting(mlflow) as tracer:
        for operation in ("chat", "embeddings", "execute_tool", "invoke_agent"):
            attributes = {
                "gen_ai.operation.name": operation,
                "gen_ai.request.model": "gpt-4o-mini",
                "gen_ai.provider.name": "openai",
                "gen_ai.usage.input_tokens": 7,
                "gen_ai.usage.output_tokens": 2,
                "gen_ai.input.messages": '[{"role": "user", "content": "hi"}]',
                "gen_ai.output.messages": '[{"role": "assistant", "content": "ho"}]',
                "session.id": "s-8",
                "user.id": "u-8",
            }
            with tracer.start_as_current_span(operation, attributes=attributes) as span:
                pass
            trace = read(mlflow, trace_id_of(span))
            root = trace.data.spans[0]
            found.append([root.span_type, root.inputs, root.outputs, root.model_name])
            found.append(
                [trace.info.token_usage, trace.info.trace_metadata.get("mlflow.trace.session")]
            )
    return found


@program
def semantic_conventions_on_mlflows_spans(mlflow):
    with mlflow.start_span("chat") as span:
        span.set_attributes(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": "gpt-4o-mini",
                "gen_ai.usage.input_tokens": 7,
                "gen_ai.usage.output_tokens": 2,
            }
        )
    trace = last(mlflow)
    root = trace.data.spans[0]
    return [root.span_type, root.model_name, trace.info.token_usage]


@program
def openinference_on_the_bridge(mlflow):
    tracer = of(mlflow, "tracing").get_bridged_tracer_provider().get_tracer("inference")
    attributes = {
        "openinference.span.kind": "LLM",
        "input.value": '{"question": "hi"}',
        "output.value": "ho",
        "llm.model_name": "gpt-4o-mini",
        "llm.token_count.prompt": 3,
        "llm.token_count.completion": 4,
        "llm.token_count.total": 7,
    }
    with tracer.start_as_current_span("llm", attributes=attributes):
        pass
    trace = last(mlflow)
    root = trace.data.spans[0]
    return [root.span_type, root.inputs, root.outputs, root.model_name, trace.info.token_usage]


@program
def opentelemetrys_current_span_is_its_own(mlflow):
    from opentelemetry import trace as otel
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("apart")
    with tracer.start_as_current_span("theirs") as theirs:
        with mlflow.start_span("ours") as ours:
            same = otel.get_current_span() is theirs
        apart = ours.trace_id != trace_id_of(theirs)
    return [same, apart, ours.parent_id, tree(last(mlflow))]
