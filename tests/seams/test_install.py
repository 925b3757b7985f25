"""MLflow itself on the core: every place that its code, its integrations and its users reach for."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import shutil
import textwrap
from pathlib import Path
from unittest import mock

import mlflow
import mlflow_fasttrace
import opentelemetry.trace as otel
import pytest
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
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.seams import install
from opentelemetry.sdk.trace import TracerProvider
from support.processes import Program
from support.records import Recorded
from support.spools import base_environment, clean_up


@trace_disabled
def untraced(function):
    return function()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """MLflow on the core, and what is recorded of it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert mlflow_fasttrace.install()
    recorded = Recorded(tmp_path)
    yield recorded
    mlflow_fasttrace.uninstall()
    recorded.end()


# ---- functions that others hold ----


def test_names_that_were_bound_before_follow(installed):
    with bound_start_span("root", span_type=SpanType.AGENT) as root:
        child = bound_no_context("child", inputs={"a": 1})
        assert type(root) is type(child) is _core.LiveSpan
        assert mlflow.get_current_active_span() is root
        child.end()
    assert mlflow.start_span is bound_start_span
    spans = installed.by_name()
    assert spans["child"].parent_id == spans["root"].span_id
    assert spans["root"].attributes["mlflow.spanType"] == "AGENT"


def test_signatures_stay(installed):
    for name in ("trace", "start_span", "start_span_no_context", "update_current_trace"):
        function = getattr(mlflow, name)
        assert list(inspect.signature(function).parameters) == list(
            inspect.signature(patching.original(function)).parameters
        )
    assert inspect.signature(bound_no_context).parameters["span_type"].default == SpanType.UNKNOWN


def everything():
    """The present state of all that install() touches."""
    from mlflow_fasttrace._internal.seams import apply

    functions = [
        apply.function_of(module, name)
        for module, names in apply.FUNCTIONS.items()
        for name in names
    ]
    functions = [function for function in functions if function is not None]
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


def test_the_current_span_is_current_by_every_way(installed):
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


def test_spans_are_detached_in_any_order_and_from_elsewhere(installed):
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


def test_what_starts_under_a_no_op_span_is_a_root_unless_it_was_not_sampled(installed, monkeypatch):
    with mlflow.tracing.context(enabled=False):
        nothing = mlflow.start_span_no_context("nothing")
    assert isinstance(nothing, NoOpSpan)
    with safe_set_span_in_context(nothing), mlflow.start_span("root") as root:
        assert root.parent_id is None
    _core.set_sampling(0.0)
    try:
        unsampled = mlflow.start_span_no_context("not sampled")
        with safe_set_span_in_context(unsampled):
            _core.set_sampling(1.0)
            with mlflow.start_span("not sampled with it") as span:
                assert isinstance(span, NoOpSpan)
    finally:
        _core.set_sampling(1.0)
    with safe_set_span_in_context(NoOpSpan()), mlflow.start_span("another root") as root:
        assert root.parent_id is None
    assert set(installed.by_name()) == {"root", "another root"}


def test_a_span_of_opentelemetry_in_mlflows_context_is_the_parent(installed):
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
    spans = installed.by_name()
    assert spans["renamed"].parent_id == spans["other"].span_id


def test_mlflows_own_classes_stay(installed):
    made = TracerProvider().get_tracer("t").start_span("made by OpenTelemetry")
    span = create_mlflow_span(made, "tr-1")
    assert type(span) is LiveSpan
    assert type(span.to_immutable_span()) is Span
    assert _get_tracing_headers_from_span(span)["traceparent"].startswith("00-")
    with pytest.raises(mlflow.MlflowException, match="must be an instance"):
        LiveSpan(mock.MagicMock(), "tr-2")


def test_copies_of_spans_are_one_trace(installed):
    with mlflow.start_span("root") as root:
        with mlflow.start_span("child") as child:
            child.set_outputs([1])
        spans = [root.to_immutable_span().to_dict(), child.to_immutable_span().to_dict()]
    new_id = copy_trace_to_experiment({"info": {"tags": {"t": "v"}}, "data": {"spans": spans}})
    trace_id = new_id.removeprefix("tr-")
    assert installed.traces()[trace_id].info["tags"]["t"] == "v"
    copies = {span.name: span for span in installed.spans() if span.trace_id == trace_id}
    assert set(copies) == {"root", "child"}
    assert copies["root"].parent_id is None
    assert copies["child"].parent_id == copies["root"].span_id


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
            handed_out = trace.info
        handed_out.response_preview = "later"
        handed_out.client_request_id = "request"
        mlflow.update_current_trace(tags={"after": "4"}, state="ERROR")
        mlflow.log_feedback(trace_id=root.trace_id, name="g", value=1)
        manager.set_trace_metadata(root.trace_id, "n", "5")
    recorded = installed.traces()[root.trace_id[3:]]
    info = recorded.info
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
    assert recorded.state == 2
    with manager.get_trace(root.trace_id) as trace:
        assert trace is None


