"""Values that break MLflow's caller: here the program goes on, and what can be kept arrives."""

from __future__ import annotations

from support.traces import traces_of, wait_until

PROGRAM = """
import os
import mlflow_fasttrace as mlflow

mlflow.set_tracking_uri({uri!r})
os.environ["MLFLOW_EXPERIMENT_NAME"] = "bad input"

class Raises:
    def __str__(self):
        raise RuntimeError("no text")
    __repr__ = __str__

cycle = []
cycle.append(cycle)
deep = []
for _ in range(10_000):
    deep = [deep]
deep_dict = {{}}
for _ in range(200):
    deep_dict = {{"d": deep_dict}}

@mlflow.trace
def takes(name, value):
    return value

for name, value in (
    ("raises", Raises()),
    ("cycle", cycle),
    ("deep", deep),
    ("deep dict", deep_dict),
    ("big", 10**40),
    ("surrogate", "a\\ud800b"),
    ("nul", "a\\x00b"),
    ("good", "good"),
):
    assert takes(name, value) is value
print("undisturbed")
"""


def test_what_breaks_mlflow_arrives(server, own_spool, agent):
    process = agent(PROGRAM.format(uri=server.uri))
    assert process.returncode == 0, process.err
    assert process.out == "undisturbed\n"
    lines = [line for line in process.err.splitlines() if "could not be recorded" in line]
    assert len(lines) == 1, process.err

    def all_there():
        found = traces_of(server.uri, "bad input")
        return found if len(found) == 8 else None

    traces = wait_until(all_there, 60, "all eight traces")
    spans = [trace.data.spans[0] for trace in traces]
    by_name = {
        span.inputs["name"] if isinstance(span.inputs, dict) else "cycle": span for span in spans
    }
    assert all(span.status.status_code.value == "OK" for span in spans)
    assert by_name["raises"].outputs == "<unprintable Raises object>"
    assert by_name["raises"].inputs == {"name": "raises", "value": "<unprintable Raises object>"}
    assert by_name["cycle"].inputs == "{'name': 'cycle', 'value': [[...]]}"
    assert by_name["cycle"].outputs == "[[...]]"
    assert "nested more than 900 levels deep" in str(by_name["deep"].outputs)
    assert by_name["deep dict"].outputs["d"]["d"]["d"]
    assert str(by_name["big"].outputs) == str(10**40)
    assert by_name["surrogate"].outputs == "a?b"
    assert by_name["nul"].outputs == "a\x00b"
    assert by_name["good"].outputs == "good"
