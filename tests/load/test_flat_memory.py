"""Each public call, and each way of dropping a span, over and over: nothing stays behind. With the package's own
functions, and with MLflow's own on the core.

The calls are the cases of tests/programs/public_calls.py, which has one for every public name
(tests/spans/test_out_of_memory.py sees to that)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from mlflow_fasttrace._internal.seams import apply
from programs.public_calls import CASES, ELSEWHERE, INSTALLED_CASES
from support.processes import module_path
from support.pythons import EACH_VERSION, OWN_VERSION, modules_without_mlflow, python_without_mlflow

#: The C library then says exactly what is allocated: nothing is kept in a thread's cache, or apart.
EXACT = "glibc.malloc.tcache_count=0:glibc.malloc.mmap_threshold=1073741824"


def grown(python: str, rounds: int, path: str, **environment: str) -> dict[str, dict[str, Any]]:
    """What ``programs/flat_memory.py`` finds, by case."""
    result = subprocess.run(
        [python, "-m", "programs.flat_memory", str(rounds)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "GLIBC_TUNABLES": EXACT,
            "MLFLOW_FASTTRACE_SENDER": "none",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            **environment,
        },
    )
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {line.pop("case"): line for line in lines}


def leaks(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those that leave an object behind in one of ten calls, a byte in every one, a file, or much in all."""
    return {
        name: by
        for name, by in found.items()
        if by["objects"] > by["fifth"] / 10 + 25
        or by["bytes"] > by["fifth"]
        or by["all"]["bytes"] > 4 << 20
        or by["all"]["files"] > 0
        or by["all"]["mappings"] > 16
    }


OTHER_VERSIONS = [version for version in EACH_VERSION if version.values != (OWN_VERSION,)]
MLFLOW = {"PUBLIC_CALLS_OF": "mlflow"}


def test_calls_and_dropped_spans_leave_nothing_behind():
    found = grown(sys.executable, 1000, module_path())
    assert leaks(found) == {}
    assert found.keys() == CASES.keys()


@pytest.mark.long
def test_calls_of_mlflow_on_the_core_leave_nothing_behind():
    found = grown(sys.executable, 1000, module_path(), **MLFLOW)
    assert leaks(found) == {}
    assert found.keys() == {name for name, case in CASES.items() if not case.own} | (
        INSTALLED_CASES.keys()
    )


def test_every_function_of_mlflow_that_leads_to_the_core_has_a_case():
    cases = [*CASES.values(), *INSTALLED_CASES.values()]
    known = {path for case in cases if not case.own for path in case.of} | ELSEWHERE.keys()
    last_parts = {path.rpartition(".")[2] for path in known}
    functions = {name for functions in apply.FUNCTIONS.values() for name in functions}
    assert functions - last_parts == {
        "_flush_pending_async_trace_writes",  # a wait for the sender
        # These ask the server.
        "_get_trace_span_ids",
        "TrackingServiceClient.get_experiment_by_name",
        "TracingClient.log_assessment",
        "TracingClient.set_trace_tag",
    }


@pytest.mark.long
def test_a_hundred_thousand_calls_leave_nothing_behind():
    assert leaks(grown(sys.executable, 100_000, module_path())) == {}


@pytest.mark.long
def test_a_hundred_thousand_calls_of_mlflow_on_the_core_leave_nothing_behind():
    assert leaks(grown(sys.executable, 100_000, module_path(), **MLFLOW)) == {}


@pytest.mark.long
@pytest.mark.parametrize("version", OTHER_VERSIONS)
def test_on_every_python_ten_thousand_calls_leave_nothing_behind(version, tmp_path):
    found = grown(python_without_mlflow(version), 10_000, modules_without_mlflow(tmp_path))
    assert leaks(found) == {}
    assert found.keys() == {name for name, case in CASES.items() if not case.needs_mlflow}
