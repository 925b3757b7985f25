"""MLflow itself on the core: every place that its code, its integrations and its users reach for."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import os
import subprocess
import sys
import textwrap
from unittest import mock

import mlflow
import mlflow_fasttrace
import opentelemetry.trace as otel
import pytest
from support.spools import clean_up
from mlflow.entities import Feedback, SpanType, TraceInfo, TraceLocation, TraceState
from mlflow.entities.span import LiveSpan, NoOpSpan, Span, create_mlflow_span
from mlflow.pyfunc.context import Context, set_prediction_context
from mlflow.strands.autolog import StrandsSpanProcessor
from mlflow.tracing import provider
from mlflow.tracing.client import TracingClient
from mlflow.tracing.distributed import _get_tracing_headers_from_span
from mlflow.tracing.export.mlflow_v3 import MlflowV3SpanExporter
from mlflow.tracing.fluent import start_span as bound_start_span
from mlflow.tracing.fluent import start_span_no_context as bound_no_context
from mlflow.tracing.provider import (
    detach_span_from_context,
    get_current_otel_span,
    safe_set_span_in_context,
    set_span_in_context,
    trace_disabled,
    with_active_span,
)
from mlflow.tracing.trace_manager import InMemoryTraceManager
from mlflow.tracing.utils import get_mlflow_span_for_otel_span
from mlflow.tracing.utils.copy import copy_trace_to_experiment
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import patching
from mlflow_fasttrace._internal.recording import runtime
from mlflow_fasttrace._internal.seams import install
from opentelemetry.sdk.trace import TracerProvider
from support.records import spans_to_ring
from support.spools import base_environment


@trace_disabled
def untraced(function):
    return function()


class Ring:
    """What this process records, by name."""

    def __init__(self, reader):
        self._reader = reader
        self._records = []

    def _read(self, kind):
        self._records += [(item[1], _core.decode(item[3])) for item in self._reader.drain(1 << 20)]
        return [record for record_kind, record in self._records if record_kind == kind]

    def spans(self):
        """{name: (its own id, its parent's, trace id, attributes)}"""
        return {
            record[4]: (
                record[2].hex(),
                record[3].hex() if record[3] else None,
                record[1].hex(),
                record[9],
            )
            for record in self._read(1)
        }

    def infos(self):
        """{trace id: the last info that was recorded}"""
        return {record[1].hex(): record[8] for record in self._read(2)}

    def states(self):
        return {record[1].hex(): record[6] for record in self._read(2)}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert mlflow_fasttrace.install()
    _writer, reader = spans_to_ring(tmp_path)
    yield Ring(reader)
    mlflow_fasttrace.uninstall()
    runtime.reset()


# ---- functions that others hold ----


def test_names_that_were_bound_before_follow(installed):
    with bound_start_span("root", span_type=SpanType.AGENT) as root:
        child = bound_no_context("child", inputs={"a": 1})
        assert type(root) is type(child) is _core.LiveSpan
        assert mlflow.get_current_active_span() is root
        child.end()
    assert mlflow.start_span is bound_start_span
    spans = installed.spans()
    assert spans["child"][1] == spans["root"][0]
    assert spans["root"][3]["mlflow.spanType"] == "AGENT"


def test_signatures_stay(installed):
    for name in ("trace", "start_span", "start_span_no_context", "update_current_trace"):
        function = getattr(mlflow, name)
        assert list(inspect.signature(function).parameters) == list(
            inspect.signature(patching.original(function)).parameters
        )
    assert inspect.signature(bound_no_context).parameters["span_type"].default == SpanType.UNKNOWN


def everything():
    """What install() touches, as it is."""
    from mlflow.tracing.client import TracingClient
    from mlflow_fasttrace._internal.seams import table

    functions = [
        getattr(sys.modules[module], name)
        for module, names in table.FUNCTIONS.items()
        for name in names
    ]
    functions.append(TracingClient.store.fget)
    return [
        *((f, f.__code__, dict(f.__dict__), f.__defaults__, f.__kwdefaults__) for f in functions),
        dict(vars(InMemoryTraceManager)),
        dict(vars(LiveSpan)),
        type(provider.provider),
        type(provider.mlflow_runtime_context),
    ]


def test_uninstall_restores_everything():
    before = everything()
    assert mlflow_fasttrace.install()
    assert mlflow_fasttrace.is_installed()
    during = everything()
    assert all(one != other for one, other in zip(before, during, strict=True))
    mlflow_fasttrace.uninstall()
    assert not mlflow_fasttrace.is_installed()
    assert everything() == before


# ---- what is current ----


def test_current_span_by_every_way(installed):
    span = mlflow.start_span_no_context("span")
    token = set_span_in_context(span)
    assert token
    assert mlflow.get_current_active_span() is span
    assert get_current_otel_span().get_span_context().span_id == int(span.span_id, 16)
    assert otel.get_current_span(provider.get_current_context()) == span._span
    detach_span_from_context(token)
    assert mlflow.get_current_active_span() is None
    for scope in (safe_set_span_in_context, with_active_span):
        with scope(span):
            assert mlflow.get_active_trace_id() == span.trace_id
        assert mlflow.get_current_active_span() is None
    with pytest.raises(ValueError), with_active_span(span):
        raise ValueError("seen")
    assert span.events[0].attributes["exception.message"] == "seen"
    span.end()


def test_detaching_in_any_order_and_from_elsewhere(installed):
    first, second = (mlflow.start_span_no_context(name) for name in ("first", "second"))
    one = set_span_in_context(first)
    other = set_span_in_context(second)
    detach_span_from_context(one)  # what was current when the first was attached
    assert mlflow.get_current_active_span() is None
    detach_span_from_context(other)
    assert mlflow.get_current_active_span() is first
    with pytest.raises(RuntimeError):
        detach_span_from_context(other)
    token = contextvars.copy_context().run(set_span_in_context, second)
    detach_span_from_context(token)  # of another context: nothing to do
    assert mlflow.get_current_active_span() is first
    _core.current_span_var.set(None)
    first.end()
    second.end()


def test_a_no_op_span_as_the_current_one(installed, monkeypatch):
    with mlflow.tracing.context(enabled=False):
        nothing = mlflow.start_span_no_context("nothing")
    assert isinstance(nothing, NoOpSpan)
    with safe_set_span_in_context(nothing), mlflow.start_span("root") as root:
        assert root.parent_id is None
    _core.set_sampling(0.0)
    try:
        dropped = mlflow.start_span_no_context("dropped")
        with safe_set_span_in_context(dropped):
            _core.set_sampling(1.0)
            with mlflow.start_span("dropped with it") as span:
                assert isinstance(span, NoOpSpan)
    finally:
        _core.set_sampling(1.0)
    with safe_set_span_in_context(NoOpSpan()), mlflow.start_span("another root") as root:
        assert root.parent_id is None
    assert set(installed.spans()) == {"root", "another root"}


def test_opentelemetry_span_in_mlflows_context(installed):
    """As Semantic Kernel's integration attaches its spans."""
    outer = TracerProvider().get_tracer("t").start_span("of another library")
    token = provider.mlflow_runtime_context.attach(otel.set_span_in_context(outer))
    with mlflow.start_span("inside") as inside:
        assert inside.trace_id == f"tr-{outer.get_span_context().trace_id:032x}"
        assert inside.parent_id == f"{outer.get_span_context().span_id:016x}"
    provider.mlflow_runtime_context.detach(token)
    with mlflow.start_span("root") as root:
        assert root.parent_id is None
    assert mlflow.get_current_active_span() is None


# ---- spans ----


def test_spans_are_what_mlflow_expects(installed):
    with mlflow.start_span("span") as span:
        assert isinstance(span, LiveSpan)
        assert create_mlflow_span(span._span, span.trace_id) is span
        assert get_mlflow_span_for_otel_span(span._span) is span
        headers = patching.original(_get_tracing_headers_from_span)(span)  # by span._span
        assert headers["traceparent"].startswith(f"00-{span.trace_id[3:]}-{span.span_id}-0")
        assert _get_tracing_headers_from_span(span) == headers
        below = mlflow.start_span_no_context("below")
        other = mlflow.start_span_no_context("other")
        below._span._parent = other._span.context  # as ag2's integration moves spans
        assert below.parent_id == other.span_id
        below._span._name = "renamed"
        below._span._attributes["raw"] = "text"
        assert below._span.attributes["raw"] == "text"
        assert below.get_attribute("raw") == "text"
        below.end()
        other.end()
    spans = installed.spans()
    assert spans["renamed"][1] == spans["other"][0]


def test_mlflows_own_classes_stay(installed):
    made = TracerProvider().get_tracer("t").start_span("made by OpenTelemetry")
    span = create_mlflow_span(made, "tr-1")
    assert type(span) is LiveSpan
    assert type(span.to_immutable_span()) is Span
    assert _get_tracing_headers_from_span(span)["traceparent"].startswith("00-")
    with pytest.raises(mlflow.MlflowException, match="must be an instance"):
        LiveSpan(mock.MagicMock(), "tr-2")


def test_copies_of_spans(installed):
    with mlflow.start_span("root") as root:
        with mlflow.start_span("child") as child:
            child.set_outputs([1])
        spans = [root.to_immutable_span().to_dict(), child.to_immutable_span().to_dict()]
    new_id = copy_trace_to_experiment({"info": {"tags": {"t": "v"}}, "data": {"spans": spans}})
    trace_id = new_id.removeprefix("tr-")
    assert installed.infos()[trace_id]["tags"]["t"] == "v"
    copies = [record for record in installed._read(1) if record[1].hex() == trace_id]
    assert {record[4] for record in copies} == {"root", "child"}
    assert len({record[3] for record in copies} - {None}) == 1


# ---- traces in flight ----


def test_an_info_that_was_handed_out_counts(installed):
    manager = InMemoryTraceManager().get_instance()
    with mlflow.start_span("root") as root:
        mlflow.update_current_trace(tags={"before": "1"})
        with manager.get_trace(root.trace_id) as trace:
            assert trace.info.tags["before"] == "1"
            assert trace.get_root_span() is root
            trace.info.tags = {**trace.info.tags, "replaced": "2"}
            trace.info.trace_metadata["m"] = "3"
            trace.info.request_preview = "seen"
            trace.info.assessments.append(Feedback(name="f", value=True))
            kept = trace.info
        kept.response_preview = "later"
        kept.client_request_id = "request"
        mlflow.update_current_trace(tags={"after": "4"}, state="ERROR")
        mlflow.log_feedback(trace_id=root.trace_id, name="g", value=1)
        manager.set_trace_metadata(root.trace_id, "n", "5")
    info = installed.infos()[root.trace_id[3:]]
    assert info["tags"] == {
        "mlflow.traceName": "root",
        "before": "1",
        "replaced": "2",
        "after": "4",
    }
    assert info["metadata"] == {"m": "3", "n": "5"}
    assert info["request_preview"] == "seen"
    assert info["response_preview"] == "later"
    assert info["client_request_id"] == "request"
    assert [assessment["assessment_name"] for assessment in info["assessments"]] == ["f", "g"]
    assert installed.states()[root.trace_id[3:]] == 2
    with manager.get_trace(root.trace_id) as trace:
        assert trace is None


def test_the_trace_manager(installed):
    manager = InMemoryTraceManager.get_instance()
    assert manager is InMemoryTraceManager.get_instance()
    with mlflow.start_span("root") as root, mlflow.start_span("child") as child:
        otel_id = int(root.trace_id[3:], 16)
        assert manager.get_span_from_id(root.trace_id, child.span_id) is child
        assert manager.get_span_from_id(root.trace_id, "0" * 16) is None
        assert manager.get_root_span_id(root.trace_id) == root.span_id
        assert manager.get_mlflow_trace_id_from_otel_id(otel_id) == root.trace_id
        assert manager.has_open_spans(otel_id)
        assert root.trace_id in list(manager._traces)
        assert set(manager._traces[root.trace_id].span_dict) == {root.span_id, child.span_id}
        manager.register_span(child)
        popped = manager.pop_trace(otel_id)
        assert {span.name for span in popped.trace.data.spans} == {"root", "child"}
    assert manager.get_mlflow_trace_id_from_otel_id(otel_id) is None
    assert not manager.has_open_spans(otel_id)
    InMemoryTraceManager.reset()
    assert InMemoryTraceManager.get_instance() is not manager
    assert len(InMemoryTraceManager.get_instance()._traces) == 0


def test_spans_by_their_ids(installed):
    client = mlflow.MlflowClient()
    root = client.start_trace("root", tags={"t": "v"}, inputs=1)
    child = client.start_span("child", trace_id=root.trace_id, parent_id=root.span_id)
    client.set_trace_tag(root.trace_id, "u", "w")
    client.end_span(child.trace_id, child.span_id, outputs=2)
    client.end_trace(root.trace_id, outputs=3)
    spans = installed.spans()
    assert spans["child"][1] == spans["root"][0]
    assert spans["root"][3]["mlflow.spanOutputs"] == 3
    tags = installed.infos()[root.trace_id[3:]]["tags"]
    assert tags == {"mlflow.traceName": "root", "t": "v", "u": "w"}


def test_last_active_trace(installed):
    with mlflow.start_span("root") as root:
        pass
    assert mlflow.get_last_active_trace_id(thread_local=True) == root.trace_id
    mlflow.tracing.fluent._set_last_active_trace_id("tr-other")
    assert mlflow.get_last_active_trace_id() == "tr-other"


# ---- what MLflow's own code, and a test's, has to do with whole traces ----


def test_functions_in_the_place_of_those_that_export(installed):
    """As tests of programs watch what leaves: the names are looked up when a trace begins and ends."""
    with (
        mock.patch.object(TracingClient, "start_trace") as start_trace,
        mock.patch.object(TracingClient, "log_spans") as log_spans,
    ):
        with mlflow.start_span("root") as root:
            root.set_inputs("question")
            with mlflow.start_span("child"):
                pass
        with mlflow.start_span("failed") as failed:
            failed.set_status("ERROR")
    infos = [call.args[0] for call in start_trace.call_args_list]
    assert [info.trace_id for info in infos] == [root.trace_id, failed.trace_id]
    assert [info.state.value for info in infos] == ["OK", "ERROR"]
    assert infos[0].request_preview == '"question"'
    assert infos[0].execution_duration is not None
    spans = [[span.name for span in call.args[1]] for call in log_spans.call_args_list]
    assert spans == [["root", "child"], ["failed"]]
    with mlflow.start_span("not watched"):
        pass
    assert start_trace.call_count == 2


def test_mlflows_own_exporter_works_on_what_a_test_gives_it(installed):
    made = TracerProvider().get_tracer("t").start_span("made by OpenTelemetry")
    otel_id = made.get_span_context().trace_id
    info = TraceInfo(f"tr-{otel_id:032x}", TraceLocation.from_experiment_id("0"), 0, TraceState.OK)
    manager = InMemoryTraceManager.get_instance()
    manager.register_trace(otel_id, info)
    manager.register_span(create_mlflow_span(made, info.trace_id))
    assert manager.has_open_spans(otel_id)
    made.end()
    exporter = MlflowV3SpanExporter()
    exporter._is_async_enabled = False
    with (
        mock.patch.object(exporter._client, "start_trace") as start_trace,
        mock.patch.object(exporter._client, "log_spans") as log_spans,
        mock.patch.object(exporter._client, "_upload_trace_data"),
    ):
        exporter.export([made])
    assert start_trace.call_args.args[0] is info
    assert [span.name for span in log_spans.call_args.args[1]] == ["made by OpenTelemetry"]
    with manager.get_trace(info.trace_id) as trace:
        assert trace is None


def test_ended_spans_of_a_trace_that_was_looked_at(installed):
    manager = InMemoryTraceManager.get_instance()
    with mlflow.start_span("root") as root:
        with manager.get_trace(root.trace_id) as trace:
            assert len(trace.span_dict) == 1
        mlflow.start_span_no_context("child").end()
        with manager.get_trace(root.trace_id) as trace:
            assert [span.name for span in trace.span_dict.values()] == ["root", "child"]


def test_evaluation_finds_traces_by_its_own_id(installed):
    with set_prediction_context(Context(request_id="evaluated", is_evaluate=True)):
        with mlflow.start_span("root") as root:
            pass
    assert mlflow.tracing.fluent._EVAL_REQUEST_ID_TO_TRACE_ID["evaluated"] == root.trace_id


def test_an_experiment_that_was_set_without_a_word(installed, monkeypatch):
    with mlflow.start_span("before") as before:
        pass
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", "17")
    with mlflow.start_span("after") as after:
        pass
    experiments = [_core.decode(span._trace.destination)["experiment"] for span in (before, after)]
    assert experiments == [{"id": "0"}, {"id": "17"}]


def test_an_experiment_that_was_forgotten_without_a_word(tmp_path):
    """As MLflow's own fixtures do between tests."""
    program = """
        import os
        import mlflow, mlflow_fasttrace
        mlflow_fasttrace.install()
        from mlflow_fasttrace import _core
        fluent = mlflow.tracking.fluent
        def experiment():
            with mlflow.start_span("root") as span:
                return _core.decode(span._trace.destination)["experiment"]["id"]
        mlflow.set_tracking_uri("sqlite:///x.db")
        first = mlflow.set_experiment("first").experiment_id
        assert experiment() == first
        fluent._active_experiment_id = None
        del os.environ["MLFLOW_EXPERIMENT_ID"]
        assert experiment() == "0"
        mlflow.tracing.reset()
        assert experiment() == "0"
        fluent._active_experiment_id = mlflow.create_experiment("second")
        mlflow.tracing.reset()
        assert experiment() == fluent._active_experiment_id
        mlflow.set_experiment("first")
        mlflow.tracing.reset()
        assert experiment() == first
    """
    run(program, tmp_path, MLFLOW_FASTTRACE_SENDER="none")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("IS_IN_DB_MODEL_SERVING_ENV", "true", "Databricks serves this model"),
        ("MLFLOW_TRACING_DESTINATION", "catalog.schema", "Unity Catalog"),
    ],
)
def test_what_only_mlflow_itself_does(monkeypatch, name, value, reason):
    assert install.why_not() is None
    monkeypatch.setenv(name, value)
    assert reason in install.why_not()