def test_the_trace_manager_shows_the_traces_in_flight(installed):
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


def test_mlflows_client_finds_spans_by_their_ids(installed):
    client = mlflow.MlflowClient()
    root = client.start_trace("root", tags={"t": "v"}, inputs=1)
    child = client.start_span("child", trace_id=root.trace_id, parent_id=root.span_id)
    client.set_trace_tag(root.trace_id, "u", "w")
    client.end_span(child.trace_id, child.span_id, outputs=2)
    client.end_trace(root.trace_id, outputs=3)
    spans = installed.by_name()
    assert spans["child"].parent_id == spans["root"].span_id
    assert spans["root"].attributes["mlflow.spanOutputs"] == 3
    tags = installed.traces()[root.trace_id[3:]].info["tags"]
    assert tags == {"mlflow.traceName": "root", "t": "v", "u": "w"}


def test_the_last_active_trace_is_mlflows_and_the_cores(installed):
    with mlflow.start_span("root") as root:
        pass
    assert mlflow.get_last_active_trace_id(thread_local=True) == root.trace_id
    mlflow.tracing.fluent._set_last_active_trace_id("tr-other")
    assert mlflow.get_last_active_trace_id() == "tr-other"


# ---- what MLflow's own code, and a test's, has to do with whole traces ----


def test_functions_in_the_place_of_those_that_export_are_called(installed):
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


def test_a_trace_that_was_looked_at_keeps_its_ended_spans(installed):
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


def test_an_experiment_that_was_set_behind_its_back_counts(installed, monkeypatch):
    with mlflow.start_span("before") as before:
        pass
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", "17")
    with mlflow.start_span("after") as after:
        pass
    experiments = [_core.decode(span._trace.destination)["experiment"] for span in (before, after)]
    assert experiments == [{"id": "0"}, {"id": "17"}]


def test_an_experiment_that_was_reset_behind_its_back_counts_no_more(tmp_path):
    """As MLflow's own fixtures do between tests."""
    program = """
        import json, os
        import mlflow, mlflow_fasttrace
        mlflow_fasttrace.install()
        from mlflow_fasttrace import _core
        fluent = mlflow.tracking.fluent
        def experiment():
            with mlflow.start_span("root") as span:
                return _core.decode(span._trace.destination)["experiment"]["id"]
        mlflow.set_tracking_uri("sqlite:///x.db")
        first = mlflow.set_experiment("first").experiment_id
        second = mlflow.create_experiment("second")
        seen = [experiment()]
        fluent._active_experiment_id = None
        del os.environ["MLFLOW_EXPERIMENT_ID"]
        seen.append(experiment())
        mlflow.tracing.reset()
        seen.append(experiment())
        fluent._active_experiment_id = second
        mlflow.tracing.reset()
        seen.append(experiment())
        mlflow.set_experiment("first")
        mlflow.tracing.reset()
        seen.append(experiment())
        print(json.dumps([first, second, seen]))
    """
    first, second, seen = json.loads(run(program, tmp_path, MLFLOW_FASTTRACE_SENDER="none").out)
    assert seen == [first, "0", "0", second, first]
    assert len({first, second, "0"}) == 3


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("IS_IN_DB_MODEL_SERVING_ENV", "true", "Databricks serves this model"),
        ("MLFLOW_TRACING_DESTINATION", "catalog.schema", "Unity Catalog"),
    ],
)
def test_why_not_names_what_only_mlflow_itself_does(monkeypatch, name, value, reason):
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


def test_a_token_of_mlflows_own_is_detached_by_mlflow(installed):
    before = mock.Mock()
    with mock.patch.object(provider.mlflow_runtime_context, "detach", before):
        detach_span_from_context((mock.sentinel.token, None))
    assert before.call_args == mock.call(mock.sentinel.token)


NOTEBOOK = """
import json
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
first = {key: [span.name for span in trace.data.spans] for key, trace in traces.items()}
mlflow.tracing.disable_notebook_display()
traces.clear()
print(json.dumps([trace_id, first, list(shown()[1])]))
"""


def test_notebooks_show_traces(tmp_path):
    result = run(
        NOTEBOOK, tmp_path, MLFLOW_FASTTRACE_SENDER="none", MLFLOW_TRACKING_URI="http://127.0.0.1:9"
    )
    trace_id, shown, shown_afterwards = json.loads(result.out.splitlines()[-1])
    assert shown == {trace_id: ["root", "child"]}
    assert shown_afterwards == []


