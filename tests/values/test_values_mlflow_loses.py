"""Values that break the program under MLflow, or never arrive: here neither."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from support.traces import traces_of

PROGRAM = """
import sys
import mlflow_fasttrace as mlflow

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("values that MLflow loses")


class Raises:
    def __str__(self):
        raise RuntimeError("in __str__")

    __repr__ = __str__


class Broken(Exception):
    def __str__(self):
        raise RuntimeError("in __str__")


@mlflow.trace(name="passes")
def passes(value):
    ran.append(value)
    return value


cycle = []
cycle.append(cycle)
deep = {}
for _ in range(5000):
    deep = {"d": [deep]}

# a circular and a very deep argument; a value whose __str__ raises
for value in (cycle, deep, Raises(), {"of": Raises(), "and": 1}):
    ran = []
    assert passes(value) is value
    assert len(ran) == 1 and ran[0] is value

# an exception whose __str__ raises
error = Broken("mine")
try:
    with mlflow.start_span("broken exception"):
        raise error
except Broken as raised:
    assert raised is error
else:
    raise AssertionError("swallowed")

# bool(self) is nobody's business
class NoBool:
    def __bool__(self):
        raise RuntimeError("in __bool__")

    @mlflow.trace(name="no bool")
    def method(self, x):
        return x


class Box(list):
    @mlflow.trace(name="empty self")
    def method(self, x):
        return x


class Sized:
    @mlflow.trace(name="traced length")
    def __len__(self):
        return 3


assert NoBool().method(1) == 1
assert Box().method(2) == 2
assert len(Sized()) == 3

# more than 64 bits, more than 40 levels, beside a good one
for name, value in (("big", {"n": 2**64, "m": -(2**70)}), ("nested", [[deep]]), ("good", 1)):
    with mlflow.start_span(name) as span:
        span.set_inputs(value)

# lone surrogates in a root
with mlflow.start_span("surrogate") as span:
    span.set_inputs({"text": "a\\ud800b", "k\\udfff": 1})
    span.set_outputs("\\ude00")
    mlflow.update_current_trace(tags={"fruit": "apple"}, session_id="s-1")

# many attributes, many events
with mlflow.start_span("many") as span:
    for i in range(300):
        span.set_attribute(f"key {i}", {"n": i})
    for i in range(300):
        span.add_event(mlflow.entities.SpanEvent(f"event {i}", attributes={"n": i}))


@mlflow.trace(name="stream")
def stream():
    yield from range(300)


assert list(stream()) == list(range(300))
mlflow.flush_trace_async_logging()
print("undisturbed")
"""


@pytest.fixture(scope="module")
def traces(server):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, server.uri],
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(os.environ),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "undisturbed\n"
    found: dict[str, list] = {}
    for trace in traces_of(server.uri, "values that MLflow loses"):
        assert len(trace.data.spans) == 1
        found.setdefault(trace.data.spans[0].name, []).append(trace)
    return found


def only(traces, name):
    (trace,) = traces[name]
    return trace, trace.data.spans[0]


def test_circular_and_deep_arguments(traces):
    cycle, deep = [trace.data.spans[0] for trace in traces["passes"][:2]]
    assert cycle.inputs == "{'value': [[...]]}"
    assert cycle.outputs == "[[...]]"
    for value in (deep.inputs["value"], deep.outputs):
        while not isinstance(value, str):
            value = value["d"] if isinstance(value, dict) else value[0]
        assert value.count('{"d": [') > 400, "what protobuf cannot hold is text"
        assert "nested more than 900 levels deep" in value
    assert cycle.status.status_code.value == deep.status.status_code.value == "OK"


def test_raising_str(traces):
    alone, inside = [trace.data.spans[0] for trace in traces["passes"][2:]]
    assert alone.inputs == {"value": "<unprintable Raises object>"}
    assert alone.outputs == "<unprintable Raises object>"
    assert inside.outputs == {"of": "<unprintable Raises object>", "and": 1}
    assert inside.inputs == {"value": inside.outputs}


def test_exception_whose_str_raises(traces):
    _, span = only(traces, "broken exception")
    assert span.status.status_code.value == "ERROR"
    (event,) = span.events
    assert event.attributes["exception.type"] == "Broken"
    assert event.attributes["exception.message"] == "<unprintable Broken object>"


def test_self_is_never_asked(traces):
    assert only(traces, "no bool")[1].inputs == {"x": 1}
    assert only(traces, "empty self")[1].inputs == {"x": 2}
    assert only(traces, "traced length")[1].outputs == 3


def test_what_protobuf_cannot_hold(traces):
    assert only(traces, "big")[1].inputs == {"n": 2**64, "m": -(2**70)}
    assert "nested more than 900 levels deep" in json.dumps(only(traces, "nested")[1].inputs)
    assert only(traces, "good")[1].inputs == 1


def test_lone_surrogates_in_a_root(traces):
    trace, span = only(traces, "surrogate")
    assert span.inputs == {"text": "a?b", "k?": 1}
    assert span.outputs == "?"
    assert trace.info.tags["mlflow.traceName"] == "surrogate"
    assert trace.info.tags["fruit"] == "apple"
    assert trace.info.trace_metadata["mlflow.trace.session"] == "s-1"
    assert "mlflow.trace.sizeStats" in trace.info.trace_metadata
    assert json.loads(trace.info.request_preview)["text"] in ("a?b", "a\ud800b")


def test_more_than_128_attributes_and_events(traces):
    _, span = only(traces, "many")
    assert span.trace_id == span.get_attribute("mlflow.traceRequestId")
    assert span.span_type == "UNKNOWN"
    assert [span.get_attribute(f"key {i}") for i in range(300)] == [{"n": i} for i in range(300)]
    assert [event.name for event in span.events] == [f"event {i}" for i in range(300)]
    assert [event.attributes["n"] for event in span.events] == list(range(300))
    _, span = only(traces, "stream")
    assert [event.attributes["mlflow.chunk.value"] for event in span.events] == [
        str(i) for i in range(300)
    ]
