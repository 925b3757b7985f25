"""OpenTelemetry beside the core: providers, and the process-wide context. What MLflow does too is in
programs/otel.py, and compared with MLflow in api/test_programs_equal_to_mlflow.py."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading

import mlflow_fasttrace as fasttrace
import opentelemetry.context
import opentelemetry.trace as otel
import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.config import engine
from mlflow_fasttrace._internal.seams.sdk_spans import CoreSpanProcessor
from mlflow_fasttrace._internal.spool.records import SPAN, SpanRecord
from mlflow_fasttrace.otel import TracerProvider
from mlflow_fasttrace.tracing import get_bridged_tracer_provider
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.records import items_of, spans_in


@pytest.fixture
def linked(recorded):
    """What is recorded while OpenTelemetry's context and the core's see each other."""
    from mlflow_fasttrace._internal.spans.otel_context import link_contexts

    assert link_contexts(True)
    yield recorded
    assert link_contexts(False)
    assert type(opentelemetry.context._RUNTIME_CONTEXT) is ContextVarsRuntimeContext


@pytest.fixture
def release():
    """Has the core follow another release of MLflow for the time of a test."""
    yield _core.follow_mlflow
    engine.follow_release()


@pytest.mark.parametrize("kind", otel.SpanKind)
def test_the_kind_of_a_span_travels(kind, recorded, release):
    tracer = TracerProvider().get_tracer("library")
    span = tracer.start_span("span", kind=kind)
    assert span.kind is kind
    span.end()
    (record,) = [record for type_, _trace, record in items_of(recorded.reader) if type_ == SPAN]
    assert SpanRecord.of(record).otel_kind == kind.value
    assert SpanRecord.of(record).links == []
    in_otlp = []
    for minor in (17, 18):
        release(3, minor)
        body, refused, inexact = _core.otlp_request([record])
        assert refused == inexact == []
        request = ExportTraceServiceRequest.FromString(body)
        in_otlp.append(request.resource_spans[0].scope_spans[0].spans[0].kind)
        fields = json.loads(_core.span_json(record))
        assert fields.get("kind") == (f"SPAN_KIND_{kind.name}" if minor == 18 else None)
        assert _core.span_summary(record)[2] == len(_core.span_json(record))
    assert in_otlp == [0, kind.value + 1]
    nothing = _core.encode({})
    body, refused = _core.collector_request([(record, 0, nothing, None)], nothing, False)[:2]
    request = ExportTraceServiceRequest.FromString(body)
    assert request.resource_spans[0].scope_spans[0].spans[0].kind == kind.value + 1
    assert not refused


@pytest.mark.parametrize("kind", [None, 1, "SERVER"])
def test_a_kind_that_is_none_is_internal(kind, recorded):
    span = TracerProvider().get_tracer("library").start_span("span", kind=kind)
    assert span.kind is otel.SpanKind.INTERNAL
    span._kind = otel.SpanKind.CLIENT
    span.end()
    assert [record.otel_kind for record in spans_in(recorded.reader)] == [2]
    for wrong in (-1, 5, "no", None):
        with pytest.raises((ValueError, TypeError)):
            fasttrace.start_span_no_context("span")._kind = wrong


def test_the_kind_of_a_library_s_own_span_is_its_twins(recorded):
    provider = SdkTracerProvider()
    provider.add_span_processor(CoreSpanProcessor())
    provider.get_tracer("library").start_span("theirs", kind=otel.SpanKind.PRODUCER).end()
    assert [record.otel_kind for record in spans_in(recorded.reader)] == [3]


def test_a_provider_by_itself_records_on_the_core(recorded):
    tracer = TracerProvider().get_tracer("library", "1.0")
    with tracer.start_as_current_span("outer", attributes={"k": "v"}) as outer:
        assert outer.is_recording()
        assert outer.instrumentation_scope.name == "library"
        assert otel.get_current_span() is outer
        tracer.start_span("inner").end()
        tracer.start_span("apart", context=otel.Context()).end()
    assert not outer.is_recording()
    spans = recorded.by_name()
    assert spans["inner"].parent_id == spans["outer"].span_id
    assert spans["apart"].parent_id is None
    assert spans["apart"].trace_id != spans["outer"].trace_id
    assert spans["outer"].attributes["k"] == "v"
    assert spans["outer"].status == 0  # no status was set


def test_spans_of_a_bridged_provider_stay_apart_unless_a_context_joins_them(recorded):
    assert get_bridged_tracer_provider() is get_bridged_tracer_provider()
    tracer = get_bridged_tracer_provider().get_tracer("library")
    with fasttrace.start_span("ours") as ours:
        tracer.start_span("apart").end()
        context = otel.set_span_in_context(ours._span)
        tracer.start_span("joined", context=context).end()
    spans = recorded.by_name()
    assert spans["apart"].parent_id is None
    assert spans["joined"].parent_id == spans["ours"].span_id


def test_nothing_is_recorded_while_tracing_is_off_or_not_sampled(recorded):
    provider = TracerProvider()
    tracer = provider.get_tracer("library")
    fasttrace.tracing.disable()
    try:
        assert isinstance(provider.get_tracer("library"), otel.NoOpTracer)
        with tracer.start_as_current_span("off") as span:
            assert not span.is_recording()
    finally:
        fasttrace.tracing.enable()
    _core.set_sampling(0.0)
    try:
        with tracer.start_as_current_span("not sampled") as span:
            assert not span.is_recording()
            _core.set_sampling(1.0)
            with tracer.start_as_current_span("not sampled either") as inside:
                assert not inside.is_recording()
    finally:
        _core.set_sampling(1.0)
    assert recorded.spans() == []


def test_processors_that_are_added_see_the_spans(recorded):
    seen = []

    class Observer(SpanProcessor):
        def on_start(self, span, parent_context=None):
            span.set_attribute("observed", True)
            seen.append(("start", span.name))

        def on_end(self, span):
            seen.append(("end", span.name, span.end_time is not None))

    provider = TracerProvider()
    provider.add_span_processor(Observer())
    with provider.get_tracer("library").start_as_current_span("span"):
        pass
    assert seen == [("start", "span"), ("end", "span", True)]
    assert recorded.by_name()["span"].attributes["observed"] is True


# ---- the process-wide context ----


def test_contexts_are_apart_unless_asked_for(recorded):
    application = SdkTracerProvider().get_tracer("application")
    with fasttrace.start_span("ours"), application.start_as_current_span("theirs") as theirs:
        assert theirs.parent is None
        with fasttrace.start_span("below"):
            pass
    spans = recorded.by_name()
    assert spans["below"].parent_id == spans["ours"].span_id


def test_linked_spans_of_all_kinds_nest_under_each_other(linked):
    exporter = InMemorySpanExporter()
    own = SdkTracerProvider()
    own.add_span_processor(SimpleSpanProcessor(exporter))
    application = own.get_tracer("application")
    bridged = TracerProvider().get_tracer("library")
    with fasttrace.start_span("a"):
        with application.start_as_current_span("b"):
            with fasttrace.start_span("c"):
                with bridged.start_as_current_span("d"):

                    @fasttrace.trace
                    def e():
                        with application.start_as_current_span("f"):
                            pass

                    e()
    ids = {span.name: (span.span_id, span.parent_id) for span in linked.spans()}
    for span in exporter.get_finished_spans():
        ids[span.name] = (f"{span.context.span_id:016x}", f"{span.parent.span_id:016x}")
    assert set(ids) == set("abcdef")
    for parent, child in zip("abcde", "bcdef", strict=True):
        assert ids[child][1] == ids[parent][0], (parent, child)


def test_spans_under_one_of_the_application_have_its_trace_id(linked):
    application = SdkTracerProvider().get_tracer("application")
    with application.start_as_current_span("theirs") as theirs:
        with fasttrace.start_span("first") as first:
            assert fasttrace.get_current_active_span() is first
            trace = first._trace
        with fasttrace.start_span("second"):
            pass
    assert not trace.remote  # nobody else tells MLflow of it
    with fasttrace.start_span("outside"):
        pass
    spans = linked.by_name()
    for name in ("first", "second"):
        assert spans[name].parent_id == f"{theirs.get_span_context().span_id:016x}"
        assert spans[name].trace_id == f"{theirs.get_span_context().trace_id:032x}"
    assert spans["outside"].parent_id is None


def test_baggage_and_other_values_stay(linked):
    from opentelemetry import baggage

    token = opentelemetry.context.attach(baggage.set_baggage("key", "value"))
    with fasttrace.start_span("ours") as ours:
        assert baggage.get_baggage("key") == "value"
        assert otel.get_current_span() == ours._span
    opentelemetry.context.detach(token)
    assert baggage.get_baggage("key") is None
    assert otel.get_current_span() is otel.INVALID_SPAN


def test_linked_spans_nest_in_threads_and_tasks(linked):
    bridged = TracerProvider().get_tracer("library")

    def in_a_thread(context):
        token = opentelemetry.context.attach(context)  # as OpenTelemetry's own helpers do
        with fasttrace.start_span("carried by OpenTelemetry"):
            pass
        opentelemetry.context.detach(token)

    async def task(n):
        with bridged.start_as_current_span(f"theirs {n}"):
            await asyncio.sleep(0)
            with fasttrace.start_span(f"ours {n}"):
                await asyncio.sleep(0)
                bridged.start_span(f"below {n}").end()

    async def tasks():
        await asyncio.gather(*(task(n) for n in range(4)))

    with fasttrace.start_span("root"):
        asyncio.run(tasks())
        threads = [
            threading.Thread(target=in_a_thread, args=(opentelemetry.context.get_current(),)),
            threading.Thread(
                target=contextvars.copy_context().run,
                args=(lambda: bridged.start_span("carried by Python").end(),),
            ),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    spans = linked.by_name()
    assert spans["carried by OpenTelemetry"].parent_id == spans["root"].span_id
    assert spans["carried by Python"].parent_id == spans["root"].span_id
    for n in range(4):
        assert spans[f"theirs {n}"].parent_id == spans["root"].span_id
        assert spans[f"ours {n}"].parent_id == spans[f"theirs {n}"].span_id
        assert spans[f"below {n}"].parent_id == spans[f"ours {n}"].span_id