# ---- the provider ----


def test_tracers_of_mlflows_provider_record_on_the_core(installed):
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
    spans = installed.by_name()
    assert spans["inside"].parent_id == root.span_id
    assert spans["detached"].parent_id == spans["inside"].span_id
    assert spans["alone"].parent_id is None
    assert spans["alone"].trace_id != spans["root"].trace_id
    assert (spans["alone"].attributes["plain"], spans["alone"].attributes["n"]) == ("text", 1)


def test_switched_off_nothing_is_recorded(installed):
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
    assert set(installed.by_name()) == {"recorded"}


def test_the_exporters_queue_flushes_the_core(installed):
    exporter = provider._get_trace_exporter()
    assert hasattr(exporter, "_async_queue")
    with mock.patch("mlflow_fasttrace._internal.recording.flush.flush", return_value=True) as flush:
        exporter._async_queue.flush(terminate=True)
        mlflow.flush_trace_async_logging()
        mlflow.tracing.fluent._flush_pending_async_trace_writes()
    assert flush.call_count == 3


def test_span_processors_see_the_cores_spans(installed):
    def hide(span):
        span.set_inputs("hidden")

    with mlflow.tracing.configure(span_processors=[hide]):
        assert mlflow.tracing.config.get_config().span_processors == [hide]
        with mlflow.start_span("span") as span:
            span.set_inputs("secret")
    assert mlflow.tracing.config.get_config().span_processors == []
    assert installed.by_name()["span"].attributes["mlflow.spanInputs"] == "hidden"


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
            assert destination.tracking_uri() == "http://four.invalid"
    finally:
        mlflow.set_tracking_uri(uri)


# ---- spans that OpenTelemetry's SDK makes ----


def test_spans_of_integrations_over_opentelemetry_are_recorded(installed):
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
            # Spans nest under this one for a caller that has it as MLflow's.
            known = get_mlflow_span_for_otel_span(tool)
            assert type(known) is LiveSpan
            mlflow.start_span_no_context("below", parent_span=known).end()
            with safe_set_span_in_context(known):
                assert mlflow.get_current_active_span() is known
    spans = installed.by_name()
    assert spans["agent"].trace_id == f"{agent.get_span_context().trace_id:032x}"
    assert spans["agent"].span_id == f"{agent.get_span_context().span_id:016x}"
    assert spans["tool"].parent_id == spans["agent"].span_id
    assert spans["below"].parent_id == spans["tool"].span_id
    assert spans["agent"].attributes["mlflow.spanType"] == "AGENT"
    assert (
        "mlflow.spanLogLevel" not in spans["agent"].attributes
    )  # it ends as OpenTelemetry ends it
    assert spans["agent"].attributes["mlflow.spanInputs"] == [
        {"role": "user", "content": [{"text": "hi"}]}
    ]
    assert spans["tool"].attributes["mlflow.spanOutputs"] == {"n": 1}


BEFORE = """
import json
import mlflow
from mlflow.tracing.provider import safe_set_span_in_context
with mlflow.start_span("ended before") as ended:
    pass
before = mlflow.start_span_no_context("before")
import mlflow_fasttrace
assert mlflow_fasttrace.install()
child = mlflow.start_span_no_context("child", parent_span=before)
with safe_set_span_in_context(before), mlflow.start_span("inside"):
    before.set_outputs("still MLflow's own")
before.end()
child.end()
mlflow.flush_trace_async_logging()
trace = mlflow.get_trace(before.trace_id)
print(json.dumps({
    "before": before.span_id,
    "child is of": type(child).__module__,
    "parents": {span.name: span.parent_id for span in trace.data.spans},
    "outputs": {span.name: span.outputs for span in trace.data.spans},
    "state": trace.info.state,
    "ended before": [span.name for span in mlflow.get_trace(ended.trace_id).data.spans],
}))
"""


