"""Every part of the API, over and over: memory stays flat.  leaks.py ROUNDS

Runs on any Python that has the package, cloudpickle and MLflow (mlflow-skinny will do).
"""

from __future__ import annotations

import gc
import logging
import resource
import sys
import tempfile

import cloudpickle
import mlflow as real
import mlflow.entities
import mlflow_fasttrace as mlflow
from mlflow.entities.trace_location import MlflowExperimentLocation, TraceLocation
from mlflow.tracing import provider
from mlflow.tracing.attachments import Attachment
from mlflow.tracing.trace_manager import InMemoryTraceManager
from mlflow_fasttrace import _core, otel, tracing
from mlflow_fasttrace._internal.spans.otel_context import link_contexts
from opentelemetry.sdk.trace import TracerProvider

ROUNDS = int(sys.argv[1])
ALLOWED_BYTES = 600_000

folder = tempfile.mkdtemp()
ring = _core.RingWriter(folder + "/1-00000000.ring", 1 << 20, folder + "/spill")
reader = _core.RingReader(folder + "/1-00000000.ring")
_core.set_destination(ring, {"uri": "test"})


@mlflow.trace
def plain(x, *rest, y=1, **others):
    return [x]


@mlflow.trace
def fails():
    raise ValueError("no")


@mlflow.trace
def stream(n):
    for i in range(n):
        yield {"item": i}


@mlflow.trace(output_reducer=len)
def reduced():
    yield 1


@mlflow.trace
async def call(n):
    return n


@mlflow.trace
async def items():
    yield 1


class Odd:
    def __str__(self):
        raise RuntimeError


class Event:
    name, timestamp, attributes = "exception", 1, {"k": "v"}


cycle = []
cycle.append(cycle)


def drive(coroutine):
    try:
        coroutine.send(None)
    except StopIteration:
        pass


async def consume():
    async for _ in items():
        break
    generator = items()
    await generator.__anext__()
    await generator.aclose()


def calls():
    plain(1, 2, z=3)


def errors():
    for call in (fails, plain):
        try:
            call()
        except (ValueError, TypeError):
            pass


def generators():
    list(stream(3))
    list(reduced())
    for _ in stream(3):
        break
    generator = stream(2)
    next(generator)
    generator.close()
    generator = stream(2)
    next(generator)
    try:
        generator.throw(KeyError("k"))
    except KeyError:
        pass


async def suspended():
    async for _ in waits():
        pass


class Suspends:
    def __await__(self):
        yield


@mlflow.trace
async def waits():
    await Suspends()
    yield 1


def coroutines():
    drive(call(1))
    coroutine = suspended()
    coroutine.send(None)
    coroutine.close()
    drive(consume())


def span_methods():
    with mlflow.start_span("s", attributes={"a": 1}, description="d", log_level="INFO") as span:
        span.set_inputs({"deep": [{"a": 1.5, "b": None, "c": b"x", "d": Odd(), "e": cycle}]})
        for n in range(20):
            span.set_attribute(f"k{n}", "v" * n)
            span.set_attribute("same", n)
        span.set_outputs(10**30)
        span.add_event(Event)
        span.record_exception("words")
        (
            span.inputs,
            span.outputs,
            span.attributes,
            span._event_tuples,
            span._status_pair,
            repr(span),
        )
        span.get_attribute("k1")
        span.trace_id, span.span_id, span.parent_id, span.name, span.start_time_ns, span.span_type
        mlflow.update_current_trace(tags={"a": "b"}, metadata={"c": "d"}, request_preview="r")
        span.to_dict(), span._span, span.links, span.get_attribute("no")
        try:
            span["inputs"]
        except TypeError:
            pass
    span.end()


def by_hand():
    root = mlflow.start_span_no_context("root", inputs=[1], tags={"t": "v"}, metadata={"m": "v"})
    child = mlflow.start_span_no_context("child", parent_span=root, start_time_ns=1)
    child._append_link("tr-1", "2", {"a": 1})
    mlflow.set_trace_tag(root.trace_id, "k", "v")
    mlflow.delete_trace_tag(root.trace_id, "k")
    root._trace.assessments.append({"a": 1})
    root.end()
    child.end(outputs=(1, {object()}))


sampled = mlflow.trace(lambda: mlflow.get_current_active_span(), sampling_ratio_override=0.5)


def switches():
    sampled()
    with tracing.context(tags={"a": "b"}, session_id="s"):
        fails_quietly()
        with tracing.context(enabled=False):
            plain(1)
    with tracing.configure(span_processors=[lambda span: span.set_outputs("masked")]):
        plain(1)
    tracing.trace_disabled(plain)(1)
    mlflow.start_span("decorator")(plain)(1)


def fails_quietly():
    try:
        fails()
    except ValueError:
        pass


def decorating():
    traced = mlflow.trace(lambda a, b=[]: a, name="n", attributes={"x": [1]})
    traced(1), traced.__get__(1)(), repr(traced), traced.__code__, traced.__signature__
    traced.own = traced
    del traced.own
    again = cloudpickle.loads(cloudpickle.dumps(traced))
    again(1)
    Holder.method(Holder()), Holder().method(), Holder().shown


class Holder:
    @mlflow.trace
    def method(self):
        return 1

    @mlflow.trace
    @property
    def shown(self):
        return 1


