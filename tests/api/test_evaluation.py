"""``mlflow.genai.evaluate`` records under the core what it records under MLflow."""

from __future__ import annotations

import pytest
from programs.run import EVALUATED
from support.processes import run_programs
from support.traces import described, traces_of


def evaluated(server, module: str, prefix: str) -> None:
    run_programs(module, server.uri, prefix, *EVALUATED)


@pytest.fixture(scope="module")
def pure(server):
    evaluated(server, "mlflow", "pure")
    return server


@pytest.fixture(scope="module")
def core(pure):
    evaluated(pure, "mlflow_fasttrace", "core")
    return pure


@pytest.fixture(scope="module")
def installed(pure):
    evaluated(pure, "mlflow:installed", "installed")
    return pure


def assert_equal(server, way: str, name: str) -> None:
    pure, ours = (
        # A dataset has its questions in any order.
        sorted(
            (described(trace) for trace in traces_of(server.uri, f"{prefix}-{name}")),
            key=lambda trace: trace["request_preview"],
        )
        for prefix in ("pure", way)
    )
    assert len(pure) == 3
    assert ours == pure


@pytest.mark.long
@pytest.mark.parametrize("name", EVALUATED)
def test_an_evaluations_traces_are_mlflows(core, name):
    assert_equal(core, "core", name)


@pytest.mark.long
@pytest.mark.parametrize("name", EVALUATED)
def test_an_evaluations_traces_are_mlflows_after_install(installed, name):
    assert_equal(installed, "installed", name)
