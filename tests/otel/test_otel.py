"""OpenTelemetry beside the core: providers, and the process-wide context. What MLflow does as well is
in otel_programs.py, and compared with it in test_equal_to_mlflow.py."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import mlflow_fasttrace as fasttrace
import opentelemetry.context
import opentelemetry.trace as otel
import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import runtime
from mlflow_fasttrace.otel import TracerProvider
from mlflow_fasttrace.tracing import get_bridged_tracer_provider
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.records import spans_to_ring


@pytest.fixture
def recorded(tmp_path):
    """Name -> (its id, its parent's, trace id, record) of the spans that this process records."""
    _writer, reader = spans_to_ring(tmp_path)

    def read():
        records = [_core.decode(item[3]) for item in reader.drain(1 << 20) if item[1] == 1]
        return {r[4]: (r[2].hex(), r[3].hex() if r[3] else "", r[1].hex(), r) for r in records}

    yield read
    runtime.reset()


@pytest.fixture
def linked(recorded):
    from mlflow_fasttrace._internal.spans.otel_context import link_contexts

    assert link_contexts(True)
    yield recorded
    assert link_contexts(False)
    assert type(opentelemetry.context._RUNTIME_CONTEXT) is ContextVarsRuntimeContext


def test_a_provider_by_itself(recorded):
    tracer = TracerProvider().get_tracer("library", "1.0")
    with tracer.start_as_current_span("outer", attributes={"k": "v"}) as outer:
        assert outer.is_recording()
        assert outer.instrumentation_scope.name == "library"
        assert otel.get_current_span() is outer
        tracer.start_span("inner").end()
        tracer.start_span("apart", context=otel.Context()).end()
    assert not outer.is_recording()
    spans = recorded()
    assert spans["inner"][1] == spans["outer"][0]
    assert spans["apart"][1] == ""
    assert spans["apart"][2] != spans["outer"][2]
    assert spans["outer"][3][9]["k"] == "v"
    assert spans["outer"][3][7] == 0  # no status was set


def test_spans_of_a_bridged_provider(recorded):
    assert get_bridged_tracer_provider() is get_bridged_tracer_provider()
    tracer = get_bridged_tracer_provider().get_tracer("library")
    with fasttrace.start_span("ours") as ours:
        tracer.start_span("apart").end()
        context = otel.set_span_in_context(ours._span)
        tracer.start_span("joined", context=context).end()
    spans = recorded()
    assert spans["apart"][1] == ""
    assert spans["joined"][1] == spans["ours"][0]


def test_while_tracing_is_off(recorded):
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
        with tracer.start_as_current_span("dropped") as span:
            assert not span.is_recording()
            _core.set_sampling(1.0)
            with tracer.start_as_current_span("dropped too") as inside:
                assert not inside.is_recording()
    finally:
        _core.set_sampling(1.0)
    assert recorded() == {}


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
    assert recorded()["span"][3][9]["observed"] is True


# ---- the process-wide context ----


def test_contexts_are_apart_unless_asked_for(recorded):
    application = SdkTracerProvider().get_tracer("application")
    with fasttrace.start_span("ours"), application.start_as_current_span("theirs") as theirs:
        assert theirs.parent is None
        with fasttrace.start_span("below"):
            pass
    spans = recorded()
    assert spans["below"][1] == spans["ours"][0]


def test_each_under_the_other(linked):
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
    ids = {name: (span[0], span[1]) for name, span in linked().items()}
    for span in exporter.get_finished_spans():
        ids[span.name] = (f"{span.context.span_id:016x}", f"{span.parent.span_id:016x}")
    assert set(ids) == set("abcdef")
    for parent, child in zip("abcde", "bcdef", strict=True):
        assert ids[child][1] == ids[parent][0], (parent, child)


def test_under_a_span_of_the_application(linked):
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
    spans = linked()
    for name in ("first", "second"):
        assert spans[name][1] == f"{theirs.get_span_context().span_id:016x}"
        assert spans[name][2] == f"{theirs.get_span_context().trace_id:032x}"
    assert spans["outside"][1] == ""


def test_baggage_and_other_values_stay(linked):
    from opentelemetry import baggage

    token = opentelemetry.context.attach(baggage.set_baggage("key", "value"))
    with fasttrace.start_span("ours") as ours:
        assert baggage.get_baggage("key") == "value"
        assert otel.get_current_span() == ours._span
    opentelemetry.context.detach(token)
    assert baggage.get_baggage("key") is None
    assert otel.get_current_span() is otel.INVALID_SPAN


def test_threads_and_tasks(linked):
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
    spans = linked()
    assert spans["carried by OpenTelemetry"][1] == spans["root"][0]
    assert spans["carried by Python"][1] == spans["root"][0]
    for n in range(4):
        assert spans[f"theirs {n}"][1] == spans["root"][0]
        assert spans[f"ours {n}"][1] == spans[f"theirs {n}"][0]
        assert spans[f"below {n}"][1] == spans[f"ours {n}"][0]
