"""Trace ids: servers list traces by milliseconds, the newest first, and those of one by their ids."""

from __future__ import annotations

import itertools

import mlflow_fasttrace as mlflow
from support.traces import client, experiment_id, traces_of
from support.waiting import wait_until


def begun() -> tuple[int, str]:
    """The millisecond in which a trace begins, and its id."""
    with mlflow.start_span("work") as span:
        pass
    return span.start_time_ns // 10**6, span.trace_id


def test_of_traces_of_one_millisecond_the_later_one_has_the_lower_id(recorded):
    traces = [begun()]
    pairs: list[tuple[str, str]] = []
    while len(pairs) < 200:
        traces.append(begun())
        pairs = [(a[1], b[1]) for a, b in itertools.pairwise(traces) if a[0] == b[0]]
    # A clock that ticks once in some milliseconds says when ids begin anew.
    assert sum(later >= earlier for earlier, later in pairs) <= len(pairs) // 100
    assert len({trace_id for _, trace_id in traces}) == len(traces)


def test_traces_are_listed_in_their_order(server, own_spool, run_program):
    program = run_program(
        """
import mlflow_fasttrace as mlflow
mlflow.set_experiment("in order")
for number in range(40):
    with mlflow.start_span(f"work {number}"):
        pass
""",
        MLFLOW_TRACKING_URI=server.uri,
    )
    assert program.returncode == 0, program.err
    wait_until(lambda: len(traces_of(server.uri, "in order")) == 40, what="the traces")
    listed = client(server.uri).search_traces(locations=[experiment_id(server.uri, "in order")])
    names = [trace.data.spans[0].name for trace in listed]
    assert names == [f"work {number}" for number in reversed(range(40))]
