"""The same program under MLflow and under the core, in two experiments of a server: MLflow's UI says the same of both."""

from __future__ import annotations

import json
from difflib import unified_diff

import pytest
from programs import api, basic, pages
from support.example import run_example
from support.mlflow_ui import comparable
from support.processes import ONE_REQUEST_AT_A_TIME, run_programs
from support.traces import experiment_id, traces_of

pytestmark = pytest.mark.long

NAMES = [*pages.PROGRAMS, *basic.PROGRAMS, *api.PROGRAMS]


@pytest.fixture(scope="module")
def both(ui, tmp_path_factory):
    for module, prefix in (("mlflow", "seen-pure"), ("mlflow_fasttrace", "seen-core")):
        run_programs(module, ui.uri, prefix, *NAMES, **ONE_REQUEST_AT_A_TIME)
        folder = tmp_path_factory.mktemp("example") / "copy"
        run_example(module, ui.uri, f"{prefix}-example", folder, **ONE_REQUEST_AT_A_TIME)
    return ui


def traces_seen(ui, experiment):
    """What the list says of the traces of an experiment, and each of them when it is open, oldest first."""
    traces, place = traces_of(ui.uri, experiment), experiment_id(ui.uri, experiment)
    rows = ui.traces(place, traces).rows()
    return [
        {
            "row": comparable(trace.info.trace_id, rows[trace.info.trace_id]),
            **ui.trace(place, trace).says(),
        }
        for trace in traces
    ]


def lines_of(seen):
    return json.dumps(seen, indent=1, ensure_ascii=False).split("\n")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [*NAMES, "example"])
def test_the_ui_says_of_a_programs_traces_what_it_says_of_mlflows(both, name):
    pure = traces_seen(both, f"seen-pure-{name}")
    core = traces_seen(both, f"seen-core-{name}")
    assert pure, "MLflow itself recorded nothing"
    differences = list(unified_diff(lines_of(pure), lines_of(core), "MLflow", "core", n=2))
    assert not differences, "\n".join(differences)
    assert both.complaints() == []
