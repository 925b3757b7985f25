"""What the core says to arguments that do not fit: an exception that names what is wrong, after which all is
as it was. The package itself gives it none of these; code that reaches for ``_core`` does, by mistake."""

from __future__ import annotations

import copy
import json
import logging

import mlflow_fasttrace as mlflow
import pytest
from mlflow.entities.span import LiveSpan as MlflowLiveSpan
from mlflow.exceptions import MlflowException
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import hooks
from mlflow_fasttrace._internal.recording import destination, start
from mlflow_fasttrace._internal.spool.records import SPAN
from support.made_records import span_record
from support.records import items_of

LARGEST = (1 << 64) - 1


class Undecided:
    """Neither true nor false."""

    def __bool__(self) -> bool:
        raise ArithmeticError("undecided")


@pytest.fixture(autouse=True)
def recording(recorded):
    """What is recorded meanwhile; nothing is current afterwards, and a span records as ever."""
    yield recorded
    assert _core.current() is None
    recorded.spans()
    with mlflow.start_span("afterwards") as span:
        span.set_inputs(1)
    (span,) = recorded.spans()
    assert (span.name, span.parent_id, span.inputs) == ("afterwards", None, 1)


def begin(name="x", parent=None, start_ns=None, span_id=None, parent_id=None, **more):
    """A span by the core's own function."""
    return _core.start_span(name, parent, None, start_ns, span_id, parent_id, *more.values())


SCOPE = ("x", None, None, None, None, None)
CALL = (lambda: 1, "x", [], [], None)

