"""The same program under MLflow and under the core; MLflow's client reads both back, equal."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from programs.run import PROGRAMS
from support.lengths import every
from support.processes import ONE_REQUEST_AT_A_TIME, run_programs
from support.spools import clean_up
from support.traces import described, traces_of

#: All programs run before the first test, two ways at a time, on a machine that has other tests to run.
pytestmark = pytest.mark.timeout(1800)

#: The experiment that `destinations` sends traces to.
ELSEWHERE = "elsewhere"


@pytest.fixture(scope="module")
def runs(server, tmp_path_factory, request):
    """By way, the run of the programs that are asked for; two at a time."""
    items = [item for item in request.session.items if item.parent is request.node]

    def asked_for(*, slowly: bool) -> list[str]:
        """Programs of tests, or those that run slowly."""
        found = {
            item.callspec.params["name"] if hasattr(item, "callspec") else "destinations"
            for item in items
            if not slowly or "slow" in item.fixturenames
        }
        return [name for name in PROGRAMS if name in found]

    spool = tmp_path_factory.mktemp("spool")
    # Each trace of these goes in several deliveries.
    slow = {
        "PAUSE_AT_SPANS_END": "0.05",
        "MLFLOW_FASTTRACE_OPEN_TRACE_SECONDS": "0.02",
        "MLFLOW_FASTTRACE_SPOOL_DIR": str(spool),
    }
    ways = {
        "slow": ("mlflow_fasttrace", slow),
        "pure": ("mlflow", ONE_REQUEST_AT_A_TIME),
        "core": ("mlflow_fasttrace", {}),
        "installed": ("mlflow:installed", {}),
    }
    with ThreadPoolExecutor(2) as pool:
        yield {
            way: pool.submit(run_programs, module, server.uri, way, *names, **environment)
            for way, (module, environment) in ways.items()
            if (names := asked_for(slowly=way == "slow"))
        }
    clean_up(spool)


@pytest.fixture(scope="module")
def both(server, runs):
    for way in "pure", "core", "installed":
        runs[way].result()
    return server


@pytest.fixture(scope="module")
def slow(server, runs):
    for way in "pure", "slow":
        runs[way].result()
    return server


@pytest.mark.parametrize("name", every(4, PROGRAMS))
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
    pure = [described(trace) for trace in traces_of(both.uri, f"pure-{ELSEWHERE}")]
    core = [described(trace) for trace in traces_of(both.uri, f"core-{ELSEWHERE}")]
    assert len(pure) == 6
    assert core == pure
    assert [described(trace) for trace in traces_of(both.uri, f"installed-{ELSEWHERE}")] == pure


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
