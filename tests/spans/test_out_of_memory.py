"""Where an allocation fails, whichever it is, a call does what it does without tracing or raises
MemoryError; nothing stays current, nothing is damaged, and what is recorded later is recorded as ever.

The calls are the cases of tests/programs/out_of_memory.py, each in a process of its own, which a fault
may end. What fails are the core's own allocations (``core``), then the interpreter's (``python``)."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from programs.out_of_memory import ALLOCATORS, CASES
from support.processes import TESTS, module_path


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """support/fail_malloc.c, built."""
    library = tmp_path_factory.mktemp("library") / "fail_malloc.so"
    source = TESTS / "support/fail_malloc.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    return library


@functools.cache
def run(case: str, library: Path) -> dict[str, list[str]]:
    """The faults of a case by allocator; an allocator that is missing was not come to."""
    with tempfile.NamedTemporaryFile("r") as progress:
        result = subprocess.run(
            [sys.executable, "-m", "programs.out_of_memory", case, progress.name],
            capture_output=True,
            text=True,
            timeout=150,
            env={
                **os.environ,
                "PYTHONPATH": module_path(),
                "LD_PRELOAD": str(library),
                "MLFLOW_FASTTRACE_SENDER": "none",
            },
        )
        at = progress.read()
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    ended = [line["allocator"] for line in lines if "allocations" in line]
    found: dict[str, list[str]] = {allocator: [] for allocator in ended}
    for line in lines:
        if "fault" in line:
            found.setdefault(line["allocator"], []).append(line["fault"])
    if result.returncode != 0:
        died = f"exit code {result.returncode} at {at}: {result.stderr[-3000:]}"
        found.setdefault(at.partition(" ")[0], []).append(died)
    return found


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("case", CASES)
def test_a_failed_allocation_costs_no_more_than_the_call(library, case, allocator):
    if allocator == "python":
        pytest.importorskip("_testcapi")  # some distributions leave it out
    assert run(case, library).get(allocator) == []