def test_the_provider_says_whose_it_is(installed):
    expected = {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "mlflow",
        "telemetry.sdk.version": mlflow.__version__,
    }
    assert dict(mlflow.tracing.get_bridged_tracer_provider().resource.attributes) == expected
    with mlflow.start_span("root") as span:
        assert dict(span._span.resource.attributes) == expected


def test_a_span_of_the_provider_gets_its_type(installed):
    tracer = mlflow.tracing.get_bridged_tracer_provider().get_tracer("theirs")
    with tracer.start_as_current_span("theirs") as theirs:
        assert create_mlflow_span(theirs, "tr-any", "LLM").span_type == "LLM"


def test_a_token_that_is_not_ours(installed):
    before = mock.Mock()
    with mock.patch.object(provider.mlflow_runtime_context, "detach", before):
        detach_span_from_context((mock.sentinel.token, None))
    assert before.call_args == mock.call(mock.sentinel.token)


NOTEBOOK = """
import IPython
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
import mlflow_fasttrace
mlflow_fasttrace.install()
import mlflow
from mlflow.tracing.display import get_display_handler
def shown():
    with mlflow.start_span("root") as root:
        with mlflow.start_span("child"):
            pass
    return root.trace_id, get_display_handler().traces_to_display
trace_id, traces = shown()
assert list(traces) == [trace_id]
assert [span.name for span in traces[trace_id].data.spans] == ["root", "child"]
mlflow.tracing.disable_notebook_display()
traces.clear()
assert shown()[1] == {}
"""


