"""Values that break the program under MLflow, or never arrive, do neither here."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
from support.traces import traces_of

PROGRAM = """
import json
import sys
import mlflow_fasttrace as mlflow

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("values that MLflow loses")
facts = {}


class Raises:
    def __str__(self):
        raise RuntimeError("in __str__")

    __repr__ = __str__


class Broken(Exception):
    def __str__(self):
        raise RuntimeError("in __str__")


cycle = []
cycle.append(cycle)
deep = {}
for _ in range(5000):
    deep = {"d": [deep]}
deep_list = []
for _ in range(10_000):
    deep_list = [deep_list]
deep_dict = {}
for _ in range(200):
    deep_dict = {"d": deep_dict}


# a circular and a very deep argument; a value whose __str__ raises
@mlflow.trace(name="passes")
def passes(value):
    ran.append(value)
    return value


facts["passed"] = []
for value in (cycle, deep, Raises(), {"of": Raises(), "and": 1}):
    ran = []
    facts["passed"].append(passes(value) is value and len(ran) == 1 and ran[0] is value)


# such values beside good ones
@mlflow.trace
def takes(name, value):
    return value


facts["taken"] = {
    name: takes(name, value) is value
    for name, value in (
        ("raises", Raises()),
        ("cycle", cycle),
        ("deep", deep_list),
        ("deep dict", deep_dict),
        ("big", 10**40),
        ("surrogate", "a\\ud800b"),
        ("nul", "a\\x00b"),
        ("good", "good"),
    )
}

# an exception whose __str__ raises
error = Broken("mine")
try:
    with mlflow.start_span("broken exception"):
        raise error
except Broken as raised:
    facts["raised"] = raised is error


# objects whose bool() must not be asked for
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


facts["methods"] = [NoBool().method(1), Box().method(2), len(Sized())]

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


facts["stream"] = list(stream())
mlflow.flush_trace_async_logging()
print(json.dumps(facts))
"""


@dataclasses.dataclass
class Run:
    """What the program saw, what it logged, and what arrived: traces of one span, by its name."""

    facts: dict[str, Any]
    log: str
    traces: dict[str, list]

    def spans(self, name: str) -> list:
        return [trace.data.spans[0] for trace in self.traces[name]]

    def only(self, name: str) -> tuple[Any, Any]:
        """The one trace of that name, and its span."""
        (trace,) = self.traces[name]
        return trace, trace.data.spans[0]


@pytest.fixture(scope="module")
def run(server):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, server.uri],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    traces: dict[str, list] = {}
    for trace in traces_of(server.uri, "values that MLflow loses"):
        assert len(trace.data.spans) == 1
        traces.setdefault(trace.data.spans[0].name, []).append(trace)
    return Run(json.loads(result.stdout), result.stderr, traces)


def test_the_program_goes_on_undisturbed(run):
    assert run.facts == {
        "passed": [True] * 4,
        "taken": dict.fromkeys(run.facts["taken"], True),
        "raised": True,
        "methods": [1, 2, 3],
        "stream": list(range(300)),
    }
    assert len(run.facts["taken"]) == 8


def test_one_line_says_that_values_could_not_be_recorded(run):
    lines = [line for line in run.log.splitlines() if "could not be recorded" in line]
    assert len(lines) == 1, run.log


def test_values_that_break_mlflow_arrive_beside_good_ones(run):
    spans = run.spans("takes")
    assert len(spans) == 8
    by_name = {
        span.inputs["name"] if isinstance(span.inputs, dict) else "cycle": span for span in spans
    }
    assert all(span.status.status_code.value == "OK" for span in spans)
    assert by_name["raises"].outputs == "<unprintable Raises object>"
    assert by_name["raises"].inputs == {"name": "raises", "value": "<unprintable Raises object>"}
    assert by_name["cycle"].inputs == "{'name': 'cycle', 'value': [[...]]}"
    assert by_name["cycle"].outputs == "[[...]]"
    assert "nested more than 900 levels deep" in str(by_name["deep"].outputs)
    assert by_name["deep dict"].outputs["d"]["d"]["d"]
    assert str(by_name["big"].outputs) == str(10**40)
    assert by_name["surrogate"].outputs == "a?b"
    assert by_name["nul"].outputs == "a\x00b"
    assert by_name["good"].outputs == "good"


def test_circular_and_deep_arguments_become_texts(run):
    cycle, deep = run.spans("passes")[:2]
    assert cycle.inputs == "{'value': [[...]]}"
    assert cycle.outputs == "[[...]]"
    for value in (deep.inputs["value"], deep.outputs):
        while not isinstance(value, str):
            value = value["d"] if isinstance(value, dict) else value[0]
        assert value.count('{"d": [') > 400, "what protobuf cannot hold is text"
        assert "nested more than 900 levels deep" in value
    assert cycle.status.status_code.value == deep.status.status_code.value == "OK"


def test_a_value_whose_str_raises_has_a_text_in_its_place(run):
    alone, inside = run.spans("passes")[2:]
    assert alone.inputs == {"value": "<unprintable Raises object>"}
    assert alone.outputs == "<unprintable Raises object>"
    assert inside.outputs == {"of": "<unprintable Raises object>", "and": 1}
    assert inside.inputs == {"value": inside.outputs}


def test_an_exception_whose_str_raises_is_recorded(run):
    _, span = run.only("broken exception")
    assert span.status.status_code.value == "ERROR"
    (event,) = span.events
    assert event.attributes["exception.type"] == "Broken"
    assert event.attributes["exception.message"] == "<unprintable Broken object>"


def test_self_is_never_asked_for_its_truth(run):
    assert run.only("no bool")[1].inputs == {"x": 1}
    assert run.only("empty self")[1].inputs == {"x": 2}
    assert run.only("traced length")[1].outputs == 3


def test_values_arrive_that_protobuf_cannot_hold(run):
    assert run.only("big")[1].inputs == {"n": 2**64, "m": -(2**70)}
    assert "nested more than 900 levels deep" in json.dumps(run.only("nested")[1].inputs)
    assert run.only("good")[1].inputs == 1


def test_a_root_with_lone_surrogates_arrives(run):
    trace, span = run.only("surrogate")
    assert span.inputs == {"text": "a?b", "k?": 1}
    assert span.outputs == "?"
    assert trace.info.tags["mlflow.traceName"] == "surrogate"
    assert trace.info.tags["fruit"] == "apple"
    assert trace.info.trace_metadata["mlflow.trace.session"] == "s-1"
    assert "mlflow.trace.sizeStats" in trace.info.trace_metadata
    assert json.loads(trace.info.request_preview)["text"] in ("a?b", "a\ud800b")


def test_more_than_128_attributes_and_events_arrive(run):
    _, span = run.only("many")
    assert span.trace_id == span.get_attribute("mlflow.traceRequestId")
    assert span.span_type == "UNKNOWN"
    assert [span.get_attribute(f"key {i}") for i in range(300)] == [{"n": i} for i in range(300)]
    assert [event.name for event in span.events] == [f"event {i}" for i in range(300)]
    assert [event.attributes["n"] for event in span.events] == list(range(300))
    _, span = run.only("stream")
    assert [event.attributes["mlflow.chunk.value"] for event in span.events] == [
        str(i) for i in range(300)
    ]
