"""The public calls, as cases that other programs make over and over: ``out_of_memory.py``, where an allocation
fails each time, and ``flat_memory.py``, which looks at what they leave behind.

A case is a generator: what it does first is preparation, it yields the call, gets the call's outcome, and looks
at what came of it. It says which names it is a case of: those of the package by their paths in it
(``tracing.context``), those of the core as ``_core.LiveSpan.end``.

By default the cases call this package. With ``PUBLIC_CALLS_OF=mlflow`` in the environment they call MLflow's own
functions of the same names, after ``install()``. Cases that do not say ``needs_mlflow`` run where MLflow is not
installed.
"""

from __future__ import annotations

import contextvars
import copy
import importlib
import os
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import mlflow_fasttrace
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base.version import mlflow_release
from mlflow_fasttrace._internal.recording import destination
from support.records import Recorded

#: Whether the cases call MLflow's own functions.
INSTALLED = os.environ.get("PUBLIC_CALLS_OF") == "mlflow"
if INSTALLED:
    assert mlflow_fasttrace.install()
    import mlflow  # type: ignore[no-redef]
else:
    mlflow_fasttrace.uninstall()  # an MLflow that a case imports stays as it is
    mlflow: Any = mlflow_fasttrace  # type: ignore[no-redef]

FOREVER = 1 << 30

VALUE = {
    "text": "ä" * 700,
    "numbers": [1, -2, 1.5, 1 << 70, None, True],
    "deep": [[[[[[[[[[[[[[[[[[[[{"k": "v"}]]]]]]]]]]]]]]]]]]]],
    "many": {str(n): [n] for n in range(30)},
}
ENCODED = _core.encode(VALUE)
EMPTY = _core.encode({})
#: Larger than the buffers that the core keeps.
LARGE = ["x" * 1000] * 1100


class Outcome(NamedTuple):
    """How a call ended."""

    value: Any
    error: BaseException | None

    def is_own(self, value: Any) -> None:
        """It gave its value, or there was no memory for it."""
        if self.error is None:
            assert self.value == value, f"another result: {str(self.value)[:300]}"


#: Yields the call that is to be tried, gets its outcome, and says what is wrong with it.
Steps = Callable[[], Generator[Callable[[], Any], Outcome, None]]


class Case(NamedTuple):
    """A public call.

    Args:
        of: The public names that it calls.
        needs_mlflow: Whether it calls what needs MLflow, or OpenTelemetry.
        drops: Whether a span is dropped that has not ended.
        own: Whether it has nothing to do with MLflow's functions.
        only_core: Whether it runs what does not go on without the interpreter's memory: a thread that
            starts, protobuf.
    """

    run: Steps
    of: tuple[str, ...] = ()
    needs_mlflow: bool = False
    drops: bool = False
    own: bool = False
    only_core: bool = False


CASES: dict[str, Case] = {}


class Event:
    """A ``SpanEvent`` where there is no MLflow."""

    name, timestamp, attributes = "event", 5, {"k": "v", "l": [1, 2]}


ERROR = ValueError("no")


class Holder:
    """Holds what is put into it."""


class Place:
    """Where the cases record."""

    recorded: Recorded
    folder: str
    #: Whether the cases look at what came of their calls, where that takes longer than the calls.
    looks = True


@contextmanager
def recording() -> Iterator[Recorded]:
    """Has the cases record into a ring of their own."""
    with tempfile.TemporaryDirectory() as Place.folder:
        Place.recorded = Recorded(Path(Place.folder), 32 << 20)
        try:
            yield Place.recorded
        finally:
            destination.reset()


def case(*of: str, **kind: bool) -> Callable[[Steps], Steps]:
    """Makes a function a case of these names.

    Args:
        kind: More of what a ``Case`` says.
    """

    def add(run: Steps) -> Steps:
        assert run.__name__ not in CASES
        CASES[run.__name__] = Case(run, of, **kind)
        return run

    return add


