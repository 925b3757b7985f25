"""Every value of the table, set in every way, reads back and arrives as MLflow's own.

Where MLflow breaks the program or loses the value, the table says what the core keeps, and MLflow's
failure is asserted too: once a release of MLflow no longer fails, the table must say so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import mlflow_fasttrace
import pytest
from mlflow.tracing.export.mlflow_v3 import MlflowV3SpanExporter
from mlflow_fasttrace._internal.recording import destination
from support.records import spans_to_ring
from support.traces import traces_of
from value_cases import CASES, EndlessItems, grows_without_end, same_text

SCRIPT = Path(__file__).parent / "value_cases.py"


@pytest.fixture(scope="module", autouse=True)
def pure(server):
    """MLflow's own tracing in this process, which sends nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.uri)
        patch.setattr(MlflowV3SpanExporter, "export", lambda self, spans: None)
        mlflow.tracing.reset()
        yield
    mlflow.tracing.reset()


@pytest.fixture(autouse=True)
def ring(tmp_path):
    """The core's spans go to a ring that nobody reads."""
    spans_to_ring(tmp_path)
    yield
    destination.reset()


# ---- the ways in which a program gives a value to a span; each returns what reads back ----


def attribute(module, value):
    with module.start_span("attribute") as span:
        span.set_attribute("value", value)
        return span.get_attribute("value")


def inputs(module, value):
    with module.start_span("inputs") as span:
        span.set_inputs(value)
        return span.inputs


def outputs(module, value):
    with module.start_span("outputs") as span:
        span.set_outputs(value)
        return span.outputs


def argument(module, value):
    recorded = []

    @module.trace
    def takes(value):
        recorded.append(module.get_current_active_span().inputs)

    takes(value)
    return recorded[0]


def returned(module, value):
    spans = []

    @module.trace
    def gives():
        spans.append(module.get_current_active_span())
        return value

    assert gives() is value
    return spans[0].outputs


WAYS = [inputs, outputs, argument, returned]


@pytest.mark.parametrize("name", CASES)
def test_an_attribute_reads_back_as_mlflows(name):
    case = CASES[name]
    ours = same_text(attribute(mlflow_fasttrace, case.make()))
    if case.breaks:
        with pytest.raises(BaseException):  # noqa: B017  (each has its own)
            attribute(mlflow, case.make())
        assert ours == same_text(case.kept)
    elif case.same_json:
        assert ours == same_text(attribute(mlflow, case.make()))
    else:
        assert ours == same_text(case.kept)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.copied])
def test_inputs_and_outputs_read_back_as_mlflows(name, way):
    case = CASES[name]
    ours = same_text(way(mlflow_fasttrace, case.make()))

    def wrapped(value):
        return {"value": value} if way is argument else value

    if case.breaks_inputs:
        with pytest.raises(BaseException):  # noqa: B017
            way(mlflow, case.make())
    if case.breaks:
        if not name.startswith("10,000"):  # one level more around it, one less inside
            assert ours == same_text(wrapped(case.kept))
    elif case.breaks_inputs:
        assert ours == same_text(attribute(mlflow, wrapped(case.make())))
    else:
        assert ours == same_text(way(mlflow, case.make()))


@pytest.mark.parametrize("way", [attribute, *WAYS], ids=lambda way: way.__name__)
@pytest.mark.parametrize("endless", [grows_without_end, EndlessItems])
def test_a_list_without_an_end_comes_to_one(endless, way):
    value = endless()
    kept = way(mlflow_fasttrace, value)
    kept = kept["value"] if way is argument else kept
    assert 10_000 <= len(kept) <= 10_001


@pytest.mark.parametrize("module", [mlflow, mlflow_fasttrace], ids=lambda module: module.__name__)
def test_what_is_changed_later_is_not_seen(module):
    inner = {"list": [1]}
    value = {"inner": inner, "set": {1}, "array": bytearray(b"a")}

    @module.trace
    def changes(value):
        span = module.get_current_active_span()
        span.set_attribute("value", value)
        inner["list"].append(2)
        inner["more"] = 3
        value["set"].add(2)
        value["array"].append(0)
        return span, value

    span, _ = changes(value)
    before = {"inner": {"list": [1]}, "set": "{1}", "array": "bytearray(b'a')"}
    assert span.get_attribute("value") == before
    assert span.inputs == {"value": before}
    inner["list"].clear()
    assert span.outputs[1]["inner"] == {"list": [1, 2], "more": 3}


# ---- delivered ----


@pytest.fixture(scope="module")
def delivered(server):
    """{module: {case: trace}}, from the server."""
    found = {}
    for module in ("mlflow", "mlflow_fasttrace"):
        experiment = f"values of {module}"
        result = subprocess.run(
            [sys.executable, str(SCRIPT), module, server.uri, experiment],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},  # sets stand in the same order
        )
        assert result.returncode == 0, result.stderr
        traces = traces_of(server.uri, experiment)
        found[module] = {trace.data.spans[0].name: trace for trace in traces}
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_value_arrives_as_mlflows(delivered, name):
    case = CASES[name]
    ours = delivered["mlflow_fasttrace"][name]
    if case.breaks or case.has_arrival or not case.same_json:
        kept = ours.data.spans[0].get_attribute("value")
        assert same_text(kept) == same_text(case.delivered)
    else:
        theirs = delivered["mlflow"][name]
        for key in ("value", "mlflow.spanInputs", "mlflow.spanOutputs"):
            assert same_text(ours.data.spans[0].get_attribute(key)) == same_text(
                theirs.data.spans[0].get_attribute(key)
            ), key
        if "surrogate" not in name:  # MLflow's client cannot send the info of such a trace
            assert same_text(ours.info.request_preview) == same_text(theirs.info.request_preview)
            assert same_text(ours.info.response_preview) == same_text(theirs.info.response_preview)
    assert ours.info.tags["mlflow.traceName"] == name
    assert "mlflow.trace.sizeStats" in ours.info.trace_metadata
