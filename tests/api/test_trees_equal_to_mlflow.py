"""Generated call trees run under MLflow and under the core; a real server then holds the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.processes import module_path
from support.traces import client, described
from support.waiting import wait_until

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def nodes(children):
    return st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["call", "coroutine", "stream", "scope", "by hand"]),
            "name": st.text("abc é", min_size=1, max_size=4),
            "inputs": values,
            "outputs": values,
            "attributes": st.dictionaries(
                st.text("xyz.", min_size=1, max_size=3), values, max_size=2
            ),
            "fails": st.sampled_from([None, None, None, "caught", "through"]),
            "children": children,
        }
    )


trees = st.recursive(
    nodes(st.just([])), lambda inner: nodes(st.lists(inner, max_size=3)), max_leaves=6
)


class Worker:
    """A process that records the trees that it is given."""

    def __init__(self, module: str, uri: str, experiment: str):
        self.uri = uri
        self.process = subprocess.Popen(
            [sys.executable, "-m", "programs.trees", module, uri, experiment],
            env={**os.environ, "PYTHONPATH": module_path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, tree) -> dict:
        self.process.stdin.write(json.dumps(tree) + "\n")
        self.process.stdin.flush()
        trace_id = json.loads(self.process.stdout.readline())
        return described(self._complete(trace_id))

    def _complete(self, trace_id):
        """Waits for the trace: MLflow's flush returns before the last of its requests, now and then."""
        return wait_until(lambda: self._finalized(trace_id), 20)

    def _finalized(self, trace_id):
        try:
            trace = client(self.uri).get_trace(trace_id, display=False)
        except Exception:
            return None
        return trace if "mlflow.trace.sizeStats" in trace.info.trace_metadata else None

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def workers(server):
    pair = [Worker("mlflow", server.uri, "trees"), Worker("mlflow_fasttrace", server.uri, "trees")]
    yield pair
    for worker in pair:
        worker.stop()


def check(workers, tree):
    pure, core = workers
    assert core.run(tree) == pure.run(tree)


CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=15, deadline=None, suppress_health_check=CHECKS)
@given(tree=trees)
def test_generated_trees_are_mlflows(workers, tree):
    check(workers, tree)


@pytest.mark.long
@settings(max_examples=150, deadline=None, suppress_health_check=CHECKS)
@given(tree=trees)
def test_many_generated_trees_are_mlflows(workers, tree):
    check(workers, tree)