def sending():
    records = [data for _, kind, _, data in reader.drain(1 << 20) if kind == 1]
    if records:
        _core.otlp_request(records)
        extra = _core.encode({"tag": "value"})
        _core.collector_request([(record, 1, extra, None) for record in records], extra, True)
        _core.collector_request([(record, 3, extra, b"name") for record in records], extra, False)
        for record in records:
            _core.span_summary(record), _core.span_json(record), _core.decode(record)
        _core.write_segment(folder + "/segment", records, 1)
        _core.SegmentReader(folder + "/segment").read(1 << 20)


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def values():
    span = mlflow.start_span_no_context("values")
    for value in (1 << 70, float("nan"), "\\ud800", (1, {2}), {3: [4]}, Holder, Odd(), Holder()):
        span.set_attribute("value", value)
        span.set_inputs(value)
        span.get_attribute("value"), span.inputs
    span.set_outputs(
        [{"b64_json": "aGVsbG8="}, Attachment(content_type="image/png", content_bytes=b"content")]
    )
    span.end()


def lookups():
    with mlflow.start_span("span") as span:
        mlflow.get_current_active_span(), mlflow.get_active_trace_id()
        mlflow.update_current_trace(
            client_request_id="c", state="ERROR", session_id="s", user="u", response_preview="p"
        )
        mlflow.log_feedback(trace_id=span.trace_id, name="f", value=1)
        mlflow.log_expectation(trace_id=span.trace_id, name="e", value="x")
        span.to_immutable_span(), span.set_span_type("LLM"), span.set_log_level("DEBUG")
        span.set_description("d"), span.set_status("ERROR"), span.record_exception(KeyError("k"))
        span.llm_cost, span.model_name, span.events, span.status, span.log_level, span.request_id
    mlflow.get_last_active_trace_id(), mlflow.get_last_active_trace_id(thread_local=True)


recorded = mlflow.start_span_no_context("recorded").to_immutable_span()
info = mlflow.entities.TraceInfo(
    recorded.trace_id, TraceLocation.from_experiment_id("0"), 1, mlflow.entities.TraceState.OK
)
whole = mlflow.entities.Trace(info, mlflow.entities.TraceData([recorded])).to_dict()


def whole_traces():
    with mlflow.start_span("around") as span:
        mlflow.add_trace(whole)
        mlflow.add_trace(whole, target=span)
    mlflow.log_trace(
        name="t", request=1, response=2, intermediate_outputs={"a": 1}, tags={"t": "v"}
    )


def destinations():
    tracing.set_destination(MlflowExperimentLocation("7"), context_local=True)
    plain(1)
    tracing.set_destination(MlflowExperimentLocation("0"))
    tracing.disable(), plain(1), tracing.enable()


bridged = otel.TracerProvider().get_tracer("library")
sdk = TracerProvider().get_tracer("application")


def other_processes_and_libraries():
    headers = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "a=b"}
    with tracing.set_tracing_context_from_http_request_headers(headers):
        plain(1)
        tracing.get_tracing_context_headers_for_http_request()
    headers["traceparent"] = headers["traceparent"][:-1] + "0"
    with tracing.set_tracing_context_from_http_request_headers(headers):
        plain(1)
    with bridged.start_as_current_span("theirs", attributes={"plain": "text"}) as span:
        dict(span.attributes), span.parent, span.context, span.add_event("e", {"a": 1})
        link_contexts(True)
        plain(1)
        with bridged.start_as_current_span("below"):
            pass
        link_contexts(False)


def on_the_core():
    with real.start_span("root") as span:
        token = provider.set_span_in_context(span)
        provider.detach_span_from_context(token)
        with InMemoryTraceManager.get_instance().get_trace(span.trace_id) as trace:
            trace.info.tags = {**trace.info.tags, "a": "b"}
            trace.info.request_preview = "p"
        real.start_span_no_context("child", parent_span=span).end()
        detached = provider.start_detached_span("detached")
        detached.end()
    made = sdk.start_span("made by OpenTelemetry")
    processor.on_start(made, None)
    made.end()
    processor.on_end(made)


logging.disable(logging.CRITICAL)


def run(step, rounds):
    for _ in range(rounds):
        step()
        sending()
        reader.release(reader.cursor)
    gc.collect()


STEPS = (
    calls,
    errors,
    generators,
    coroutines,
    span_methods,
    by_hand,
    switches,
    decorating,
    values,
    lookups,
    whole_traces,
    other_processes_and_libraries,
    on_the_core,
    destinations,
)
for step in STEPS:
    if step is on_the_core:
        assert mlflow.install()
        _core.set_destination(ring, {"uri": "test", "experiment": {"id": "0"}})
        processor = provider._get_span_processor()
    run(step, max(ROUNDS // 10, 500))
    before = resident()
    run(step, ROUNDS)
    grown = resident() - before
    if step is on_the_core:
        mlflow.uninstall()
        _core.set_destination(ring, {"uri": "test"})
    print(f"{step.__name__}: {grown} bytes in {ROUNDS} rounds", flush=True)
    if grown > ALLOWED_BYTES:
        sys.exit(f"{step.__name__} grows by {grown / ROUNDS:.1f} bytes a round")
