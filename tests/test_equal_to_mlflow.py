"""The same program under MLflow and under the core; MLflow's client reads both back, equal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import callable_programs
import programs
import pytest
from support import described, traces_of

TABLES = (programs, callable_programs)
PROGRAMS = [name for table in TABLES for name in table.PROGRAMS]


def run_all(module: str, uri: str, prefix: str) -> None:
    for table in TABLES:
        result = subprocess.run(
            [sys.executable, str(Path(table.__file__)), module, uri, prefix],
            capture_output=True,
            text=True,
            timeout=170,
            env=dict(os.environ),
        )
        assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def both(server):
    run_all("mlflow", server.uri, "pure")
    run_all("mlflow_fasttrace", server.uri, "core")
    return server


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_traces(both, name):
    pure = [described(trace) for trace in traces_of(both.uri, f"pure-{name}")]
    core = [described(trace) for trace in traces_of(both.uri, f"core-{name}")]
    assert pure, "MLflow itself recorded nothing"
    assert core == pure


#: Stack traces hold MLflow's own frames, so these sizes differ.
WITH_STACK_TRACES = {
    "arguments",
    "async_generators",
    "coroutines",
    "exceptions",
    "generators",
    "groups_of_tasks",
    "statuses",
}


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - WITH_STACK_TRACES))
def test_same_size_figures(both, name):
    def sizes(prefix):
        return [
            json.loads(trace.info.trace_metadata["mlflow.trace.sizeStats"])
            for trace in traces_of(both.uri, f"{prefix}-{name}")
        ]

    pure, core = sizes("pure"), sizes("core")
    assert pure
    assert len(core) == len(pure)
    for one, other in zip(core, pure, strict=True):
        # The total holds the duration and the request's time, whose digits vary, and MLflow's
        # count of a trace's ids is exact.
        assert abs(one.pop("total_size_bytes") - other.pop("total_size_bytes")) <= 12
        assert one == other
