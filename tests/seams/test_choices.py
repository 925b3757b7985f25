"""Span processors, destinations and whether tracing is on hold from MLflow's own code to the core and back: what was
chosen while the one recorded is what the other goes by. A span processor may be what hides a secret."""

from __future__ import annotations

import json

import pytest

PROGRAM = """
import json, os
import {module} as mlflow

def hide(span):
    span.set_inputs("hidden")

def mark(span):
    span.set_inputs("marked")

def recorded(name):
    # What is read back of a span, by whose code it was recorded, and its experiment.
    with mlflow.start_span(name) as span:
        span.set_inputs("secret")
    by = type(span).__module__
    if not span.trace_id.startswith("tr-"):
        found.append([by])
        return span
    mlflow.flush_trace_async_logging()
    trace = mlflow.get_trace(span.trace_id)
    experiment = mlflow.get_experiment(trace.info.experiment_id).name
    found.append([by, trace.data.spans[0].inputs, experiment])
    return span

found = []
there = mlflow.set_experiment("there")
mlflow.set_experiment("here")
from mlflow.entities import MlflowExperimentLocation
"""

INSTALLED = """
mlflow.tracing.configure(span_processors=[hide])
mlflow.tracing.set_destination(MlflowExperimentLocation(there.experiment_id))
mlflow.tracing.disable()
import mlflow_fasttrace
assert mlflow_fasttrace.install()
recorded("off since before")
mlflow.tracing.enable()
recorded("on the core")
mlflow.tracing.configure(span_processors=[mark])
mlflow_fasttrace.uninstall()
recorded("in MLflow again")
assert mlflow_fasttrace.install()
mlflow.tracing.configure(span_processors=[])
mlflow.tracing.disable()
mlflow_fasttrace.uninstall()
recorded("off")
mlflow.tracing.enable()
recorded("without processors")
mlflow.tracing.configure(span_processors=[hide])
mlflow.tracing.set_destination(MlflowExperimentLocation(mlflow.set_experiment("here").experiment_id))
assert mlflow_fasttrace.install()
recorded("what MLflow's functions chose last")
mlflow_fasttrace.tracing.configure(span_processors=[hide, lambda span: span.set_attribute("n", 1)])
mlflow_fasttrace.uninstall()
mlflow.tracing.configure(span_processors=[mark])
mlflow_fasttrace.tracing.configure(span_processors=[lambda span: span.set_attribute("n", 2)])
assert mlflow_fasttrace.install()
recorded("what both chose last")
print(json.dumps(found))
"""


def test_install_and_uninstall_keep_what_was_chosen(run_program, tmp_path):
    program = PROGRAM.format(module="mlflow") + INSTALLED
    result = run_program(program, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db")
    assert result.returncode == 0, result.err
    assert json.loads(result.out.splitlines()[-1]) == [
        ["mlflow_fasttrace.entities"],
        ["mlflow_fasttrace._core", "hidden", "there"],
        ["mlflow.entities.span", "marked", "there"],
        ["mlflow.entities.span"],
        ["mlflow.entities.span", "secret", "there"],
        ["mlflow_fasttrace._core", "hidden", "here"],
        ["mlflow_fasttrace._core", "marked", "here"],
    ]


SWITCHED = """
from mlflow_fasttrace import (
    get_active_trace_id, get_current_active_span, get_last_active_trace_id, update_current_trace,
)
from mlflow_fasttrace.tracing import configure, disable, set_destination

configure(span_processors=[hide])
set_destination(MlflowExperimentLocation(there.experiment_id))
if {off}:
    disable()
os.environ["MLFLOW_USE_DEFAULT_TRACER_PROVIDER"] = "false"
span = recorded("in MLflow")
if not {off}:
    assert get_last_active_trace_id() == span.trace_id
    with mlflow.start_span("held") as span:
        assert get_current_active_span().span_id == span.span_id
        assert get_active_trace_id() == span.trace_id
        update_current_trace(tags={{"by": "a function held from before"}})
    mlflow.flush_trace_async_logging()
    found.append(mlflow.get_trace(span.trace_id).info.tags["by"])
    configure(span_processors=[mark])
    recorded("by a function held from before")
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("off", "expected"),
    [
        (
            False,
            [
                ["mlflow.entities.span", "hidden", "there"],
                "a function held from before",
                ["mlflow.entities.span", "marked", "there"],
            ],
        ),
        (True, [["mlflow.entities.span"]]),
    ],
    ids=["on", "off"],
)
def test_what_was_chosen_holds_where_mlflow_records(run_program, tmp_path, off, expected):
    program = PROGRAM.format(module="mlflow_fasttrace") + SWITCHED.format(off=off)
    result = run_program(program, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db")
    assert result.returncode == 0, result.err
    assert json.loads(result.out.splitlines()[-1]) == expected
    assert result.err.count("Tracing runs on MLflow itself") == 1