def drive(coroutine: Any) -> Any:
    """Runs a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the coroutine waits")


def started(span: Any) -> _core.LiveSpan:
    """A span that was started; where there was no memory for it, something else stands in its place."""
    if type(span) is not _core.LiveSpan:
        raise MemoryError
    return span


def raised(call: Callable[[], Any], error: type[Exception]) -> bool:
    """Whether a call raises that error, which it is to do."""
    try:
        call()
    except error:
        return True
    return False


# ---- what is set on a span ----


def on_a_span(
    name: str,
    act: Callable[[Any], Any],
    holds: Callable[[Any], bool] = lambda _: True,
    of: str | None = None,
    needs_mlflow: bool = False,
) -> None:
    """A case that does something to a span, whose record must be sound afterwards.

    Args:
        holds: Whether the span's record may be so.
        of: The method of the span, if the case has another name.
    """

    def run():
        span = mlflow.start_span_no_context("span", attributes={"there": 1})
        outcome = yield lambda: act(span)
        outcome.is_own(None)
        span.end()
        if not Place.looks:
            return
        found = [record for record in Place.recorded.spans() if record.name in ("span", "other")]
        assert len(found) == 1, f"{len(found)} spans were recorded"
        assert holds(found[0]), f"what is recorded is wrong: {str(found[0])[-600:]}"

    CASES[name] = Case(run, (f"_core.LiveSpan.{of or name}",), needs_mlflow)


on_a_span("set_inputs", lambda s: s.set_inputs(VALUE), lambda r: r.inputs in (None, VALUE))
on_a_span(
    "set_large_inputs",
    lambda s: s.set_inputs(LARGE),
    lambda r: r.inputs in (None, LARGE),
    of="set_inputs",
)
on_a_span("set_outputs", lambda s: s.set_outputs([VALUE]), lambda r: r.outputs in (None, [VALUE]))
on_a_span(
    "set_odd_outputs",
    lambda s: s.set_outputs([1.5, {3: (4, {5})}, Event(), float("nan"), "\ud800"]),
    of="set_outputs",
)
on_a_span(
    "set_attribute",
    lambda s: s.set_attribute("k", VALUE),
    lambda r: r.attributes.get("k") in (None, VALUE),
)
on_a_span(
    "set_attribute_again_and_again",
    lambda s: [s.set_attribute("there", "x" * n) for n in range(0, 900, 100)] and None,
    lambda r: str(r.attributes["there"]).strip("x") in ("", "1"),
    of="set_attribute",
)
on_a_span(
    "set_attributes",
    lambda s: s.set_attributes({str(n): VALUE for n in range(12)}),
    lambda r: all(r.attributes.get(str(n)) in (None, VALUE) for n in range(12)),
)
on_a_span(  # more than are looked through one by one
    "set_many_attributes",
    lambda s: s.set_attributes({str(n): n for n in range(40)}),
    lambda r: all(r.attributes.get(str(n)) in (None, n) for n in range(40)),
    of="set_attributes",
)
on_a_span(
    "add_event",
    lambda s: s.add_event(Event),
    lambda r: r.events in ([], [("event", 5, {"k": "v", "l": [1, 2]})]),
)
on_a_span(
    "record_exception",
    lambda s: s.record_exception(ERROR),
    lambda r: r.event_names in ([], ["exception"]),
)
on_a_span(
    "record_words",
    lambda s: s.record_exception("words"),
    lambda r: r.event_names in ([], ["exception"]),
    of="record_exception",
)
on_a_span("set_status", lambda s: s.set_status("ERROR"), lambda r: r.status in (1, 2))
on_a_span("set_span_type", lambda s: s.set_span_type("LLM"))
on_a_span("set_description", lambda s: s.set_description("what it is"))
on_a_span("set_log_level", lambda s: s.set_log_level("DEBUG"), needs_mlflow=True)
on_a_span("_rename", lambda s: s._rename("other"))
on_a_span(
    "_remove_attribute",
    lambda s: s._remove_attribute("there"),
    lambda r: r.attributes.get("there") in (None, 1),
)
on_a_span("_append_link", lambda s: s._append_link("tr-" + "1" * 32, "2" * 16, {"a": [1]}))
on_a_span("_move", lambda s: s._move(7), lambda r: r.parent_id in (None, f"{7:016x}"))
on_a_span("_end_at", lambda s: s._end_at(FOREVER << 32))
on_a_span("_set_twin", lambda s: s._set_twin(Holder()))


@case("_core.LiveSpan.add_link", needs_mlflow=True)
def add_link():
    from mlflow.entities import Link

    link = Link("tr-" + "1" * 32, "2" * 16, {"a": 1})
    span = mlflow.start_span_no_context("span")
    outcome = yield lambda: span.add_link(link)
    outcome.is_own(None)
    span.end()


@case("_core.LiveSpan.add_event", needs_mlflow=True)
def add_an_event_of_mlflow():
    from mlflow.entities import SpanEvent

    event = SpanEvent("event", timestamp=5, attributes={"k": "v", "l": [1, 2]})
    span = mlflow.start_span_no_context("span")
    outcome = yield lambda: span.add_event(event)
    outcome.is_own(None)
    span.end()


@case("_core.LiveSpan.set_status", "_core.LiveSpan.end", needs_mlflow=True)
def status_of_mlflow():
    from mlflow.entities import SpanStatus, SpanStatusCode

    status = SpanStatus(SpanStatusCode.ERROR, "no")

    def call():
        span = mlflow.start_span_no_context("span")
        try:
            span.set_status(status)
        finally:
            span.end(status=status)

    yield call


@case("_core.LiveSpan.set_inputs", "_core.LiveSpan._attachments", needs_mlflow=True)
def set_inputs_with_an_attachment():
    from mlflow.tracing.attachments import Attachment

    attachment = Attachment(content_type="image/png", content_bytes=b"content")
    span = mlflow.start_span_no_context("span")
    outcome = yield lambda: span.set_inputs([attachment, {"b64_json": "aGVsbG8="}])
    outcome.is_own(None)
    span.end()


@case(
    *(f"_core.LiveSpan.{name}" for name in ("from_dict", "from_dict_v2", "from_otel_proto")),
    own=True,
)
def what_a_live_span_cannot():
    span_type = _core.LiveSpan

    def call():
        makers = (span_type.from_dict, span_type.from_dict_v2, span_type.from_otel_proto)
        return [raised(lambda: make({}), NotImplementedError) for make in makers]  # noqa: B023

    outcome = yield call
    outcome.is_own([True] * 3)


# ---- what is read of a span or a trace ----


def of_a_span(name: str, read: Callable[[Any], Any], *of: str, **kind: bool) -> None:
    def run():
        span = mlflow.start_span_no_context("span", inputs=VALUE)
        span.set_outputs([VALUE])
        span.add_event(Event)
        expected = read(span) if Place.looks else None
        outcome = yield lambda: read(span)
        span.end()
        if Place.looks:
            outcome.is_own(expected)

    CASES[name] = Case(run, tuple(f"_core.{one}" for one in of), **kind)


def getters_of(kind: type) -> list[str]:
    """The attributes of a type of the core that are computed or kept in C."""
    fields = (types.GetSetDescriptorType, types.MemberDescriptorType)
    return [
        name
        for name, value in vars(kind).items()
        if isinstance(value, fields) and not name.startswith("__")
    ]


#: What makes an object of MLflow's, or of OpenTelemetry's.
MADE_BY_MLFLOW = {"status", "events", "log_level", "links", "_span"}
PLAIN = [
    name
    for name in getters_of(_core.LiveSpan)
    if name not in MADE_BY_MLFLOW | {"get", "_trace", "_attributes"}
]


def all_of(thing: Any, names: list[str]) -> list[Any]:
    return [getattr(thing, name) for name in names]


of_a_span("inputs", lambda span: span.inputs, "LiveSpan.inputs")
of_a_span("outputs", lambda span: span.outputs, "LiveSpan.outputs")
of_a_span("attributes", lambda span: span.attributes, "LiveSpan.attributes")
of_a_span(
    "events",
    lambda span: [(event.name, event.timestamp) for event in span.events],
    "LiveSpan.events",
    needs_mlflow=True,
)
of_a_span("status", lambda span: span.status, "LiveSpan.status", needs_mlflow=True)
of_a_span("to_dict", lambda span: span.to_dict(), "LiveSpan.to_dict")
of_a_span(
    "ids",
    lambda span: (span.trace_id, span.span_id, span.parent_id, span.name),
    *(f"LiveSpan.{name}" for name in ("trace_id", "span_id", "parent_id", "name")),
)
of_a_span("get_attribute", lambda s: s.get_attribute("mlflow.spanInputs"), "LiveSpan.get_attribute")
of_a_span(
    "attributes_of_a_span",
    lambda span: all_of(span, PLAIN),
    *(f"LiveSpan.{name}" for name in PLAIN),
)
of_a_span(
    "attributes_of_a_span_that_mlflow_makes",
    lambda span: [str(value)[:5] for value in all_of(span, sorted(MADE_BY_MLFLOW))],
    *(f"LiveSpan.{name}" for name in MADE_BY_MLFLOW),
    needs_mlflow=True,
)
of_a_span(
    "attributes_as_mlflow_keeps_them",
    lambda span: span._attributes.get("mlflow.spanType"),
    "LiveSpan._attributes",
    needs_mlflow=True,
)
of_a_span("no_get", lambda span: hasattr(span, "get"), "LiveSpan.get")
of_a_span(
    "what_any_object_can",
    lambda span: (
        repr(span),
        hash(span),
        span.__copy__() is span,
        span.__dict__,
        raised(lambda: span["inputs"], Exception),
        raised(lambda: copy.deepcopy(span), Exception),
    ),
    needs_mlflow=True,
)
of_a_span("is_recording", lambda span: span._is_recording(), "LiveSpan._is_recording")
of_a_span(
    "to_immutable_span",
    lambda span: span.to_immutable_span().inputs,
    "LiveSpan.to_immutable_span",
    needs_mlflow=True,
    only_core=True,
)
of_a_span(
    "attributes_of_a_trace",
    lambda span: [type(value) for value in all_of(span._trace, getters_of(_core.Trace))],
    "LiveSpan._trace",
    *(f"Trace.{name}" for name in getters_of(_core.Trace)),
)
of_a_span("spans_of_a_trace", lambda span: span._trace.spans() == [span], "Trace.spans")


@case("_core.LiveSpan.to_otel_proto", needs_mlflow=True, only_core=True)
def to_otel_proto():
    span = mlflow.start_span_no_context("span", inputs={"a": [1.5, None]})
    outcome = yield lambda: span.to_otel_proto().name
    outcome.is_own("span")
    span.end()


@case("_core.Trace.rewrite", "_core.Trace.keep_spans", "_core.LiveSpan._trace")
def change_a_trace():
    span = mlflow.start_span_no_context("span")

    def call():
        trace = span._trace
        trace.request_preview = trace.response_preview = "preview"
        trace.client_request_id, trace.state, trace.info = "id", 1, Holder()
        trace.tags["tag"] = trace.metadata["key"] = "value"
        trace.inherited_metadata["other"] = "value"
        trace.assessments.append({"a": [1]})
        trace.info = None
        trace.keep_spans()
        trace.rewrite()

    outcome = yield call
    outcome.is_own(None)
    span._trace.info = None
    span.end()


@case("_core.LiveSpan.from_immutable_span", needs_mlflow=True)
def from_immutable_span():
    from mlflow.entities.span import LiveSpan

    origin = mlflow.start_span_no_context("origin", inputs=VALUE)
    copied = origin.to_immutable_span()
    origin.end()
    make = (LiveSpan if INSTALLED else _core.LiveSpan).from_immutable_span

    def call():
        make(copied, trace_id="tr-" + "1" * 32).end()

    outcome = yield call
    outcome.is_own(None)


# ---- spans that start and end ----


@case("start_span", "_core.SpanScope")
def start_span():
    def call():
        with mlflow.start_span("span") as span:
            return span is not None

    yield call


@case("start_span", "_core.SpanScope")
def start_span_with_attributes():
    def call():
        with mlflow.start_span("span", span_type="LLM", attributes={"k": VALUE, "l": [1]}) as span:
            return span is not None

    yield call


@case("start_span", "_core.SpanScope")
def start_span_and_fail():
    def call():
        with mlflow.start_span("span"):
            raise KeyError("own")

    outcome = yield call
    assert outcome.error is not None, "the exception is swallowed"


@case("start_span", "_core.SpanScope")
def start_span_inside():
    with mlflow.start_span("outer") as outer:

        def call():
            with mlflow.start_span("inner"):
                pass

        yield call
        assert _core.current() is outer, "another span is current inside the outer one"


@case("start_span", "_core.SpanScope.again")
def start_span_as_a_decorator():
    def call():
        scope = mlflow.start_span("span", description="d")
        with scope.again():
            pass

        @scope
        def function(x):
            return x

        return function(1)

    outcome = yield call
    outcome.is_own(1)


@case("start_span", needs_mlflow=True)
def start_span_with_all_options():
    from mlflow.entities import Link
    from mlflow.entities.trace_location import MlflowExperimentLocation

    links = [Link("tr-" + "1" * 32, "2" * 16, {"a": 1})]
    location = MlflowExperimentLocation("7")

    def call():
        with mlflow.start_span(
            "span", "LLM", {"k": 1}, location, "INFO", "run", links, "what it is"
        ):
            pass

    outcome = yield call
    outcome.is_own(None)


@case("start_span_no_context", "_core.LiveSpan.end")
def start_span_no_context():
    def call():
        root = mlflow.start_span_no_context(
            "root", inputs=[1], tags={"t": "v"}, metadata={"m": "v"}, description="d"
        )
        try:
            child = mlflow.start_span_no_context("child", parent_span=root, start_time_ns=1)
            child.end(outputs=(1, {2}), attributes={"a": 1}, status="ERROR", end_time_ns=FOREVER)
        finally:
            root.end()

    outcome = yield call
    outcome.is_own(None)


@case("_core.LiveSpan.end")
def end():
    span = mlflow.start_span_no_context("span", inputs=VALUE)
    outcome = yield lambda: span.end()
    outcome.is_own(None)
    span.end()


@case("get_current_active_span", "_core.current_span", "_core.current")
def get_current_active_span():
    with mlflow.start_span("outer") as outer:
        outcome = yield lambda: [
            mlflow.get_current_active_span(),
            _core.current_span(),
            _core.current(),
        ]
        if outcome.error is None:
            assert outcome.value == [outer] * 3, "another span is current"
        outcome = None


@case("get_active_trace_id", "get_last_active_trace_id", "_core.last_trace_id")
def ids_of_traces():
    with mlflow.start_span("span"):
        pass
    with mlflow.start_span("outer") as outer:
        outcome = yield lambda: (
            mlflow.get_active_trace_id(),
            mlflow.get_last_active_trace_id() == _core.last_trace_id(),
            mlflow.get_last_active_trace_id(thread_local=True) is not None,
        )
        outcome.is_own((outer.trace_id, True, True))


@case("get_tracking_uri")
def get_tracking_uri():
    expected = mlflow.get_tracking_uri()
    outcome = yield mlflow.get_tracking_uri
    outcome.is_own(expected)


@case("update_current_trace")
def update_current_trace():
    with mlflow.start_span("span"):

        def call():
            mlflow.update_current_trace(
                tags={"a": "b"},
                metadata={"c": "d"},
                client_request_id="c",
                request_preview="r",
                response_preview="p",
                state="ERROR",
                model_id="m",
                session_id="s",
                user="u",
            )

        outcome = yield call
        outcome.is_own(None)


# ---- traced callables ----


@mlflow.trace(attributes={"a": 1})
def plain(x, *rest, y=2, **others):
    return [x, y]


@mlflow.trace
def failing(x):
    raise KeyError("own")


@mlflow.trace
async def coroutine(x):
    return [x]


@mlflow.trace
async def failing_coroutine(x):
    raise KeyError("own")


@mlflow.trace
def generator(n):
    yield from range(n)


@mlflow.trace(output_reducer=len)
def reduced_generator(n):
    yield from range(n)


@mlflow.trace
async def async_generator(n):
    for i in range(n):
        yield i


@mlflow.trace(sampling_ratio_override=0.0)
def not_sampled():
    return mlflow.get_current_active_span() is None


async def collect(n):
    return [item async for item in async_generator(n)]


@case("_core.Traced")
def traced_call():
    outcome = yield lambda: plain(1, 5, 6, y=3, z=VALUE)
    outcome.is_own([1, 3])


@case("_core.Traced")
def traced_call_inside():
    with mlflow.start_span("outer") as outer:
        outcome = yield lambda: plain(1)
        outcome.is_own([1, 2])
        assert _core.current() is outer, "another span is current inside the outer one"


@case("_core.Traced")
def traced_call_that_fails():
    outcome = yield lambda: failing(1)
    assert outcome.error is not None, "the exception is swallowed"


@case("_core.Traced")
def traced_call_of_wrong_arguments():
    outcome = yield lambda: raised(lambda: failing(1, 2, z=3), TypeError)
    outcome.is_own(True)


@case("_core.Traced", "_core.NonRecordingSpan.not_sampled")
def traced_call_that_is_not_sampled():
    outcome = yield not_sampled
    outcome.is_own(True)


@case("_core.Traced._begin", "_core.Traced._finish")
def traced_coroutine():
    outcome = yield lambda: drive(coroutine(1))
    outcome.is_own([1])


@case("_core.Traced._begin", "_core.Traced._fail")
def traced_coroutine_that_fails():
    outcome = yield lambda: drive(failing_coroutine(1))
    assert outcome.error is not None, "the exception is swallowed"


@case(*(f"_core.{name}" for name in ("Traced._stream", "Stream.send", "Stream.value")))
def traced_generator():
    outcome = yield lambda: list(generator(3))
    outcome.is_own([0, 1, 2])


@case("_core.Traced._stream")
def traced_generator_with_a_reducer():
    outcome = yield lambda: list(reduced_generator(3))
    outcome.is_own([0, 1, 2])


@case("_core.Stream.throw")
def traced_generator_that_is_thrown_at():
    def call():
        steps = generator(3)
        next(steps)
        steps.throw(KeyError("own"))

    outcome = yield call
    assert outcome.error is not None, "the exception is swallowed"


@case(*(f"_core.Stream.{name}" for name in ("enter", "leave", "item", "end", "iterator")))
def traced_async_generator():
    outcome = yield lambda: drive(collect(3))
    outcome.is_own([0, 1, 2])


@case("_core.Stream.abandon")
def traced_async_generator_that_is_closed():
    async def first():
        steps = async_generator(3)
        item = await steps.__anext__()
        await steps.aclose()
        return item

    outcome = yield lambda: drive(first())
    outcome.is_own(0)


@case("trace", "_core.Traced", "_core.Traced._set_signature_function", "_core.Traced._arguments")
def trace_decorator():
    def function(x):
        return x

    outcome = yield lambda: mlflow.trace(function)
    if outcome.error is None:
        assert outcome.value(1) == 1, "the decorated function does something else"


@case("trace", "_core.Traced")
def trace_decorator_with_options():
    def call():
        @mlflow.trace(name="n", span_type="LLM", attributes={"x": [1]}, description="d")
        def function(a, b=[]):  # noqa: B006
            return a

        class Class:
            method = function
            static = mlflow.trace(staticmethod(lambda: 2))
            shown = mlflow.trace(property(lambda self: 3))

        function.own = function
        looked_at = (repr(function), function.__code__, function.__doc__, function.__name__)
        del function.own
        return [function(1), Class().static(), Class().shown, len(looked_at)]

    outcome = yield call
    outcome.is_own([1, 2, 3, 4])


# ---- the core's own functions that the package is made of ----


@case("_core.start_span", "_core.remote_span", own=True)
def core_start_span():
    def call():
        names = []
        for parent in (None, started(_core.remote_span(b"1" * 16, 2, False))):
            span = started(_core.start_span("span", parent, "7", 1, 3, None))
            names.append(span.name)
            span.end()
        started(_core.start_span("span", None, None, None, None, None, b"2" * 16)).end()
        wrong = [
            raised(lambda: _core.start_span("span"), TypeError),
            raised(lambda: _core.start_span("span", 1, None, None, None, None), TypeError),
            raised(lambda: _core.remote_span(b"1", 2, False), ValueError),
        ]
        return names, wrong

    outcome = yield call
    outcome.is_own((["span"] * 2, [True] * 3))


@case("_core.non_recording_span", "_core.NonRecordingSpan.not_sampled", own=True)
def non_recording_span():
    outcome = yield lambda: [_core.non_recording_span(n).not_sampled for n in (True, False)]
    outcome.is_own([True, False])


@case("_core.enter", "_core.leave", own=True)
def enter_and_leave():
    def call():
        names = []
        with mlflow.start_span("outer"):
            for current in (_core.remote_span(b"1" * 16, 2, False), _core.non_recording_span(True)):
                _core.enter(current or started(None))
                entered = mlflow.get_current_active_span()  # the outer one where there is no memory
                names.append(entered and entered.name)
                wrong = raised(lambda: _core.enter(current), ValueError)  # noqa: B023
                _core.leave(current)
                names.append((mlflow.get_current_active_span() or started(None)).name)
        return names, wrong, raised(lambda: _core.leave(None), TypeError)

    outcome = yield call
    if outcome.error is None:
        names, *wrong = outcome.value
        assert names[1::2] == ["outer"] * 2, "what was entered is current after it was left"
        assert set(names[::2]) <= {None, "outer"}, names
        assert wrong == [True, True]


NOT_MADE = (_core.LiveSpan, _core.Trace, _core.NonRecordingSpan, _core.Stream)


@case(*(f"_core.{kind.__name__}" for kind in NOT_MADE), own=True)
def types_that_are_not_called():
    outcome = yield lambda: [raised(kind, TypeError) for kind in NOT_MADE]
    outcome.is_own([True] * len(NOT_MADE))


@case("_core.live_trace", "_core.live_traces", own=True)
def live_traces():
    span = mlflow.start_span_no_context("span")
    outcome = yield lambda: (
        _core.live_trace(span.trace_id) is span._trace,
        _core.live_trace("tr-no"),
        len(_core.live_traces()),
    )
    outcome.is_own((True, None, 1))
    span.end()


@case("_core.end_abandoned", own=True)
def end_abandoned():
    def drop():
        mlflow.start_span("dropped").__enter__()

    contextvars.Context().run(drop)
    outcome = yield _core.end_abandoned
    outcome.is_own(None)


@case("_core.set_last_trace_id", own=True)
def set_last_trace_id():
    outcome = yield lambda: _core.set_last_trace_id("tr-" + "1" * 32)
    outcome.is_own(None)
    _core.set_last_trace_id(None)


@case("_core.is_interruption", own=True)
def is_interruption():
    outcome = yield lambda: [
        _core.is_interruption(error) for error in (KeyboardInterrupt(), KeyError(), SystemExit())
    ]
    outcome.is_own([True, False, False])


@case(
    *(f"_core.{name}" for name in ("enabled", "set_enabled", "set_sampling", "use_scopes")),
    "_core.after_fork",
    "_core.follow_mlflow",
    own=True,
)
def switches_of_the_core():
    release = mlflow_release() or (255, 255)

    def call():
        for enabled in (False, True):
            _core.set_enabled(enabled)
        _core.set_sampling(0.5)
        _core.set_sampling(1.0)
        _core.use_scopes()
        _core.after_fork()
        _core.follow_mlflow(*release)
        return _core.enabled(), raised(lambda: _core.set_sampling("no"), TypeError)

    outcome = yield call
    _core.set_enabled(True)
    _core.set_sampling(1.0)
    outcome.is_own((True, True))


@case("_core.set_hook", own=True)
def set_hook():
    def call():
        _core.set_hook("trace_completed", lambda: None)
        _core.set_hook("trace_completed", None)
        return raised(lambda: _core.set_hook("no hook", None), ValueError)

    outcome = yield call
    _core.set_hook("trace_completed", None)
    outcome.is_own(True)


@case("_core.set_destination", own=True)
def set_destination_of_the_core():
    writer, second = Place.recorded.writer, _core.RingWriter(None, 1 << 16, "")

    def call():
        _core.set_destination(writer, {"uri": "other", "experiment": {"id": "1"}}, second)
        with mlflow.start_span("span"):
            pass

    outcome = yield call
    _core.set_destination(writer, {"uri": "test", "experiment": {"id": "0"}})
    outcome.is_own(None)


# ---- values, records, requests, files ----


def of_values(name: str, call: Callable[[], Any], of: str) -> None:
    """A case whose call gives what it gave when there was memory."""

    def run():
        expected = call() if Place.looks else None
        outcome = yield call
        if Place.looks:
            outcome.is_own(expected)

    CASES[name] = Case(run, (f"_core.{of}",), own=True)


of_values("encode", lambda: _core.encode(VALUE), "encode")
of_values("decode", lambda: _core.decode(ENCODED), "decode")
of_values("json_text", lambda: _core.json_text(ENCODED), "json_text")
of_values(
    "damaged_values",
    lambda: [
        raised(lambda: read(ENCODED[:-1]), ValueError)  # noqa: B023
        for read in (_core.decode, _core.json_text, _core.span_json, _core.span_summary)
    ],
    "decode",
)


def some_records() -> list[bytes]:
    """Span records that have a bit of everything."""
    with mlflow.start_span("root", attributes={"k": VALUE}) as span:
        span.set_inputs(VALUE)
        span.set_outputs([VALUE])
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 1})
        span.add_event(Event)
        list(generator(2))
        deep: Any = 1.5
        for _ in range(120):
            deep = [deep]
        with mlflow.start_span("deep") as inner:
            inner.set_inputs(deep)
    reader = Place.recorded.reader
    items = [item[1:] for item in reader.drain(FOREVER)]
    reader.release(reader.cursor)
    return [record for kind, _, record in items if kind == 1]


def of_records(name: str, call: Callable[[list[bytes]], Any], *of: str) -> None:
    def run():
        records = RECORDS or RECORDS.extend(some_records()) or RECORDS
        expected = call(records) if Place.looks else None
        outcome = yield lambda: call(records)
        if Place.looks:
            outcome.is_own(expected)

    CASES[name] = Case(run, tuple(f"_core.{one}" for one in of), own=True)


RECORDS: list[bytes] = []
of_records(
    "span_json", lambda records: [_core.span_json(record) for record in records], "span_json"
)
of_records(
    "span_head", lambda records: [_core.span_head(record) for record in records], "span_head"
)


def written(records: list[bytes]) -> bytes:
    with tempfile.TemporaryFile(buffering=0) as file:
        for record in records:
            _core.write_span_json(file.fileno(), record)
        file.seek(0)
        return file.read()


of_records("write_span_json", written, "write_span_json")
of_records(
    "span_summary",
    lambda records: [_core.span_summary(record) for record in records],
    "span_summary",
)
of_records("otlp_request", lambda records: _core.otlp_request(records), "otlp_request")
of_records(
    "collector_request",
    lambda records: _core.collector_request(
        [(record, 1, EMPTY, None) for record in records], EMPTY, True
    ),
    "collector_request",
)
of_records(
    "collector_request_of_values",
    lambda records: _core.collector_request(
        [(record, 3, ENCODED, b"name") for record in records], ENCODED, False
    ),
    "collector_request",
)
of_records(
    "write_and_read_a_segment",
    lambda records: segment_of(records),
    "write_segment",
    "give_memory_back",
    "SegmentReader",
    *(
        f"SegmentReader.{name}"
        for name in ("read", "rewind", "move", "is_written", "damaged", "offset", "rest", "reused")
    ),
)


def segment_of(records: list[bytes]) -> list[bytes]:
    path = f"{Place.folder}/some.seg"
    _core.write_segment(path, records, 3)
    _core.give_memory_back()
    reader = _core.SegmentReader(path)
    read = [item[3] for item in reader.read(FOREVER)]
    all_of(reader, getters_of(_core.SegmentReader))
    assert not reader.damaged, "the segment is damaged"
    assert not reader.is_written(), "nobody writes to the segment"
    reader.rewind(0)
    reader.move(path)
    return read


@case("_core.RingReader.drain", own=True)
def read_a_ring():
    """What could not be read is read later, and nothing twice."""
    path = f"{Place.folder}/other.ring"
    for _ in range(3):
        plain(VALUE)
    source = Place.recorded.reader
    before = source.cursor
    outcome = yield lambda: source.drain(FOREVER)
    assert not source.damaged, "the ring is damaged"
    later = source.drain(FOREVER)
    got = len(later) + (len(outcome.value) if outcome.error is None else 0)
    assert got >= 3, f"{got} records were read of the ring {path} behind {before}"


@case(
    "_core.RingWriter",
    "_core.RingReader",
    "_core.RingWriter.progress",
    "_core.RingWriter.append",
    "_core.RingWriter.heartbeat",
    own=True,
)
def make_a_ring():
    path = f"{Place.folder}/made.ring"

    def call():
        writer = _core.RingWriter(path, 1 << 16, f"{Place.folder}/made-spill", memory_prefix=path)
        reader = _core.RingReader(path)
        appended = writer.append([b"record"])
        return reader.capacity, writer.progress() is not None, writer.heartbeat(), appended

    outcome = yield call
    outcome.is_own((1 << 16, True, (0, 0), 1))
    outcome = None
    Path(path).unlink(missing_ok=True)


RING_READER = getters_of(_core.RingReader)


@case(
    *(
        f"_core.RingWriter.{name}"
        for name in ("request_flush", "let_spares_go", "progress", "close")
    ),
    *(f"_core.RingReader.{name}" for name in RING_READER),
    *(
        f"_core.RingReader.{name}"
        for name in (
            "drain",
            "skip_damage",
            "rewind",
            "look_back",
            "release",
            "set_delivered",
            "add_spill_delivered",
            "set_server_state",
            "heartbeat",
            "take_flush",
            "alive",
            "close",
        )
    ),
    own=True,
)
def use_a_ring():
    def call():
        writer = _core.RingWriter(None, 1 << 16, "")
        reader = _core.RingReader(writer)
        writer.request_flush()
        writer.let_spares_go()
        asked = reader.take_flush()
        reader.heartbeat(False)
        reader.set_server_state(1)
        reader.set_delivered(0)
        reader.add_spill_delivered(1)
        reader.skip_damage()
        reader.rewind(0)
        reader.look_back()
        reader.release(0)
        values = len(all_of(reader, RING_READER)), reader.alive(), reader.drain(FOREVER)
        progress = len(writer.progress())
        reader.close()
        writer.close()
        again = raised(lambda: _core.RingReader(writer), ValueError)
        return asked, values, progress, writer.progress(), again

    outcome = yield call
    if outcome.error is None:
        assert outcome.value == (True, (len(RING_READER), True, []), 8, None, True), outcome.value


# ---- traces by their ids ----


@case("set_trace_tag", "delete_trace_tag")
def tags_of_a_trace():
    span = mlflow.start_span_no_context("span")

    def call():
        mlflow.set_trace_tag(span.trace_id, "key", "value")
        mlflow.delete_trace_tag(span.trace_id, "key")

    outcome = yield call
    outcome.is_own(None)
    span.end()


@case("log_trace", needs_mlflow=INSTALLED)
def log_trace():
    outcome = yield lambda: (
        mlflow_fasttrace.log_trace("t", 1, 2, {"a": 1}, {"k": VALUE}, {"t": "v"}, 1, 2)[:3]
    )
    if outcome.error is None:
        assert outcome.value in ("tr-", "MLF"), "this is the id of no trace, and of no span"


@case("log_feedback", "log_expectation", "log_assessment", needs_mlflow=True, only_core=True)
def assessments():
    from mlflow.entities import Feedback

    with mlflow.start_span("span") as span:

        def call():
            mlflow.log_feedback(trace_id=span.trace_id, name="f", value=1)
            mlflow.log_expectation(trace_id=span.trace_id, name="e", value="x")
            mlflow.log_assessment(span.trace_id, Feedback(name="a", value=[1]))

        outcome = yield call
        outcome.is_own(None)


WHOLE: list[Any] = []


@case("add_trace", needs_mlflow=True, only_core=True)
def add_trace():
    from mlflow.entities import Trace, TraceData, TraceInfo, TraceState
    from mlflow.entities.trace_location import TraceLocation

    if not WHOLE:
        span = mlflow.start_span_no_context("origin", inputs=VALUE)
        span.end()
        span = span.to_immutable_span()
        place = TraceLocation.from_experiment_id("0")
        info = TraceInfo(span.trace_id, place, 1, TraceState.OK)
        WHOLE.append(Trace(info, TraceData([span])).to_dict())

    def call():
        mlflow.add_trace(WHOLE[0])
        with mlflow.start_span("around") as around:
            mlflow.add_trace(WHOLE[0], target=around)

    outcome = yield call
    outcome.is_own(None)


# ---- tracing ----


@case("tracing.disable", "tracing.enable", "entities.NoOpSpan", needs_mlflow=INSTALLED)
def switched_off():
    def call():
        mlflow.tracing.disable()
        with mlflow.start_span("span") as span:
            span.set_inputs(VALUE)
            span.set_attribute("k", 1)
            read = span.inputs, span.attributes, span.events
        mlflow.start_span_no_context("span").end()
        plain(1)
        mlflow.tracing.enable()
        return read

    outcome = yield call
    _core.set_enabled(True)
    outcome.is_own((None, {}, []))


@case("tracing.trace_disabled", "tracing.is_tracing_enabled", needs_mlflow=INSTALLED)
def trace_disabled():
    if INSTALLED:
        from mlflow.tracing import provider as api
    else:
        api = mlflow.tracing

    def call():
        return api.trace_disabled(lambda: (plain(1), api.is_tracing_enabled()))()

    outcome = yield call
    _core.set_enabled(True)
    outcome.is_own(([1, 2], False))


@case("tracing.context", "context", "_core.use_scopes", needs_mlflow=INSTALLED)
def context_of_tracing():
    def call():
        with mlflow.tracing.context(tags={"a": "b"}, metadata={"c": "d"}, session_id="s", user="u"):
            plain(1)
            with mlflow.tracing.context(enabled=False):
                plain(1)

    outcome = yield call
    outcome.is_own(None)


@case("tracing.configure", needs_mlflow=INSTALLED)
def span_processors():
    def call():
        with mlflow.tracing.configure(span_processors=[lambda span: span.set_outputs("masked")]):
            plain(1)

    outcome = yield call
    mlflow.tracing.configure(span_processors=[])
    outcome.is_own(None)


@case("tracing.set_destination", needs_mlflow=True)
def set_destination():
    from mlflow.entities.trace_location import MlflowExperimentLocation

    def call():
        mlflow.tracing.set_destination(MlflowExperimentLocation("7"), context_local=True)
        mlflow.tracing.set_destination(MlflowExperimentLocation("0"))

    outcome = yield call
    _core.set_destination(Place.recorded.writer, {"uri": "test", "experiment": {"id": "0"}})
    outcome.is_own(None)


@case(
    "tracing.get_tracing_context_headers_for_http_request",
    "tracing.set_tracing_context_from_http_request_headers",
    needs_mlflow=True,
)
def headers():
    from mlflow.tracing import distributed

    api = distributed if INSTALLED else mlflow.tracing
    own = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "a=b"}

    def call():
        found = []
        for flags in ("1", "0"):
            own["traceparent"] = own["traceparent"][:-1] + flags
            with api.set_tracing_context_from_http_request_headers(own):
                plain(1)
                found.append(len(api.get_tracing_context_headers_for_http_request()))
        return found

    outcome = yield call
    if outcome.error is None:  # none where there is no memory for what stands for the other process
        assert outcome.value in ([2, 1], [0, 1], [2, 0]), outcome.value


# ---- OpenTelemetry ----


PROVIDERS: list[Any] = []


@case(
    "otel.TracerProvider",
    "otel.Tracer",
    "tracing.get_bridged_tracer_provider",
    needs_mlflow=True,
    only_core=True,
)
def tracers():
    from mlflow_fasttrace import otel
    from opentelemetry import trace as trace_api
    from opentelemetry.sdk.trace import SpanProcessor

    process_provider = mlflow_fasttrace.tracing.get_bridged_tracer_provider
    link = trace_api.Link(trace_api.SpanContext(1, 2, True))

    if not PROVIDERS:  # once: os.register_at_fork() keeps something of every one that the SDK makes
        PROVIDERS.append(otel.TracerProvider())
        PROVIDERS[0].add_span_processor(SpanProcessor())
    (own,) = PROVIDERS

    def call():
        for provider in (process_provider(), own):
            tracer = provider.get_tracer("library")
            with tracer.start_as_current_span(
                "theirs", attributes={"plain": "text"}, links=[link]
            ) as span:
                if span.is_recording():
                    dict(span.attributes), span.parent, span.context
                span.add_event("e", {"a": 1})
                with tracer.start_as_current_span("below") as below:
                    below.record_exception(ERROR)
        own.shutdown()

    outcome = yield call
    outcome.is_own(None)


@case(needs_mlflow=True)
def contexts_that_are_linked():
    from mlflow_fasttrace._internal.spans.otel_context import link_contexts

    tracer = mlflow_fasttrace.tracing.get_bridged_tracer_provider().get_tracer("library")

    def call():
        link_contexts(True)
        try:
            with tracer.start_as_current_span("theirs"):
                plain(1)
                with mlflow.start_span("ours"), tracer.start_as_current_span("below"):
                    pass
        finally:
            link_contexts(False)

    outcome = yield call
    link_contexts(False)
    outcome.is_own(None)


# ---- ways of dropping a span that has not ended ----


def dropping(drop: Callable[[], Any]) -> Callable[[], Any]:
    """A case whose call drops what it started."""

    def run():
        yield drop

    name = f"drop_{drop.__name__}"
    assert name not in CASES
    CASES[name] = Case(run, drops=True, only_core="thread" in name)
    return drop


class Never:
    """What is awaited and never comes."""

    def __await__(self):
        yield


@mlflow.trace
async def suspended_coroutine():
    await Never()


@mlflow.trace
async def suspended_async_generator():
    yield 1
    await Never()


@dropping
def a_scope():
    mlflow.start_span("dropped").__enter__()
    _core.current_span_var.set(None)


@dropping
def a_scope_and_its_context():
    contextvars.Context().run(lambda: mlflow.start_span("dropped").__enter__())


@dropping
def scopes_in_one_another():
    for _ in range(3):
        mlflow.start_span("dropped").__enter__()
    _core.current_span_var.set(None)


@dropping
def a_scope_that_was_not_entered():
    mlflow.start_span("dropped", attributes={"k": VALUE})


@dropping
def a_scope_in_a_circle():
    holder = Holder()
    holder.scope = mlflow.start_span("dropped", attributes={"holder": holder})
    contextvars.Context().run(holder.scope.__enter__)


@dropping
def a_scope_in_another_thread():
    thread = threading.Thread(target=lambda: mlflow.start_span("dropped").__enter__())
    thread.start()
    thread.join()


@dropping
def no_context():
    mlflow.start_span_no_context("dropped", inputs=VALUE)


@dropping
def a_child():
    with mlflow.start_span("root"):
        mlflow.start_span_no_context("dropped", parent_span=mlflow.get_current_active_span())


@dropping
def a_root():
    root = started(mlflow.start_span_no_context("dropped"))
    child = started(mlflow.start_span_no_context("child", parent_span=root))
    del root
    child.end()


@dropping
def a_span_with_much():
    span = started(mlflow.start_span_no_context("dropped", inputs=VALUE, tags={"a": "b"}))
    span.add_event(Event)
    span.record_exception(ERROR)
    span.set_attributes({str(n): VALUE for n in range(12)})
    span._append_link("tr-" + "1" * 32, "2" * 16, {"a": [1]})
    span._links, span._attachments, span._trace.assessments, span._trace.metadata


@dropping
def a_span_on_itself():
    span = started(mlflow.start_span_no_context("dropped"))
    span.me = span


@dropping
def a_span_in_its_trace():
    span = started(mlflow.start_span_no_context("dropped"))
    span._trace.assessments.append(span)
    span._trace.tags["span"] = span
    span._trace.info = span


@dropping
def a_span_in_its_own_lists():
    span = started(mlflow.start_span_no_context("dropped"))
    span._links.append(span)
    span._attachments["span"] = span


@dropping
def a_twin():
    span = started(mlflow.start_span_no_context("dropped"))
    span._set_twin(Holder())


@dropping
def a_remote_span():
    span = started(_core.remote_span(b"1" * 16, 2, False))
    _core.start_span("dropped", span, None, None, None, None)


@dropping
def a_generator():
    next(generator(2))


@dropping
def a_generator_that_has_not_begun():
    generator(2)


@dropping
def a_generator_in_a_circle():
    holder = Holder()

    @mlflow.trace
    def steps():
        yield holder

    holder.steps = steps()
    next(holder.steps)


@dropping
def a_coroutine():
    suspended_coroutine().send(None)


@dropping
def a_coroutine_that_is_closed():
    suspended = suspended_coroutine()
    suspended.send(None)
    suspended.close()


@dropping
def an_async_generator():
    steps = suspended_async_generator()
    drive(steps.__anext__())


@dropping
def an_async_generator_that_waits():
    steps = suspended_async_generator()
    drive(steps.__anext__())
    steps.__anext__().send(None)


@dropping
def a_traced_function_in_a_circle():
    traced = mlflow.trace(lambda: 1)
    traced.own = traced
    traced()


# ---- MLflow's own ways into its tracing, which lead to the core ----

#: Cases that there are under ``install()`` only, by MLflow's names.
INSTALLED_CASES: dict[str, Case] = {}


def installed_case(*of: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Makes a call a case of these names of MLflow's."""

    def add(call: Callable[[], Any]) -> Callable[[], Any]:
        def run():
            outcome = yield call
            outcome.is_own(None)

        INSTALLED_CASES[call.__name__] = Case(run, of, needs_mlflow=True)
        return call

    return add