def test_notebooks_show_traces(tmp_path):
    run(
        NOTEBOOK, tmp_path, MLFLOW_FASTTRACE_SENDER="none", MLFLOW_TRACKING_URI="http://127.0.0.1:9"
    )


# ---- the provider ----


def test_tracers_of_mlflows_provider(installed):
    with mlflow.start_span("root") as root:
        inside = provider.start_span_in_context("inside")
        detached = provider.start_detached_span("detached", parent=inside, start_time_ns=10**18)
        assert detached.parent.span_id == inside.get_span_context().span_id
        assert json.loads(detached.attributes["mlflow.spanStartTimeNs"]) == 10**18
        detached.end()
        inside.end()
        alone = provider._get_tracer("t").start_span("alone", context=otel.Context())
        alone.set_attributes({"plain": "text", "n": 1})
        alone.end()
    spans = installed.spans()
    assert spans["inside"][1] == root.span_id
    assert spans["detached"][1] == spans["inside"][0]
    assert spans["alone"][1] is None
    assert spans["alone"][2] != spans["root"][2]
    assert (spans["alone"][3]["plain"], spans["alone"][3]["n"]) == ("text", 1)


def test_switching_off(installed):
    def record():
        with mlflow.start_span("not recorded") as span:
            assert isinstance(span, NoOpSpan)
            assert isinstance(provider._get_tracer("t"), otel.NoOpTracer)

    untraced(record)  # decorated before the core was there
    trace_disabled(record)()
    mlflow.tracing.disable()
    assert not provider.is_tracing_enabled()
    record()
    mlflow.tracing.enable()
    assert provider.is_tracing_enabled()
    with mlflow.start_span("recorded"):
        pass
    assert set(installed.spans()) == {"recorded"}


