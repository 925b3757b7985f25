"""Keeps what waits under this version for later ones to deliver, in tests/spool/earlier/<version>: a segment that a
sender has packed, and what a server has of it once it is delivered.

    .venv/bin/python tests/support/earlier_spools.py

Called for each release (docs/releasing.md); a folder that is there already stays as it is.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from mlflow_fasttrace._internal.base.version import VERSION

from support.processes import run_to_its_end
from support.servers import MlflowServer
from support.spools import base_environment
from support.traces import described, traces_of
from support.waiting import refusing_port

EARLIER = Path(__file__).parents[1] / "spool/earlier"
EXPERIMENT = "earlier"

PROGRAM = """
import mlflow_fasttrace as mlflow

mlflow.set_experiment("earlier")

@mlflow.trace(span_type="TOOL", attributes={"kind": "a"})
def leaf(text, *, count):
    return {"text": text, "count": count, "big": 10**30, "nothing": None, "share": 0.5}

@mlflow.trace
def fails():
    raise ValueError("on purpose")

with mlflow.start_span("root", span_type="AGENT") as span:
    span.set_inputs({"question": "what?", "deep": [[{"a": [1, 2]}]]})
    leaf("one", count=1)
    try:
        fails()
    except ValueError:
        pass
    mlflow.update_current_trace(tags={"kept": "yes"}, metadata={"also": "this"})
    mlflow.log_feedback(trace_id=span.trace_id, name="liked", value=True)
    span.set_outputs(["answer", "x" * 300])
with mlflow.start_span("second"):
    pass
"""


def deliver(folder: Path, uri: str, environment: dict[str, str]) -> list[Any]:
    """Deliver what waits in a folder, and describe what the server has then."""
    command = [sys.executable, "-m", "mlflow_fasttrace", "send", str(folder), "--to", uri]
    sent = run_to_its_end(command, 120, env=environment)
    assert sent.returncode == 0, sent.stderr + sent.stdout
    has = [described(trace) for trace in traces_of(uri, EXPERIMENT)]
    for trace in has:
        del trace["tags"]["mlflow.artifactLocation"]  # where this server keeps files
    return json.loads(json.dumps(has, default=str))


def main() -> None:
    to = EARLIER / VERSION
    if to.exists():
        sys.exit(f"{to} is there: what {VERSION} left has been kept")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        environment = base_environment(work / "spool")
        environment |= {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{refusing_port()}",
            "MLFLOW_FASTTRACE_SENDER": "none",
            "USER": "user",
        }
        run = [sys.executable, "-c", PROGRAM]
        assert run_to_its_end(run, 60, env=environment, cwd=work).returncode == 0
        send = [sys.executable, "-m", "mlflow_fasttrace", "send", "--timeout", "5"]
        assert run_to_its_end(send, 60, env=environment).returncode == 1  # all of it waits
        segments = list(work.glob("spool/*/packed-*.seg"))
        assert segments, "nothing was packed"
        kept = to / segments[0].parent.name
        kept.mkdir(parents=True)
        for segment in segments:
            shutil.copy(segment, kept)
        (work / "server").mkdir()
        with MlflowServer(work / "server") as server:
            has = deliver(segments[0].parent, server.uri, environment)
        (to / "has.json").write_text(json.dumps(has, indent=1) + "\n")


if __name__ == "__main__":
    main()