PROVIDER = "mlflow.tracing.provider"


@installed_case(f"{PROVIDER}.set_span_in_context", f"{PROVIDER}.detach_span_from_context")
def span_in_context():
    from mlflow.tracing import provider

    span, detached = mlflow.start_span_no_context("span"), provider.start_detached_span("detached")
    token = provider.set_span_in_context(span)
    try:
        plain(1)
    finally:
        provider.detach_span_from_context(token)
    span.end()
    detached.end()


@installed_case(f"{PROVIDER}.safe_set_span_in_context", f"{PROVIDER}.with_active_span")
def active_span():
    from mlflow.tracing import provider

    span = mlflow.start_span_no_context("span")
    with provider.safe_set_span_in_context(span):
        plain(1)
    assert raised(lambda: fail_within(provider.with_active_span(span)), KeyError)
    span.end()


def fail_within(block: Any) -> None:
    with block:
        raise KeyError("own")


@installed_case(
    "mlflow.tracing.fluent._set_last_active_trace_id",
    "mlflow.tracing.config.get_config",
    "mlflow.tracing.distributed._get_tracing_headers_from_span",
)
def what_integrations_ask():
    from mlflow.tracing import config, distributed, fluent

    fluent._set_last_active_trace_id("tr-" + "1" * 32)
    config.get_config()
    with mlflow.start_span("span") as span:
        distributed._get_tracing_headers_from_span(span)


