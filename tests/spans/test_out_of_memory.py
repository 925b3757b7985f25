"""Where an allocation fails, whichever it is, a call does what it does without tracing or raises
MemoryError; nothing stays current, nothing is damaged, and what is recorded later is recorded as ever.

The calls are the cases of tests/programs/public_calls.py, each in a process of its own, which a fault
may end, on every Python that is installed here; those which need MLflow, and those of MLflow's own functions
on the core, on the tests' own. What fails are
the core's own allocations (``core``), then the interpreter's (``python``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from programs.public_calls import CASES, ELSEWHERE, INSTALLED_CASES, public_names
from support.lengths import every, long_but
from support.processes import module_path, run_module, run_to_its_end
from support.pythons import VERSIONS, modules_without_mlflow, python_without_mlflow


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """support/fail_malloc.c, built."""
    library = tmp_path_factory.mktemp("library") / "fail_malloc.so"
    source = Path(__file__).parents[1] / "support/fail_malloc.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    return library


@pytest.fixture(scope="session")
def without_mlflow(tmp_path_factory) -> str:
    return modules_without_mlflow(tmp_path_factory.mktemp("site"))


def faults(case: str, python: str, path: str, library: Path, **environment: str) -> list[str]:
    """What goes wrong in a case on a Python whose PYTHONPATH is ``path``."""
    with tempfile.NamedTemporaryFile("r") as progress:
        result = run_to_its_end(
            [python, "-X", "faulthandler", "-m", "programs.out_of_memory", case, progress.name],
            150,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "LD_PRELOAD": str(library),
                "MLFLOW_FASTTRACE_SENDER": "none",
                "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
                **environment,
            },
        )
        at = progress.read()
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    found = [f"{line['allocator']}: {line['fault']}" for line in lines if "fault" in line]
    if result.returncode != 0:
        found.append(f"exit code {result.returncode} at {at}: {result.stderr[-3000:]}")
    elif not any("allocations" in line for line in lines):
        found.append("nothing was tried")
    return found


#: Of so many cases, `make test` tries one.
_STEP = 4


@pytest.mark.parametrize("version", long_but(VERSIONS[:1], VERSIONS))
@pytest.mark.parametrize(
    "case", every(_STEP, [name for name, case in CASES.items() if not case.needs_mlflow])
)
def test_a_failed_allocation_costs_no_more_than_the_call(library, without_mlflow, case, version):
    assert faults(case, python_without_mlflow(version), without_mlflow, library) == []


@pytest.mark.parametrize(
    "case", every(_STEP, [name for name, case in CASES.items() if case.needs_mlflow])
)
def test_a_failed_allocation_costs_no_more_than_the_call_into_mlflow(library, case):
    assert faults(case, sys.executable, module_path(), library) == []


@pytest.mark.parametrize("case", every(_STEP, INSTALLED_CASES))
def test_a_failed_allocation_costs_no_more_than_the_call_of_mlflow_on_the_core(library, case):
    assert faults(case, sys.executable, module_path(), library, PUBLIC_CALLS_OF="mlflow") == []


#: trace_disabled() of MLflow's own counts its calls, and counts wrong after one that had no memory.
MLFLOWS = [name for name, case in CASES.items() if not case.own and name != "trace_disabled"]


@pytest.mark.long
@pytest.mark.parametrize("case", MLFLOWS)
def test_a_failed_allocation_costs_no_more_than_any_call_of_mlflow_on_the_core(library, case):
    assert faults(case, sys.executable, module_path(), library, PUBLIC_CALLS_OF="mlflow") == []


def test_every_public_name_has_a_case():
    with_case = {name for case in CASES.values() for name in case.of}
    names = public_names()
    assert names - with_case - ELSEWHERE.keys() == set(), "these have no case"
    assert (with_case | ELSEWHERE.keys()) - names == set(), "these are no names"
    assert with_case & ELSEWHERE.keys() == set()


def test_a_case_calls_what_it_is_a_case_of():
    result = run_module("programs.public_calls", MLFLOW_FASTTRACE_SENDER="none")
    assert result.stdout == ""