def test_spans_that_mlflow_had_started_before_stay_mlflows(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    result = run(BEFORE, tmp_path, MLFLOW_TRACKING_URI=uri, MLFLOW_FASTTRACE_SENDER="thread")
    facts = json.loads(result.out.splitlines()[-1])
    assert facts["child is of"] == "mlflow_fasttrace._core"
    assert facts["parents"] == {
        "before": None,
        "child": facts["before"],
        "inside": facts["before"],
    }
    assert facts["outputs"]["before"] == "still MLflow's own"
    assert facts["state"] == "OK"
    assert facts["ended before"] == ["ended before"]


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


def test_an_mlflow_that_is_too_old_is_left_as_it_is(monkeypatch, caplog):
    monkeypatch.setattr(mlflow, "__version__", "3.11.1")
    assert not mlflow_fasttrace.install()
    assert "MLflow 3.11.1 is older than 3.12, the oldest that is known here" in caplog.text


def test_an_mlflow_that_is_imported_later_is_on_the_core(tmp_path):
    program = """
        import json, sys, mlflow_fasttrace
        before = mlflow_fasttrace.install(), mlflow_fasttrace.is_installed(), "mlflow" in sys.modules
        from mlflow.tracing.fluent import start_span
        import mlflow
        same_loader = mlflow.__spec__.loader is mlflow.__loader__
        with start_span("root") as span:
            made_by = type(span).__module__
        mlflow_fasttrace.uninstall()
        import contextlib
        restored = start_span.__code__.co_filename == contextlib.__file__
        print(json.dumps([before, same_loader, made_by, restored]))
    """
    result = run(program, tmp_path, MLFLOW_FASTTRACE_SENDER="none")
    before, same_loader, made_by, restored = json.loads(result.out)
    assert before == [True, True, False]
    assert same_loader
    assert made_by == "mlflow_fasttrace._core"
    assert restored


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"MLFLOW_FASTTRACE_DISABLE": "1"}, "MLFLOW_FASTTRACE_DISABLE is set"),
        pytest.param(
            {"MLFLOW_USE_DEFAULT_TRACER_PROVIDER": "false"},
            "own OpenTelemetry provider",
            marks=pytest.mark.long,
        ),
        ({"WITHOUT": "mlflow_fasttrace._core"}, "this installation has no C core"),
        pytest.param(
            # What Windows lacks.
            {"WITHOUT": "mlflow_fasttrace._core fcntl grp pwd resource termios"},
            "this installation has no C core",
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"WITHOUT_GIL": "1"},
            "the C core needs the GIL, which PYTHON_GIL=0",
            marks=pytest.mark.long,
        ),
    ],
)
def test_every_name_works_where_mlflows_own_code_records(tmp_path, environment, line):
    program = """
        import logging, os, sys
        logging.basicConfig(level=logging.INFO)
        for name in os.environ.get("WITHOUT", "").split():
            sys.modules[name] = None
        if os.environ.get("WITHOUT_GIL"):
            sys._is_gil_enabled = lambda: False  # as builds of CPython have it
        import mlflow_fasttrace as mlflow
        installed = mlflow.install(), mlflow.is_installed()
        from mlflow_fasttrace.entities import SpanType
        from mlflow_fasttrace.fluent import start_span
        from mlflow_fasttrace.traces import get_trace
        from mlflow_fasttrace.otel import TracerProvider
        tracer = TracerProvider(resource=None).get_tracer("library")
        with start_span("root", span_type=mlflow.SpanType.TOOL) as span:
            made_by = type(span).__module__
            with mlflow.context(tags={"by": "context"}), mlflow.start_span("of a scope"):
                pass
        with tracer.start_as_current_span("of a library"):
            pass
        for name in dir(mlflow):
            getattr(mlflow, name)
        TracerProvider().force_flush()
        read_back = get_trace(span.trace_id).data.spans
        ids = [trace.info.experiment_id for trace in mlflow.search_traces(return_type="list")]
        import json
        print(json.dumps([installed, made_by, [span.name for span in read_back], len(ids)]))
    """
    result = run(program, tmp_path, **environment)
    assert result.err.count(line) == 1
    installed, made_by, read_back, traces = json.loads(result.out.splitlines()[-1])
    assert installed == [False, False]
    assert made_by == "mlflow.entities.span"
    assert read_back == ["root", "of a scope"]
    assert traces == 2


def test_the_line_says_why_a_core_that_is_there_cannot_be_loaded(tmp_path):
    package = Path(mlflow_fasttrace.__file__).parent
    copy = tmp_path / "site/mlflow_fasttrace"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (copy / "_core.abi3.so").write_text("no library")
    program = """
        import mlflow_fasttrace as mlflow
        with mlflow.start_span("root") as span:
            print(type(span).__module__)
    """
    result = run(program, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert result.out.split() == ["mlflow.entities.span"]
    assert "the C core cannot be loaded" in result.err
    assert "_core.abi3.so" in result.err


def run(program: str, folder: Path, **environment: str) -> Program:
    """Runs a program with a spool of its own, which must end well."""
    spool = folder / "spool"
    settings = {**base_environment(spool), **environment}
    try:
        process = Program(textwrap.dedent(program), folder, **settings)
        process.succeeds()
    finally:
        clean_up(spool)
    return process


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
    spans = installed.by_name()
    for n in range(5):
        assert spans[f"b{n}"].parent_id == spans["root"].span_id
        assert spans[f"b{n} below"].parent_id == spans[f"b{n}"].span_id
        assert spans[f"b{n} deeper"].parent_id == spans[f"b{n} below"].span_id
