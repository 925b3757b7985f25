"""What MLflow's documentation of tracing shows: each of its programs returns, prints, raises and records on the core
what it does under MLflow.

tests/programs/documentation has a module a chapter. Programs that need variables of their environment run in processes
of their own; all others one after another, in one process a way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from programs.documentation import blocks, decorators, levels, streams
from programs.documentation.chapters import ENVIRONMENT, TOGETHER
from support import llm_stub
from support.otlp_receiver import Receiver, trees
from support.processes import module_path
from support.traces import client, described, traces_of

RUNNER = "programs.documentation.run"
#: How a program comes by MLflow: by itself first, which the others are compared with.
WAYS = {
    "mlflow": [sys.executable, "-m", RUNNER, "mlflow"],
    "drop-in": [sys.executable, "-m", RUNNER, "mlflow_fasttrace"],
    "run": [str(Path(sys.executable).parent / "mlflow-fasttrace"), "run", "-m", RUNNER, "mlflow"],
}

#: The chapters that `make test` has; the others take longer.
SHORT = {name for chapter in (blocks, decorators, levels, streams) for name in chapter.PROGRAMS}

#: Programs that are not equal: how they come by MLflow, and why.
UNEQUAL: dict[tuple[str, str], str] = {
    **{
        ("a_ratio_that_is_no_number", way): "MLflow records nothing, the core everything"
        for way in ("drop-in", "run")
    },
    ("a_whole_trace_with_attributes_and_what_came_between", "drop-in"): (
        "log_trace with attributes and intermediate_outputs raises TypeError in MLflow"
    ),
}

Result = tuple[dict[str, Any], dict[str, list[Any]]]


def times(trace: Any) -> Any:
    """How a trace's time differs from its root's, in milliseconds, where it is the root's."""
    roots = [span for span in trace.data.spans if span.parent_id is None]
    first = min((span.start_time_ns for span in trace.data.spans), default=0)
    last = max((span.end_time_ns or 0 for span in trace.data.spans), default=0)
    if len(roots) != 1 or (roots[0].start_time_ns, roots[0].end_time_ns) != (first, last):
        return None
    start, end = first // 1_000_000, last // 1_000_000
    # A server that adds up spans rounds both ends, MLflow's client their difference.
    return trace.info.request_time - start, abs(trace.info.execution_duration - (end - start)) <= 1


def in_any_order(traces: list[Any]) -> list[Any]:
    """Traces may begin at the same time."""
    found = [{**described(trace), "times": times(trace)} for trace in traces]
    return sorted(found, key=lambda trace: json.dumps(trace, sort_keys=True, default=str))


def run(way: str, uri: str, stub: str, folder: Path, names: list[str], **more: str) -> list[Result]:
    """Runs programs in a process.

    Returns:
        Of each what it returned, printed and raised, and its traces, by experiment.
    """
    outcomes = folder / f"{way}.json"
    environment = {
        "OPENAI_BASE_URL": f"{stub}/v1",
        "OPENAI_API_KEY": "stub",
        "PYTHONHASHSEED": "0",  # messages of MLflow's list sets
    }
    if way == "mlflow":
        # Otherwise each flush waits for a thread that looks up once a second.
        environment["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"
    prefix = f"documentation-{way}"
    process = subprocess.run(
        [*WAYS[way], uri, prefix, str(outcomes), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": module_path(),
            **environment,
            **{name: value.replace("{prefix}", prefix) for name, value in more.items()},
        },
    )
    assert process.returncode == 0, process.stdout
    results = json.loads(outcomes.read_text())
    experiments = [one.name for one in client(uri).search_experiments(max_results=5000)]
    return [
        (
            results[name],
            {
                one.removeprefix(prefix): in_any_order(traces_of(uri, one))
                for one in experiments
                if one == f"{prefix}-{name}" or one.startswith(f"{prefix}-{name}-")
            },
        )
        for name in names
    ]


@pytest.fixture(scope="module")
def stub():
    with llm_stub.running() as address:
        yield address


@pytest.fixture(scope="module")
def results(server, stub, tmp_path_factory, request) -> dict[str, dict[str, Result]]:
    """By program and way, what became of each that is asked for."""
    asked_for = {
        (item.callspec.params["name"], way)
        for item in request.session.items
        if item.parent is request.node and "results" in item.fixturenames
        for way in ("mlflow", item.callspec.params["way"])
    }
    folder = tmp_path_factory.mktemp("documentation")

    def run_way(way: str) -> dict[str, Result]:
        names = [name for name in TOGETHER if (name, way) in asked_for]
        found = run(way, server.uri, stub, folder, names) if names else []
        return dict(zip(names, found, strict=True))

    with ThreadPoolExecutor(2) as pool:
        of_ways = dict(zip(WAYS, pool.map(run_way, WAYS), strict=True))
    return {
        name: {way: found[name] for way, found in of_ways.items() if name in found}
        for name in of_ways["mlflow"]
    }


def cases(names: Any, always_long: bool = False) -> list[Any]:
    # That both ways are one is shown by a chapter here, and by the programs of test_programs_equal_to_mlflow.py.
    short = {(name, "drop-in") for name in SHORT} | {(name, "run") for name in blocks.PROGRAMS}
    return [
        pytest.param(
            name,
            way,
            marks=[
                *([pytest.mark.long] if always_long or (name, way) not in short else []),
                *(
                    [pytest.mark.xfail(strict=True, reason=UNEQUAL[name, way])]
                    if (name, way) in UNEQUAL
                    else []
                ),
            ],
        )
        for name in names
        for way in list(WAYS)[1:]
    ]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "way"), cases(TOGETHER))
def test_a_program_does_what_it_does_under_mlflow(results, name, way):
    found = results[name]
    (pure, traces), (core, others) = found["mlflow"], found[way]
    assert core == pure
    assert others == traces


@pytest.fixture(scope="module")
def pure_by_itself(server, stub, tmp_path_factory):
    """What became of a program in a process of its own, under MLflow itself; it runs once."""
    known: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in known:
            folder = tmp_path_factory.mktemp("documentation")
            known[name] = run_by_itself("mlflow", server.uri, stub, folder, name)
        return known[name]

    return of


def run_by_itself(way: str, uri: str, stub: str, folder: Path, name: str) -> Any:
    with Receiver() as collector:
        variables = {
            variable: value.replace("{collector}", collector.uri)
            for variable, value in ENVIRONMENT[name].items()
        }
        (result,) = run(way, uri, stub, folder, [name], **variables)
        return [*result, trees(collector.spans())]


@pytest.mark.parametrize(("name", "way"), cases(ENVIRONMENT, always_long=True))
def test_a_program_by_itself_does_what_it_does_under_mlflow(
    server, stub, pure_by_itself, tmp_path, name, way
):
    assert run_by_itself(way, server.uri, stub, tmp_path, name) == pure_by_itself(name)