@installed_case("mlflow.tracing.trace_manager.InMemoryTraceManager")
def trace_manager():
    from mlflow.tracing.trace_manager import InMemoryTraceManager

    manager = InMemoryTraceManager.get_instance()
    with mlflow.start_span("root") as span:
        with manager.get_trace(span.trace_id) as trace:
            if trace is not None:  # else there was no memory to record the root
                trace.info.tags = {**trace.info.tags, "a": "b"}
                trace.info.request_preview = "p"
        manager.get_span_from_id(span.trace_id, span.span_id)
        manager.get_root_span_id(span.trace_id)


@installed_case("mlflow.MlflowClient.start_trace", "mlflow.MlflowClient.end_trace")
def client():
    made = CLIENTS or CLIENTS.append(mlflow.MlflowClient()) or CLIENTS
    root = made[0].start_trace("root", inputs=VALUE, tags={"a": "b"})
    child = made[0].start_span("child", root.trace_id, root.span_id)
    made[0].end_span(child.trace_id, child.span_id, outputs=[1])
    made[0].end_trace(root.trace_id)


CLIENTS: list[Any] = []


@installed_case("mlflow.entities.span.create_mlflow_span")
def span_of_the_sdk():
    from mlflow.tracing import provider
    from opentelemetry.sdk.trace import TracerProvider

    sdk = SDK or SDK.append(TracerProvider().get_tracer("application")) or SDK
    processor = provider._get_span_processor()
    made = sdk[0].start_span("made by OpenTelemetry")
    processor.on_start(made, None)
    made.set_attribute("k", "v")
    made.end()
    processor.on_end(made)