WRONG = {
    "set_destination of one": (lambda: _core.set_destination(None), TypeError, "2"),
    "set_destination of no ring": (lambda: _core.set_destination(1, {}), TypeError, "a RingWriter"),
    "set_hook of one": (lambda: _core.set_hook("warn"), TypeError, "2"),
    "set_hook of another name": (lambda: _core.set_hook("no", None), ValueError, "is called no"),
    "set_enabled": (lambda: _core.set_enabled(Undecided()), ArithmeticError, "undecided"),
    "set_sampling": (lambda: _core.set_sampling("all"), TypeError, "real number"),
    "start_span of too few": (lambda: _core.start_span("x"), TypeError, "by position"),
    "start_span of no name": (lambda: begin(name=1), TypeError, "name"),
    "start_span at a text": (lambda: begin(start_ns="now"), TypeError, "int"),
    "start_span before 1970": (lambda: begin(start_ns=-1), OverflowError, "int"),
    "start_span with an id too large": (lambda: begin(span_id=LARGEST + 1), OverflowError, "int"),
    "start_span under a text": (lambda: begin(parent_id="a"), TypeError, "int"),
    "start_span under no span": (lambda: begin(parent="root"), TypeError, "a LiveSpan"),
    "start_span in a text": (lambda: begin(trace_id="1"), TypeError, "bytes"),
    "start_span in half an id": (lambda: begin(trace_id=b"12345678"), ValueError, "16"),
    "remote_span of one": (lambda: _core.remote_span(b""), TypeError, "3"),
    "remote_span of half an id": (lambda: _core.remote_span(b"1", 1, True), ValueError, "16 bytes"),
    "remote_span of 0": (lambda: _core.remote_span(b"1" * 16, 0, True), ValueError, "other than 0"),
    "non_recording_span": (lambda: _core.non_recording_span(Undecided()), ArithmeticError, "undecided"),
    "decode of a text": (lambda: _core.decode("x"), TypeError, "bytes"),
    "json_text of a text": (lambda: _core.json_text("x"), TypeError, "bytes"),
    "span_json of a text": (lambda: _core.span_json("x"), TypeError, "bytes"),
    "span_json of no record": (lambda: _core.span_json(b"x"), ValueError, "not a span record"),
    "span_head of no record": (lambda: _core.span_head(b"x"), ValueError, "not a span record"),
    "write_span_json of no record": (
        lambda: _core.write_span_json(1, b"x"),
        ValueError,
        "not a span record",
    ),
    "write_span_json to a file that is none": (
        lambda: _core.write_span_json(-1, span_record()),
        OSError,
        "Bad file descriptor",
    ),
    "span_summary of nothing": (lambda: _core.span_summary(), TypeError, "1"),
    "otlp_request of a record": (lambda: _core.otlp_request(b"x"), TypeError, "takes a list"),
    "collector_request of one": (lambda: _core.collector_request([]), TypeError, "3"),
    "collector_request of a resource that is a list": (
        lambda: _core.collector_request([], _core.encode([1]), True),
        ValueError,
        "the resource is not an encoded map",
    ),
    "collector_request of a record": (
        lambda: _core.collector_request([b"x"], _core.encode({}), True),
        TypeError,
        "takes a tuple for every span",
    ),
    "collector_request of half a tuple": (
        lambda: _core.collector_request([(b"x", 1)], _core.encode({}), True),
        TypeError,
        "4",
    ),
    "SpanScope by name": (lambda: _core.SpanScope(name="x"), TypeError, "no keyword arguments"),
    "SpanScope of one": (lambda: _core.SpanScope("x"), TypeError, "6"),
    "SpanScope with a list": (lambda: _core.SpanScope(*SCOPE, []), TypeError, "tuple"),
    "Traced by name": (lambda: _core.Traced(function=int), TypeError, "no keyword arguments"),
    "Traced of one": (lambda: _core.Traced(int), TypeError, "5"),
    "Traced with no pairs": (lambda: _core.Traced(int, "x", [1], [], None), TypeError, "an attribute must be a tuple"),
    "Traced with half a pair": (lambda: _core.Traced(int, "x", [("k",)], [], None), TypeError, "2"),
    "Traced with a parameter that is a name": (
        lambda: _core.Traced(int, "x", [], ["a"], None),
        TypeError,
        "a parameter must be a tuple",
    ),
    "Traced with half a parameter": (
        lambda: _core.Traced(int, "x", [], [("a",)], None),
        TypeError,
        "2",
    ),
    "Traced with a list of root options": (
        lambda: _core.Traced(*CALL, [None] * 3),
        TypeError,
        "root_options must be a tuple",
    ),
    "Traced with two root options": (lambda: _core.Traced(*CALL, (1, 2)), TypeError, "3"),
    "Traced with a text for a ratio": (lambda: _core.Traced(*CALL, None, "1"), TypeError, "real number"),
    "Traced._begin of no list": (lambda: _core.Traced(*CALL)._begin((), (), {}), TypeError, "argument"),
    "Traced._finish of no list": (lambda: _core.Traced(*CALL)._finish((), 1), TypeError, "argument"),
    "Traced._fail of no list": (lambda: _core.Traced(*CALL)._fail((), 1), TypeError, "argument"),
    "Traced._stream of a list": (lambda: _core.Traced(*CALL)._stream([], {}), TypeError, "tuple"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_arguments_that_do_not_fit_are_named(name):
    call, error, says = WRONG[name]
    with pytest.raises(error, match=says):
        call()
    assert _core.enabled()


def test_a_destination_that_is_refused_changes_nothing(recording):
    for wrong in ((recording.writer, []), (recording.writer, {}, "second")):
        with pytest.raises(TypeError, match="takes a RingWriter, a dict and perhaps a RingWriter"):
            _core.set_destination(*wrong)
    with mlflow.start_span("x"):
        pass
    assert [span.name for span in recording.spans()] == ["x"]


# ---- methods of a span ----

METHODS = {
    "end by another name": (lambda s: s.end(output=1), "output"),
    "_append_link of one": (lambda s: s._append_link("t"), "3"),
    "_end_at a text": (lambda s: s._end_at("now"), "int"),
    "_move under a text": (lambda s: s._move("root"), "int"),
    "_rename to a number": (lambda s: s._rename(1), "a span's name is a str"),
    "_remove_attribute of a number": (lambda s: s._remove_attribute(1), "key is a str"),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_gets_other_arguments_leaves_the_span_alone(name, recording):
    call, says = METHODS[name]
    span = mlflow.start_span_no_context("span", inputs="kept")
    with pytest.raises(TypeError, match=says):
        call(span)
    assert span.end_time_ns is None
    span.end()
    (record,) = recording.spans()
    assert (record.name, record.parent_id, record.inputs) == ("span", None, "kept")
    assert "k" not in record.attributes


#: Arguments that no method of a span takes that has one or two.
OTHER_ARGUMENTS = {
    "none": ((), {}),
    "three": ((1, 2, 3), {}),
    "an unknown name": ((1,), {"nope": 1}),
    "only an unknown name": ((), {"nope": 1}),
    "a value too": (("k",), {"value": 1, "inputs": 1}),
    "the first twice": (("k",), {"inputs": 1, "key": 2}),
    "more, and a name": ((1, 2, 3), {"value": 1}),
}


@pytest.mark.parametrize("arguments", OTHER_ARGUMENTS)
@pytest.mark.parametrize("method", ["set_inputs", "set_attribute", "set_status", "add_event"])
def test_a_method_says_what_mlflows_says_of_other_arguments(method, arguments):
    args, kwargs = OTHER_ARGUMENTS[arguments]
    of_mlflow = object.__new__(MlflowLiveSpan)
    span = mlflow.start_span_no_context("span")
    with pytest.raises(TypeError) as expected:
        getattr(of_mlflow, method)(*args, **kwargs)
    with pytest.raises(TypeError) as found:
        getattr(span, method)(*args, **kwargs)
    assert str(found.value) == str(expected.value)
    span.end()


def test_an_attribute_that_is_not_set_cannot_be_removed():
    span = mlflow.start_span_no_context("span", attributes={"k": 1})
    span._remove_attribute("k")
    with pytest.raises(KeyError, match="k"):
        span._remove_attribute("k")
    span.end()


def test_a_key_that_is_no_text_has_no_value():
    span = mlflow.start_span_no_context("span")
    assert span.get_attribute(1) is None
    span.end()


class Event:
    """What add_event() may get instead of a SpanEvent."""

    def __init__(self, name, timestamp, attributes):
        self.name = name
        self.timestamp = timestamp
        self.attributes = attributes


@pytest.mark.parametrize("timestamp", [-1, LARGEST + 1, "now", None])
def test_an_event_whose_time_is_no_time_happens_now(timestamp, recording):
    span = mlflow.start_span_no_context("span")
    span.add_event(Event("event", timestamp, {"k": 1}))
    span.end()
    (record,) = recording.spans()
    ((name, time, attributes),) = record.events
    assert (name, attributes) == ("event", {"k": 1})
    assert record.start_ns <= time <= record.end_ns


def test_an_event_keeps_what_can_be_kept_of_it(recording):
    span = mlflow.start_span_no_context("span")
    span.add_event(Event(7, 5, "no attributes"))
    with pytest.raises(AttributeError, match="name"):
        span.add_event("no event")
    span.end()
    (record,) = recording.spans()
    assert record.events == [("event", 5, {})]


@pytest.mark.parametrize("time", [-1, LARGEST + 1, "now"])
def test_a_span_whose_end_is_no_time_ends_now(time, recording):
    span = mlflow.start_span_no_context("span")
    span.end(end_time_ns=time)
    (record,) = recording.spans()
    assert record.start_ns <= record.end_ns < record.start_ns + 60 * 10**9


def test_a_span_that_ends_before_its_start_takes_no_time(recording):
    """As where the clock was set back meanwhile."""
    begin("span", start_ns=1 << 62).end()
    (record,) = recording.spans()
    assert record.end_ns == record.start_ns == 1 << 62


class Status:
    """A status whose description cannot be read."""

    status_code = "ERROR"

    @property
    def description(self) -> str:
        raise ValueError("no description")


def test_a_status_is_kept_without_a_description_that_raises(recording):
    span = mlflow.start_span_no_context("span")
    span.set_status(Status())
    with pytest.raises(AttributeError, match="status_code"):
        span.set_status(1)
    span.end()
    (record,) = recording.spans()
    assert (record.status, record.message) == (2, "")


def test_a_span_that_ends_with_a_status_that_there_is_not_ends_and_says_so(recording, caplog):
    span = mlflow.start_span_no_context("span")
    with caplog.at_level(logging.WARNING):
        span.end(status="FINE")
    assert "none of OK, ERROR and UNSET" in caplog.text
    (record,) = recording.spans()
    assert record.name == "span"


def test_an_error_that_cannot_be_made_of_its_text_is_the_programs(recording):
    class Text(str):
        pass

    span = mlflow.start_span_no_context("span")
    span.record_exception(Text("went wrong"))
    with pytest.raises(MlflowException, match="must be an Exception instance"):
        span.record_exception(ValueError)
    span.end()
    (record,) = recording.spans()
    ((name, _time, attributes),) = record.events
    assert (name, attributes["exception.message"]) == ("exception", "went wrong")


def test_a_span_that_has_ended_takes_no_link(recording):
    span = mlflow.start_span_no_context("span")
    span.end()
    span.add_link("no link, which is not looked at")
    span._append_link("tr-" + "1" * 32, "1" * 16, None)
    assert span.links == []
    (record,) = [record for kind, _, record in items_of(recording.reader) if kind == SPAN]
    assert json.loads(_core.span_json(record))["links"] == []


def test_a_copy_of_a_span_is_the_span():
    span = mlflow.start_span_no_context("span")
    assert copy.copy(span) is span
    span.end()


@pytest.mark.parametrize("name", ["from_dict", "from_dict_v2", "from_otel_proto"])
def test_a_live_span_is_made_of_nothing_else(name):
    with pytest.raises(NotImplementedError, match="not supported for the LiveSpan class"):
        getattr(_core.LiveSpan, name)({})


def test_what_a_span_keeps_for_the_program_may_be_replaced():
    span = mlflow.start_span_no_context("span")
    span.__dict__ = {"note": 1}
    assert span.note == 1
    with pytest.raises(TypeError):
        span.__dict__ = 1
    assert span.note == 1
    span.end()


# ---- scopes, traced callables, traces ----


def test_a_scope_is_entered_once():
    scope = mlflow.start_span("once")
    with scope, pytest.raises(RuntimeError, match="started already"):
        scope.__enter__()
    with pytest.raises(TypeError, match="3"):
        scope.__exit__()
    with pytest.raises(TypeError, match="takes one function"):
        scope()
    with pytest.raises(TypeError, match="takes one function"):
        scope(len, name="x")


def test_a_scope_that_is_left_with_a_type_alone_makes_the_exception(recording):
    class Needy(Exception):
        def __init__(self, needed):
            super().__init__(needed)

    for error, events in ((KeyError, ["exception"]), (Needy, [])):  # the second one cannot be made
        scope = mlflow.start_span("by hand")
        scope.__enter__()
        assert scope.__exit__(error, None, None) is False
        (record,) = recording.spans()
        assert record.event_names == events


def test_attributes_that_are_no_mapping_are_left_out(recording):
    with mlflow.start_span("span", attributes=5) as span:
        assert span.get_attribute("k") is None
    with mlflow.start_span("pairs", attributes=[("k", 1)]):
        pass
    without, pairs = recording.spans()
    assert "k" not in without.attributes
    assert pairs.attributes["k"] == 1


def test_a_traced_callable_without_a_signature_function_is_a_plain_object():
    bare = _core.Traced(len, "x", [], [], None)
    assert repr(bare) == f"<traced {len!r}>"
    with pytest.raises(AttributeError):
        bare.note = 1


def test_a_traces_fields_take_what_they_can_hold():
    with mlflow.start_span("root") as span:
        trace = span._trace
        for state in (-1, 4):
            with pytest.raises(ValueError, match="a trace's state is 0 to 3"):
                trace.state = state
        with pytest.raises(TypeError):
            trace.state = "OK"
        with pytest.raises(ValueError, match="a trace's state is 0 to 3"):
            del trace.state
        for preview in (1, None):
            with pytest.raises(TypeError, match="a str is needed"):
                trace.request_preview = preview
        with pytest.raises(TypeError, match="a str is needed"):
            del trace.request_preview
        assert (trace.state, trace.request_preview) == (0, None)


# ---- where nothing is recorded ----


def test_where_nothing_can_be_recorded_no_span_is_begun(recording):
    """There is no ring, and nobody is asked for one."""
    destination.reset()
    hooks.start_recording.answer(None)
    try:
        assert begin() is None
        assert begin(trace_id=b"1" * 16) is None
        assert _core.remote_span(b"1" * 16, 1, True) is None
    finally:
        hooks.start_recording.answer(start.start)
        _core.set_destination(recording.writer, {"uri": "test", "experiment": {"id": "0"}})


def test_while_tracing_is_off_no_span_is_begun_inside_of_one(recording):
    with mlflow.start_span("around") as around:
        _core.set_enabled(False)
        try:
            assert begin() is None
            assert begin(parent=around) is None
        finally:
            _core.set_enabled(True)
    (record,) = recording.spans()
    assert record.name == "around"


def test_a_span_that_is_not_recorded_says_why(recording):
    assert _core.non_recording_span(True).not_sampled
    assert not _core.non_recording_span(False).not_sampled
    _core.set_sampling(0)
    try:
        assert begin().not_sampled
    finally:
        _core.set_sampling(1)
    assert recording.spans() == []


# ---- records that cannot be encoded ----


def test_what_is_no_record_is_refused_by_its_place():
    good = span_record()
    _request, refused, _inexact = _core.otlp_request([b"x", good, 7])
    assert refused == [0, 2]
    spans = [(one, 1, _core.encode({}), None) for one in (b"x", good, 7)]
    assert _core.collector_request(spans, _core.encode({}), True)[1] == [0, 2]
