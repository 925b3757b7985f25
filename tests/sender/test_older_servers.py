"""Servers that are older than any MLflow that programs may have here."""

from __future__ import annotations

import json
import sys

import pytest
from support.processes import ROOT, module_path, run_to_its_end
from support.servers import MlflowServer, python_of_release
from support.spools import base_environment
from support.traces import described, in_any_order, traces_of

RELEASES = (ROOT / "tests/support/mlflow_servers.txt").read_text().split()

PROGRAM = """
import sys
if sys.argv[1] == "ours":
    import mlflow_fasttrace as mlflow
else:
    import mlflow
mlflow.set_experiment(sys.argv[1])

@mlflow.trace(span_type="LLM")
def asks(question):
    span = mlflow.get_current_active_span()
    span.set_attribute(
        "mlflow.chat.tokenUsage", {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    )
    return "answer to " + question

@mlflow.trace
def fails():
    raise ValueError("on purpose")

for n in range(5):
    with mlflow.start_span("root", span_type="AGENT") as span:
        span.set_inputs({"n": n})
        asks("one")
        asks("two")
        try:
            fails()
        except ValueError:
            pass
        mlflow.update_current_trace(tags={"n": str(n)}, metadata={"kind": "test"})
        span.set_outputs([n, None, 0.5])
mlflow.flush_trace_async_logging()
mlflow.log_feedback(trace_id=span.trace_id, name="liked", value=True)
"""

#: Servers before 3.12 add to a trace's usage what comes with its info to what they find in its spans, and MLflow's
#: client sends both in an order that chance decides.
USAGE = "mlflow.trace.tokenUsage"


@pytest.fixture(scope="module", params=RELEASES)
def older_server(request, tmp_path_factory):
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.python = python_of_release(request.param)
    with server:
        yield server


@pytest.mark.long
def test_an_older_server_has_what_mlflows_client_gives_it(older_server, own_spool, tmp_path):
    found = {}
    for who in ("mlflow", "ours"):
        result = run_to_its_end(
            [sys.executable, "-c", PROGRAM, who],
            120,
            env={
                **base_environment(own_spool),
                "PYTHONPATH": module_path(),
                "MLFLOW_TRACKING_URI": older_server.uri,
            },
            cwd=tmp_path,
        )
        assert result.returncode == 0, result.stderr
        traces = traces_of(older_server.uri, who)
        found[who] = [in_any_order(described(trace)) for trace in traces]
        assert len(traces) == 5
        if who == "ours":
            usages = [json.loads(trace.info.trace_metadata[USAGE]) for trace in traces]
            right = {"input_tokens": 10, "output_tokens": 14, "total_tokens": 24}
            assert usages == [right] * 5
    for trace in (*found["mlflow"], *found["ours"]):
        trace["metadata"].pop(USAGE, None)
    assert found["ours"] == found["mlflow"]