SDK: list[Any] = []


# ---- which names there are ----

#: Public names that have no case, and what proves them instead.
ELSEWHERE = {
    **dict.fromkeys(
        (
            "delete_assessment",
            "get_assessment",
            "get_trace",
            "log_issue",
            "override_feedback",
            "search_sessions",
            "search_traces",
            "update_assessment",
        ),
        "MLflow's own function, behind a wait for the sender",
    ),
    "flush_trace_async_logging": "a wait for the sender",
    **dict.fromkeys(
        ("set_experiment", "set_tracking_uri", "tracing.reset"),
        "another destination for the whole process, with a ring, a sender and a server",
    ),
    **dict.fromkeys(
        ("autolog", "install", "is_installed", "uninstall"),
        "puts functions in MLflow's place; what these do is looked at where MLflow is on the core",
    ),
    **dict.fromkeys(
        ("SpanType", "entities", "entities.LiveSpan", "entities.SpanType", "fluent", "otel"),
        "no call",
    ),
    **dict.fromkeys(("traces", "tracing"), "no call"),
    **dict.fromkeys(
        ("_core.current_span_var", "_core.last_trace_id_var", "_core.scope_var"),
        "a ContextVar",
    ),
}


def public_names() -> set[str]:
    """Every public name of the package, every name of the core, and every attribute of the core's types."""
    names = set(mlflow_fasttrace._OWN)
    names |= {f"entities.{name}" for name in ("LiveSpan", "NoOpSpan", "SpanType")}
    for module in ("tracing", "otel"):
        public = importlib.import_module(f"mlflow_fasttrace.{module}")._OWN
        names |= {f"{module}.{name}" for name in public}
    for name, value in vars(_core).items():
        if name.startswith("__"):
            continue
        names.add(f"_core.{name}")
        if isinstance(value, type):
            names |= {f"_core.{name}.{own}" for own in vars(value) if not own.startswith("__")}
    return names


