"""Programs for the calls around spans and traces."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import functools
import importlib
import os
import threading

from programs import Programs, with_mlflow

PROGRAMS = Programs()
program = PROGRAMS.add


def api(mlflow):
    """``mlflow.tracing`` of the module under test."""
    return importlib.import_module(f"{mlflow.__name__}.tracing")


def experiment(mlflow, name):
    """A second experiment, made by the first of the two that runs."""
    from mlflow import MlflowClient

    client = MlflowClient(mlflow.get_tracking_uri())
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


def location(experiment_id):
    from mlflow.entities.trace_location import MlflowExperimentLocation

    return MlflowExperimentLocation(experiment_id)


def active_experiment(mlflow):
    from mlflow import MlflowClient

    name = f"{os.environ['PROGRAM_PREFIX']}-{os.environ['PROGRAM_NAME']}"
    return MlflowClient(mlflow.get_tracking_uri()).get_experiment_by_name(name).experiment_id


# ---- spans without context ----


@program
def spans_by_hand(mlflow):
    root = mlflow.start_span_no_context(
        "root",
        span_type="AGENT",
        inputs={"q": 1},
        attributes={"a": [1, 2]},
        tags={"t": "v", "mlflow.user": "not me"},
        metadata={"m": "v"},
        start_time_ns=1_700_000_000_000_000_000,
        **with_mlflow("3.13", log_level="WARNING"),
        **with_mlflow("3.17", description="by hand"),
    )
    assert mlflow.get_current_active_span() is None
    child = mlflow.start_span_no_context("child", parent_span=root)
    grandchild = mlflow.start_span_no_context("grandchild", span_type="TOOL", parent_span=child)
    grandchild.end(outputs=(1, 2), attributes={"x": None}, status="ERROR")
    child.end(end_time_ns=1_700_000_000_500_000_000)
    root.end(outputs="done", end_time_ns=1_700_000_001_000_000_000)


@program
def by_hand_under_current(mlflow):
    with mlflow.start_span("around"):
        mlflow.start_span_no_context("inside").end()
        with mlflow.start_span("scoped"):
            mlflow.start_span_no_context("deeper", inputs=3).end()


@program
def ended_elsewhere(mlflow):
    with mlflow.start_span("root") as root:
        spans = [mlflow.start_span_no_context(f"s{n}", parent_span=root) for n in range(4)]
        for span in spans:
            thread = threading.Thread(target=span.end, kwargs={"outputs": span.name})
            thread.start()
            thread.join()

    async def end(span):
        span.end(outputs="from a task")

    async def main():
        root = mlflow.start_span_no_context("task root")
        child = mlflow.start_span_no_context("child", parent_span=root)
        await asyncio.create_task(end(child))
        await asyncio.create_task(end(root))

    asyncio.run(main())


@program
def as_decorator(mlflow):
    @mlflow.start_span("decorated", span_type="CHAIN", attributes={"a": 1})
    def function(x):
        return x + 1

    assert function(1) == 2
    assert function(2) == 3
    assert function.__name__ == "function"


# ---- links, attachments ----


@PROGRAMS.add_with_mlflow("3.15")
def links(mlflow):
    from mlflow.entities import Link

    link = Link("tr-" + "ab" * 16, "cd" * 8, {"why": "cause", "n": 1})
    bare = Link("12" * 16, "34" * 8)

    @mlflow.trace(links=[link])
    def linked():
        pass

    linked()
    with mlflow.start_span("span", links=[link, bare, "no link"]) as span:
        assert [one.span_id for one in span.links] == ["cd" * 8, "34" * 8]
        span.add_link(Link(span.trace_id, span.span_id))
        with contextlib.suppress(Exception):
            span.add_link(Link("tr-xyz", "no"))
    mlflow.start_span_no_context("by hand", links=[bare]).end()


PIXEL = base64.b64encode(b"\x89PNG not really").decode()


@program
def attachments(mlflow):
    from mlflow.tracing.attachments import Attachment

    @mlflow.trace
    def render(prompt):
        return {"image": f"data:image/png;base64,{PIXEL}", "prompt": prompt}

    render(f"data:audio/wav;base64,{PIXEL}")
    contents = [
        {"type": "input_audio", "input_audio": {"data": PIXEL, "format": "mp3"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": PIXEL}},
        {"b64_json": PIXEL},
        {"audio": {"data": PIXEL, "transcript": "words"}},
        {"image": {"format": "jpeg", "source": {"bytes": PIXEL}}},
        {"inline_data": {"mime_type": "image/webp", "data": PIXEL}},
        {"inline_data": {"data": repr(b"\x00raw")}},
        {"type": "image_generation_call", "result": PIXEL, "output_format": "webp"},
        {"type": "image", "source": {"type": "base64", "data": "%%%"}},
        {"source": "a file", "result": 3, "audio": "loud", "image": "x.png"},
        "data:text/plain,hello",
        "data:;base64,aGk=",
        "data:text/plain;base64,***",
    ]
    for n, content in enumerate(contents):
        with mlflow.start_span(f"content {n}") as span:
            span.set_inputs({"messages": [{"role": "user", "content": [content]}]})
            span.set_outputs(content)
            span.set_attribute("kept", content)

    @mlflow.trace
    def frames():
        yield {"b64_json": PIXEL}
        yield [f"data:image/png;base64,{PIXEL}"]
        yield "words"

    @mlflow.trace(output_reducer=lambda items: items[-1])
    def last_frame():
        yield f"data:image/png;base64,{PIXEL}"

    list(frames())
    list(last_frame())
    with mlflow.start_span("objects") as span:
        attachment = Attachment(content_type="application/pdf", content_bytes=b"%PDF")
        span.set_inputs([attachment, {"again": (attachment,)}])

    class Picture:
        def __str__(self):
            return f"data:image/png;base64,{PIXEL}"

    with mlflow.start_span("objects whose text is content") as span:
        span.set_inputs({"picture": Picture(), "set": {str(Picture())}})
        span.set_outputs(Picture())


# ---- tracing on and off ----


@program
def switched_off(mlflow):
    tracing = api(mlflow)
    tracing.disable()
    with mlflow.start_span("lost") as span:
        assert span.trace_id == "MLFLOW_NO_OP_SPAN_TRACE_ID"
        assert mlflow.get_current_active_span() is None
        assert mlflow.start_span_no_context("lost too", parent_span=span).span_id is None
    tracing.enable()
    tracing.disable()
    mlflow.trace(lambda: None, name="lost")()
    tracing.enable()

    @importlib.import_module(
        "mlflow.tracing.provider" if mlflow.__name__ == "mlflow" else f"{mlflow.__name__}.tracing"
    ).trace_disabled
    def quiet():
        with mlflow.start_span("lost"):
            return 7

    assert quiet() == 7
    with mlflow.start_span("around"):
        assert quiet() == 7
    with mlflow.start_span("after"):
        pass


@program
def scopes(mlflow):
    tracing = api(mlflow)
    with (
        tracing.context(metadata={"a": "1", "b": "1"}, tags={"x": "1"}, session_id="s", user="u"),
        tracing.context(metadata={"b": "2"}, tags={"y": "2", "mlflow.traceName": "no"}),
    ):
        with mlflow.start_span("inside"):
            pass
        with tracing.context(enabled=False):
            with mlflow.start_span("lost"):
                pass
            assert mlflow.start_span_no_context("lost").span_id is None
            with tracing.context(enabled=True), mlflow.start_span("kept"):
                pass
        with mlflow.start_span("around"), tracing.context(enabled=False):
            with mlflow.start_span("lost"):
                assert mlflow.get_current_active_span().name == "around"
            mlflow.trace(lambda: None, name="lost")()
    with mlflow.start_span("outside"):
        pass


@program
def span_processors(mlflow):
    tracing = api(mlflow)

    def mask(span):
        if span.inputs is not None:
            span.set_inputs("masked")
        span.set_attribute("seen", span.name)

    def breaks(span):
        raise RuntimeError("a bad processor")

    @mlflow.trace
    def login(password):
        return {"token": "secret"}

    with tracing.configure(span_processors=[mask, breaks, lambda span: span.set_outputs("gone")]):
        login("hunter2")
        with mlflow.start_span("parent"):
            login("again")
    login("seen")

    class Masks:
        def process(self, span):
            span.set_outputs("by a method")

    with tracing.configure(span_processors=[Masks().process]):
        login("kept")


@program
def sampled(mlflow):
    @mlflow.trace(sampling_ratio_override=0.0)
    def never(depth=1):
        assert mlflow.get_current_active_span() is None
        assert mlflow.get_active_trace_id() is None
        if depth:
            always(0)
        with mlflow.start_span("lost"):
            return depth

    @mlflow.trace(sampling_ratio_override=1.0)
    def always(depth=1):
        return never(depth) if depth == 2 else depth

    @mlflow.trace(sampling_ratio_override=0.0)
    async def never_async():
        async def child():
            with mlflow.start_span("lost"):
                return 1

        return await asyncio.gather(child(), child())

    @mlflow.trace(sampling_ratio_override=0.0)
    def never_stream():
        with mlflow.start_span("lost"):
            yield 1

    assert never() == 1
    assert always() == 1
    assert asyncio.run(never_async()) == [1, 1]
    assert list(never_stream()) == [1]
    with mlflow.start_span("root"):
        assert always() == 1
    for ratio in (-0.1, 1.1):
        with contextlib.suppress(Exception):
            mlflow.trace(lambda: None, sampling_ratio_override=ratio)
            raise SystemExit("a bad ratio was taken")


# ---- where traces go, what they carry ----


@program
def destinations(mlflow):
    tracing = api(mlflow)
    here = active_experiment(mlflow)
    elsewhere = experiment(mlflow, f"{os.environ['PROGRAM_PREFIX']}-elsewhere")

    @mlflow.trace(trace_destination=location(elsewhere))
    def sent_away():
        pass

    sent_away()
    with mlflow.start_span("away", trace_destination=location(elsewhere)):
        pass
    mlflow.start_span_no_context("by hand, away", experiment_id=elsewhere).end()
    with mlflow.start_span("stays"):
        pass
    tracing.set_destination(location(elsewhere))
    with mlflow.start_span("set"):
        pass
    with mlflow.start_span("back", trace_destination=location(here)):
        pass
    tracing.reset()

    def in_a_context():
        tracing.set_destination(location(elsewhere), context_local=True)
        with mlflow.start_span("local"):
            pass

    contextvars.copy_context().run(in_a_context)
    with mlflow.start_span("stays too"):
        pass


@program
def runs(mlflow):
    from mlflow import MlflowClient

    client = MlflowClient(mlflow.get_tracking_uri())
    with mlflow.start_run():
        with mlflow.start_span("in a run"), mlflow.start_span("child"):
            pass

        def other_thread():
            with mlflow.start_span("in a thread"):
                pass

        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
    with mlflow.start_span("after"):
        pass
    run = client.create_run(experiment(mlflow, f"{os.environ['PROGRAM_PREFIX']}-elsewhere"))
    with mlflow.start_span("of a run", **with_mlflow("3.14", run_id=run.info.run_id)):
        with mlflow.start_span("child", **with_mlflow("3.14", run_id="ignored")):
            pass
    client.set_terminated(run.info.run_id)


@program
def active_models(mlflow):
    model = mlflow.set_active_model(name="agent")
    with mlflow.start_span("of a model"):
        pass
    mlflow.clear_active_model()
    with mlflow.start_span("named"):
        mlflow.update_current_trace(model_id=model.model_id)


@program
def tags_in_flight(mlflow):
    with mlflow.start_span("root") as root:
        mlflow.set_trace_tag(root.trace_id, "a", "1")
        mlflow.set_trace_tag(root.trace_id, "b", 2)
        mlflow.set_trace_tag(root.trace_id, "mlflow.user", "not me")
        mlflow.set_trace_tag(root.trace_id, "gone", "x")
        mlflow.delete_trace_tag(root.trace_id, "gone")
        with contextlib.suppress(Exception):
            mlflow.delete_trace_tag(root.trace_id, "never there")
            raise SystemExit("a missing tag was deleted")


@PROGRAMS.add_with_mlflow("3.18")
def an_issue_with_its_evidence(mlflow):
    """Of a trace in flight: MLflow knows of one that has ended only once it has been delivered."""
    from mlflow.tracing.client import TracingClient

    client = TracingClient(mlflow.get_tracking_uri())
    issue = client._create_issue(active_experiment(mlflow), "wrong", "The answer is wrong.")

    def evidence(*span_ids, **others):
        steps = [
            {"span_id": span_id, "text": "here it goes wrong", "highlights": ["wrong"]}
            for span_id in span_ids
        ]
        return {"summary": "It went wrong.", "steps": steps, **others}

    with mlflow.start_span("asked") as root:
        with mlflow.start_span("searched") as child:
            pass
        log = functools.partial(mlflow.log_issue, trace_id=root.trace_id, issue_id=issue.issue_id)
        log(rationale="As it says.", span_id=root.span_id)
        log(evidence=evidence(root.span_id, child.span_id, primary_span_id=child.span_id))
        for refused in (
            {"evidence": evidence("0123456789abcdef")},
            {"evidence": evidence(child.span_id), "span_id": root.span_id},
        ):
            try:
                log(**refused)
            except Exception as error:
                root.set_attribute(f"refused {', '.join(refused)}", str(error))


@program
def assessments_in_flight(mlflow):
    from mlflow.entities import AssessmentSource, AssessmentSourceType, Feedback

    with mlflow.start_span("judged") as span:
        mlflow.log_feedback(trace_id=span.trace_id, name="good", value=True, rationale="short")
        mlflow.log_feedback(trace_id=span.trace_id, value=[1, 2.5], error=ValueError("no"))
        mlflow.log_expectation(
            trace_id=span.trace_id,
            name="answer",
            value={"x": [1]},
            source=AssessmentSource(AssessmentSourceType.HUMAN, "me"),
            metadata={"k": "v"},
            span_id=span.span_id,
        )
        mlflow.log_assessment(span.trace_id, Feedback(name="own", value="text"))


@program
def usage_and_cost(mlflow):
    @mlflow.trace(span_type="CHAT_MODEL")
    def complete(tokens):
        span = mlflow.get_current_active_span()
        span.set_attribute("mlflow.llm.model", "gpt-4o-mini")
        span.set_attribute("mlflow.llm.provider", "openai")
        span.set_attribute(
            "mlflow.chat.tokenUsage",
            {"input_tokens": tokens, "output_tokens": 2, "total_tokens": tokens + 2},
        )
        assert span.model_name == "gpt-4o-mini"
        return "text"

    @mlflow.trace(span_type="AGENT")
    def agent():
        complete(3)
        with mlflow.start_span("priced") as span:
            cost = {"input_cost": 0.25, "output_cost": 0.5, "total_cost": 0.75}
            span.set_attribute("mlflow.llm.cost", cost)
            assert span.llm_cost == cost
        complete(5)

    agent()


@program
def chat_tools(mlflow):
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
    tool = {"type": "function", "function": {"name": "add", "parameters": parameters}}
    with mlflow.start_span("root") as span:
        api(mlflow).set_span_chat_tools(span, [tool])
    with mlflow.context(tags={"by": "the short name"}), mlflow.start_span("short"):
        pass


@PROGRAMS.add_with_mlflow("3.15")  # before, the traces were lost
def odd_usage(mlflow):
    for usage in ([], "", {}, None):
        with mlflow.start_span("root") as span:
            span.set_attribute("mlflow.chat.tokenUsage", usage)
            span.set_attribute("", "no key")


# ---- whole traces ----


@program
def logged_traces(mlflow):
    mlflow.log_trace(
        name="logged",
        request={"q": 1},
        response="a",
        attributes={"k": 1},
        tags={"t": "v"},
        start_time_ms=1_700_000_000_000,
        execution_time_ms=1500,
    )
    mlflow.log_trace(request=1, intermediate_outputs={"docs": ["d"]})


@program
def immutable_forms(mlflow):
    with mlflow.start_span("seen", span_type="TOOL", attributes={"a": [1]}) as span:
        span.set_inputs({"b": b"bytes", 1: None})
        span.record_exception("words")
        for form in (
            span.to_immutable_span(),
            type(span.to_immutable_span()).from_dict(span.to_dict()),
        ):
            assert form.inputs == span.inputs == {"b": "b'bytes'", "1": None}
            assert form.attributes == span.attributes
            assert form.trace_id == span.trace_id
            assert [e.name for e in form.events] == ["exception"]
        span.set_attribute("texts", dict(span._span.attributes)["mlflow.spanInputs"])
        span._span.set_attribute("direct", '{"json": 1}')
        span.set_attribute("dict keys", sorted(span.to_dict()))
        span.set_attribute("status", str(span.to_dict()["status"]))
        broken_calls = (
            lambda: span["name"],
            lambda: span["a"],
            lambda: iter(span),
            lambda: span.get,
            lambda: span.set_status("BAD"),
            lambda: span.set_log_level("LOUD"),
            lambda: span.record_exception(3),
            lambda: span.add_link("no link"),
            lambda: importlib.import_module("copy").deepcopy(span),
            lambda: importlib.import_module("pickle").dumps(span),
        )
        for n, broken in enumerate(broken_calls):
            try:
                broken()
            except Exception as error:
                span.set_attribute(f"error {n}", type(error).__name__)
            else:
                raise SystemExit("nothing was raised")


# ---- odd but legal ways to call ----


@program
def an_experiment_that_is_set_after_a_destination(mlflow):
    tracing = api(mlflow)
    from mlflow.entities.trace_location import MlflowExperimentLocation

    elsewhere = experiment(mlflow, f"{os.environ['PROGRAM_PREFIX']}-elsewhere")
    tracing.set_destination(MlflowExperimentLocation(elsewhere))
    with mlflow.start_span("elsewhere"):
        pass
    name = f"{os.environ['PROGRAM_PREFIX']}-{os.environ['PROGRAM_NAME']}"
    mlflow.set_experiment(name)
    with mlflow.start_span("here again"):
        pass


@program
def mappings_as_attributes(mlflow):
    import collections
    import types

    for attributes in (
        types.MappingProxyType({"a": 1}),
        collections.UserDict(a=1),
        collections.ChainMap({"a": 1}, {"b": 2}),
        [("a", 1), ("b", [2])],
        {"a": 1}.items(),
    ):
        with mlflow.start_span("with", attributes=attributes):
            pass
        mlflow.trace(lambda: None, name="decorated", attributes=attributes)()
    mlflow.trace(lambda: None, name="keys", attributes={1: 1, "b": 2})()


@program
def what_a_program_keeps_on_a_span(mlflow):
    with mlflow.start_span("span") as span:
        span.mine = {"a": 1}
        assert span.mine == {"a": 1}
        del span.mine
        assert not hasattr(span, "mine")
        span.set_inputs(1)


@program
def scopes_left_by_hand(mlflow):
    for arguments in (
        (ValueError, None, None),
        (ValueError, ValueError("made"), None),
        (KeyboardInterrupt, None, None),
        (None, None, None),
    ):
        scope = mlflow.start_span("span")
        scope.__enter__()
        with contextlib.suppress(BaseException):
            scope.__exit__(*arguments)


@program
def dropped_scopes(mlflow):
    import gc

    span = mlflow.start_span("dropped").__enter__()
    gc.collect()
    with mlflow.start_span("a trace of its own"):
        pass
    assert span.name == "dropped"
    with mlflow.start_span("around"):
        mlflow.start_span("within").__enter__()
        gc.collect()
        with mlflow.start_span("beside"):
            pass


@program
def parents_of_other_kinds(mlflow):
    with mlflow.start_span("root") as root:
        mlflow.start_span_no_context("child", parent_span=root.to_immutable_span()).end()
    for nothing in (0, {}, ""):
        mlflow.start_span_no_context("root", parent_span=nothing).end()


@program
def updates_that_fail_in_part(mlflow):
    with mlflow.start_span("span"):
        with contextlib.suppress(Exception):
            mlflow.update_current_trace(request_preview="shown", state="bogus")
    with mlflow.start_span("levels") as span:
        for level in (20, 7, True, "warn", "no", None):
            with contextlib.suppress(Exception):
                span.set_log_level(level)


@program
def former_names(mlflow):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mlflow.start_span("span") as span:
            mlflow.set_trace_tag(request_id=span.trace_id, key="kept", value="v")
            mlflow.set_trace_tag(request_id=span.trace_id, key="gone", value="v")
            mlflow.delete_trace_tag(request_id=span.trace_id, key="gone")
        mlflow.flush_trace_async_logging()
        assert mlflow.get_trace(request_id=span.trace_id).info.tags["kept"] == "v"