def test_the_exporter_is_there(installed):
    exporter = provider._get_trace_exporter()
    assert hasattr(exporter, "_async_queue")
    with mock.patch(
        "mlflow_fasttrace._internal.recording.runtime.flush", return_value=True
    ) as flush:
        exporter._async_queue.flush(terminate=True)
        mlflow.flush_trace_async_logging()
        mlflow.tracing.fluent._flush_pending_async_trace_writes()
    assert flush.call_count == 3


def test_span_processors(installed):
    def hide(span):
        span.set_inputs("hidden")

    with mlflow.tracing.configure(span_processors=[hide]):
        assert mlflow.tracing.config.get_config().span_processors == [hide]
        with mlflow.start_span("span") as span:
            span.set_inputs("secret")
    assert mlflow.tracing.config.get_config().span_processors == []
    assert installed.spans()["span"][3]["mlflow.spanInputs"] == "hidden"


def test_where_traces_go_follows_mlflow(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    uri = mlflow.get_tracking_uri()
    try:
        mlflow_fasttrace.set_tracking_uri("http://one.invalid")
        mlflow.set_tracking_uri("http://two.invalid")
        assert mlflow_fasttrace.get_tracking_uri() == "http://two.invalid"
        mlflow_fasttrace.set_tracking_uri("http://three.invalid")
        assert mlflow.get_tracking_uri() == "http://three.invalid"
        with mock.patch("mlflow.get_tracking_uri", return_value="http://four.invalid"):
            assert runtime.tracking_uri() == "http://four.invalid"
    finally:
        mlflow.set_tracking_uri(uri)


# ---- spans that OpenTelemetry's SDK makes ----


def test_spans_of_integrations_over_opentelemetry(installed):
    """Strands' integration, as it is; its spans made by hand."""
    application = TracerProvider()
    application.add_span_processor(StrandsSpanProcessor())
    tracer = application.get_tracer("strands")
    with tracer.start_as_current_span("agent") as agent:
        agent.set_attribute("gen_ai.operation.name", "invoke_agent")
        agent.add_event("gen_ai.user.message", {"content": json.dumps([{"text": "hi"}])})
        with tracer.start_as_current_span("tool") as tool:
            tool.set_attribute("gen_ai.operation.name", "execute_tool")
            tool.add_event("gen_ai.choice", {"message": '{"n": 1}'})
            # Whoever has this span by MLflow's name nests under it.
            known = get_mlflow_span_for_otel_span(tool)
            assert type(known) is LiveSpan
            mlflow.start_span_no_context("below", parent_span=known).end()
            with safe_set_span_in_context(known):
                assert mlflow.get_current_active_span() is known
    spans = installed.spans()
    assert spans["agent"][2] == f"{agent.get_span_context().trace_id:032x}"
    assert spans["agent"][0] == f"{agent.get_span_context().span_id:016x}"
    assert spans["tool"][1] == spans["agent"][0]
    assert spans["below"][1] == spans["tool"][0]
    assert spans["agent"][3]["mlflow.spanType"] == "AGENT"
    assert "mlflow.spanLogLevel" not in spans["agent"][3]  # it ends as OpenTelemetry ends it
    assert spans["agent"][3]["mlflow.spanInputs"] == [{"role": "user", "content": [{"text": "hi"}]}]
    assert spans["tool"][3]["mlflow.spanOutputs"] == {"n": 1}


BEFORE = """
import mlflow
from mlflow.tracing.provider import safe_set_span_in_context
with mlflow.start_span("ended before") as ended:
    pass
before = mlflow.start_span_no_context("before")
import mlflow_fasttrace
assert mlflow_fasttrace.install()
child = mlflow.start_span_no_context("child", parent_span=before)
assert type(child).__module__ == "mlflow_fasttrace._core"
with safe_set_span_in_context(before), mlflow.start_span("inside"):
    before.set_outputs("still MLflow's own")
before.end()
child.end()
mlflow.flush_trace_async_logging()
spans = {span.name: span for span in mlflow.get_trace(before.trace_id).data.spans}
assert set(spans) == {"before", "child", "inside"}, spans
assert spans["child"].parent_id == spans["inside"].parent_id == before.span_id
assert spans["before"].outputs == "still MLflow's own"
assert mlflow.get_trace(before.trace_id).info.state == "OK"
assert mlflow.get_trace(ended.trace_id) is not None
"""


def test_spans_that_mlflow_had_started_before(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run(BEFORE, tmp_path, MLFLOW_TRACKING_URI=uri, MLFLOW_FASTTRACE_SENDER="thread")


# ---- where it cannot be ----


def test_a_moved_seam_is_named(monkeypatch, caplog):
    monkeypatch.delattr(provider, "set_span_in_context")
    assert not mlflow_fasttrace.install()
    assert not mlflow_fasttrace.is_installed()
    assert not mlflow_fasttrace.install()
    lines = [record.getMessage() for record in caplog.records]
    assert all("mlflow.tracing.provider.set_span_in_context is missing" in line for line in lines)
    assert lines


def test_a_new_parameter_is_named(monkeypatch, caplog):
    def start_span_no_context(name, span_type="", parent_span=None, colour=None):
        pass

    monkeypatch.setattr(mlflow.tracing.fluent, "start_span_no_context", start_span_no_context)
    assert not mlflow_fasttrace.install()
    assert "start_span_no_context takes 'colour'" in caplog.text


def test_an_mlflow_that_is_too_old(monkeypatch, caplog):
    monkeypatch.setattr(mlflow, "__version__", "3.16.1")
    assert not mlflow_fasttrace.install()
    assert "MLflow 3.16.1 is not as it is known here: it is older than 3.17" in caplog.text


def test_mlflow_that_is_imported_later(tmp_path):
    program = """
        import sys, mlflow_fasttrace
        assert mlflow_fasttrace.install() and mlflow_fasttrace.is_installed()
        assert "mlflow" not in sys.modules
        from mlflow.tracing.fluent import start_span
        import mlflow
        assert mlflow.__spec__.loader is mlflow.__loader__
        with start_span("root") as span:
            assert type(span).__module__ == "mlflow_fasttrace._core"
        mlflow_fasttrace.uninstall()
        assert start_span.__code__.co_filename == __import__("contextlib").__file__
    """
    run(program, tmp_path, MLFLOW_FASTTRACE_SENDER="none")


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"MLFLOW_FASTTRACE_DISABLE": "1"}, "MLFLOW_FASTTRACE_DISABLE is set"),
        ({"MLFLOW_USE_DEFAULT_TRACER_PROVIDER": "false"}, "own OpenTelemetry provider"),
        ({"WITHOUT_CORE": "1"}, "the C core cannot be loaded"),
    ],
)
def test_pure_mlflow_works_where_the_core_is_not_wanted(tmp_path, environment, line):
    program = """
        import logging, os, sys
        logging.basicConfig(level=logging.INFO)
        if os.environ.get("WITHOUT_CORE"):
            sys.modules["mlflow_fasttrace._core"] = None
        import mlflow_fasttrace as mlflow
        assert not mlflow.install() and not mlflow.is_installed()
        from mlflow_fasttrace.entities import SpanType
        with mlflow.start_span("root", span_type=SpanType.TOOL) as span:
            assert type(span).__module__ == "mlflow.entities.span"
        mlflow.openai.autolog
        mlflow.flush_trace_async_logging(terminate=True)
        assert mlflow.get_trace(span.trace_id).data.spans[0].name == "root"
    """
    result = run(program, tmp_path, **environment)
    assert line in result.stderr


def run(program, folder, **environment):
    script = folder / "program.py"
    script.write_text(textwrap.dedent(program))
    spool = folder / "spool"
    try:
        result = subprocess.run(
            [sys.executable, str(script)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=folder,
            env={**os.environ, **base_environment(spool), **environment},
        )
    finally:
        clean_up(spool)
    assert result.returncode == 0, result.stderr
    return result


# ---- several threads and tasks ----


def test_tasks_have_their_own_current_span(installed):
    async def branch(name):
        with mlflow.start_span(name):
            await asyncio.sleep(0)
            span = mlflow.start_span_no_context(f"{name} below")
            token = set_span_in_context(span)
            await asyncio.sleep(0)
            mlflow.start_span_no_context(f"{name} deeper").end()
            detach_span_from_context(token)
            span.end()

    async def main():
        with mlflow.start_span("root"):
            await asyncio.gather(*(branch(f"b{n}") for n in range(5)))

    asyncio.run(main())
    spans = installed.spans()
    for n in range(5):
        assert spans[f"b{n}"][1] == spans["root"][0]
        assert spans[f"b{n} below"][1] == spans[f"b{n}"][0]
        assert spans[f"b{n} deeper"][1] == spans[f"b{n} below"][0]