# ---- whether the cases are cases of what they say ----


def called_by(case: Case) -> set[str]:
    """The last part of the names of the package's and the core's functions that a case calls."""
    called: set[str] = set()

    def note(frame: types.FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            own = function.__self__
            kind = own if isinstance(own, type) else type(own)
            if "mlflow_fasttrace" in f"{function.__module__} {kind}":
                called.add(function.__name__)
        elif event == "call" and frame.f_globals["__name__"].startswith("mlflow_fasttrace"):
            called.add(frame.f_code.co_name)

    steps = case.run()
    call = next(steps)
    sys.setprofile(note)
    try:
        outcome = Outcome(call(), None)
    except KeyError as own:
        outcome = Outcome(None, own)
    finally:
        sys.setprofile(None)
    with suppress(StopIteration):
        steps.send(outcome)
    return called


def main() -> None:
    """Prints what the cases say that they call and do not call."""
    attributes = {
        name
        for kind in vars(_core).values()
        if isinstance(kind, type)
        for name in (kind.__name__, *getters_of(kind))
    }
    with recording():
        for name, case in CASES.items():
            called = called_by(case)
            for path in case.of:
                last = path.rpartition(".")[2]
                if last not in called | attributes | {"TracerProvider", "Tracer", "NoOpSpan"}:
                    print(f"{name} does not call {path}")


if __name__ == "__main__":
    main()
