"""What environment variables do. Each program runs in a process of its own, with those of ENVIRONMENT."""

from __future__ import annotations

import time

from programs import Programs
from programs.documentation import last, own_experiment_id, raised_by, tree

PROGRAMS = Programs()

#: By program: its environment, in which {uri} is the server's address and {collector} a collector's.
ENVIRONMENT: dict[str, dict[str, str]] = {}


def with_environment(**variables: str):
    def add(function):
        ENVIRONMENT[function.__name__] = variables
        return PROGRAMS.add(function)

    return add


def two_traces(mlflow):
    @mlflow.trace
    def root(n):
        with mlflow.start_span("child", span_type="TOOL") as span:
            span.set_inputs(n)
        return n

    return [root(1), root(2)]


def names_found(mlflow):
    mlflow.flush_trace_async_logging()
    traces = mlflow.search_traces(locations=[own_experiment_id(mlflow)], return_type="list")
    return sorted(tree(trace) for trace in traces)


@with_environment(MLFLOW_TRACE_SAMPLING_RATIO="0")
def no_trace_is_sampled(mlflow):
    results = two_traces(mlflow)

    @mlflow.trace(sampling_ratio_override=1.0)
    def always(n):
        return n

    always(3)
    with mlflow.start_span("quiet") as span:
        kind = type(span).__name__
    return [results, kind, names_found(mlflow)]


@with_environment(MLFLOW_TRACE_SAMPLING_RATIO="1.0")
def every_trace_is_sampled(mlflow):
    return [two_traces(mlflow), names_found(mlflow)]


@with_environment(MLFLOW_TRACE_SAMPLING_RATIO="0.5")
def half_of_the_traces_are_sampled(mlflow):
    @mlflow.trace
    def root():
        mlflow.trace(lambda: None, name="child")()

    for _ in range(200):
        root()
    found = names_found(mlflow)
    # Which ones is chance; of each that is there all is there. None is left to be compared.
    soon = int(time.time() * 1000) + 60_000
    mlflow.MlflowClient().delete_traces(own_experiment_id(mlflow), max_timestamp_millis=soon)
    return [60 <= len(found) <= 140, sorted({len(lines) for lines in found})]


@with_environment(MLFLOW_TRACE_SAMPLING_RATIO="many")
def a_ratio_that_is_no_number(mlflow):
    return [raised_by(lambda: two_traces(mlflow)), names_found(mlflow)]


@with_environment(MLFLOW_TRACE_SAMPLING_RATIO="1.5")
def a_ratio_above_one(mlflow):
    return [raised_by(lambda: two_traces(mlflow)), names_found(mlflow)]


@with_environment(MLFLOW_TRACING_ENABLED="false")
def the_page_says_that_tracing_is_off(mlflow):
    return [two_traces(mlflow), names_found(mlflow)]


@with_environment(MLFLOW_ENABLE_ASYNC_TRACE_LOGGING="false")
def logging_that_waits(mlflow):
    two_traces(mlflow)
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    return [tree(trace), names_found(mlflow)]


@with_environment(
    MLFLOW_ENABLE_ASYNC_TRACE_LOGGING="true",
    MLFLOW_ASYNC_TRACE_LOGGING_MAX_WORKERS="2",
    MLFLOW_ASYNC_TRACE_LOGGING_MAX_QUEUE_SIZE="100",
    MLFLOW_ASYNC_TRACE_LOGGING_RETRY_TIMEOUT="60",
)
def logging_with_settings(mlflow):
    return [two_traces(mlflow), names_found(mlflow)]


@with_environment(MLFLOW_TRACE_TIMEOUT_SECONDS="1", MLFLOW_TRACE_TIMEOUT_CHECK_INTERVAL_SECONDS="1")
def a_trace_that_takes_too_long(mlflow):
    @mlflow.trace
    def child(n):
        return n

    @mlflow.trace
    def long_running():
        results = [child(n) for n in range(2)]
        time.sleep(4)
        return results

    result = long_running()
    trace = last(mlflow)
    (root,) = [span for span in trace.data.spans if span.parent_id is None]
    return [
        result,
        str(trace.info.state),
        root.name,
        root.status.status_code.value,
        [event.name for event in root.events],
    ]


@with_environment(MLFLOW_EXPERIMENT_NAME="{prefix}-an_experiment_by_name")
def an_experiment_by_name(mlflow):
    return [two_traces(mlflow), names_found(mlflow)]


@with_environment(
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="{collector}/v1/traces",
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
    OTEL_SERVICE_NAME="paper mill",
    OTEL_RESOURCE_ATTRIBUTES="service.instance.id=mill 1",
)
def traces_go_to_a_collector(mlflow):
    return [two_traces(mlflow), names_found(mlflow)]


@with_environment(
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="{collector}/v1/traces",
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
    MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT="true",
)
def traces_go_to_both(mlflow):
    return [two_traces(mlflow), names_found(mlflow)]


@with_environment(
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="{collector}/v1/traces",
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
    MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT="true",
    MLFLOW_ENABLE_OTEL_GENAI_SEMCONV="true",
)
def traces_go_out_by_the_conventions(mlflow):
    @mlflow.trace(span_type="CHAT_MODEL")
    def chat(messages, model):
        span = mlflow.get_current_active_span()
        span.set_attribute("mlflow.llm.model", model)
        span.set_attribute("mlflow.llm.provider", "openai")
        span.set_attribute("mlflow.message.format", "openai")
        span.set_attribute(
            "mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}
        )
        return {"choices": [{"index": 0, "message": {"role": "assistant", "content": "ho"}}]}

    chat([{"role": "user", "content": "hi"}], "gpt-4o-mini")
    mlflow.trace(lambda city: 3, name="weather", span_type="TOOL")("Oslo")
    return names_found(mlflow)


@with_environment(MLFLOW_USE_DEFAULT_TRACER_PROVIDER="false")
def one_provider_for_both_sdks(mlflow):
    from opentelemetry import trace as otel

    tracer = otel.get_tracer("theirs")

    @mlflow.trace
    def answer(question):
        with tracer.start_as_current_span("database") as span:
            span.set_attribute("rows", 3)
        return question

    answer("why")
    with tracer.start_as_current_span("request"):
        answer("how")
    return names_found(mlflow)


@with_environment(MLFLOW_TRACE_EXTRACT_ATTACHMENTS="false")
def images_stay_in_the_trace(mlflow):
    @mlflow.trace
    def draw(words):
        return {"image": "data:image/png;base64,iVBORw0KGgo="}

    draw("a line")
    return last(mlflow).data.spans[0].outputs


@with_environment(MLFLOW_ACTIVE_MODEL_ID="m-00000000000000000000000000000007")
def a_model_by_its_id(mlflow):
    two_traces(mlflow)
    return [mlflow.get_active_model_id(), last(mlflow).info.trace_metadata.get("mlflow.modelId")]
