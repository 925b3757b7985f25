"""The same program under MLflow and under the core; MLflow's client reads both back, equal."""

from __future__ import annotations

import json

import pytest
from programs.run import PROGRAMS
from support.processes import run_programs
from support.spools import clean_up
from support.traces import described, traces_of


@pytest.fixture(scope="module")
def both(server):
    run_programs("mlflow", server.uri, "pure")
    run_programs("mlflow_fasttrace", server.uri, "core")
    run_programs("mlflow:installed", server.uri, "installed")
    return server


@pytest.fixture(scope="module")
def slow(both, tmp_path_factory):
    """The programs on the core once more, each of whose traces goes in several deliveries."""
    spool = tmp_path_factory.mktemp("spool")
    run_programs(
        "mlflow_fasttrace",
        both.uri,
        "slow",
        PAUSE_AT_SPANS_END="0.05",
        MLFLOW_FASTTRACE_OPEN_TRACE_SECONDS="0.02",
        MLFLOW_FASTTRACE_SPOOL_DIR=str(spool),
    )
    clean_up(spool)
    return both


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_slow_programs_traces_are_mlflows(slow, name):
    pure = [described(trace) for trace in traces_of(slow.uri, f"pure-{name}")]
    assert [described(trace) for trace in traces_of(slow.uri, f"slow-{name}")] == pure


@pytest.mark.parametrize("way", ["core", "installed"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_programs_traces_are_mlflows(both, name, way):
    pure = [described(trace) for trace in traces_of(both.uri, f"pure-{name}")]
    core = [described(trace) for trace in traces_of(both.uri, f"{way}-{name}")]
    assert pure, "MLflow itself recorded nothing"
    assert core == pure


def test_traces_sent_to_another_experiment_are_mlflows(both):
    pure = [described(trace) for trace in traces_of(both.uri, "pure-elsewhere")]
    core = [described(trace) for trace in traces_of(both.uri, "core-elsewhere")]
    assert len(pure) == 6
    assert core == pure
    assert [described(trace) for trace in traces_of(both.uri, "installed-elsewhere")] == pure


#: Stack traces hold MLflow's own frames, ids of experiments grow in length, and attributes of
#: OpenTelemetry are JSON texts here: sizes differ.
OF_OTHER_SIZES = {
    "arguments",
    "async_generators",
    "bridged_spans",
    "destinations",
    "coroutines",
    "exceptions",
    "generators",
    "groups_of_tasks",
    "scopes_left_by_hand",
    "statuses",
}


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - OF_OTHER_SIZES))
def test_size_figures_are_mlflows(both, name):
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
