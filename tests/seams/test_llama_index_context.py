"""LlamaIndex carries a trace to where a workflow is resumed: another task, another process. Its real
packages are in .venv-integrations (``make .stamps/integrations``)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.texts import IMPORTS
from support.traces import names_of, traces_of
from support.waiting import wait_until

PYTHON = Path(__file__).parents[2] / ".venv-integrations/bin/python"

PROGRAM = """
import asyncio, contextvars, json, os, subprocess, sys
{imports}
from llama_index_instrumentation import get_dispatcher
from workflows import Workflow, step
from workflows.events import StartEvent, StopEvent

class Doubles(Workflow):
    @step
    async def double(self, event: StartEvent) -> StopEvent:
        with mlflow.start_span("by hand"):
            return StopEvent(result=event.number * 2)

async def resumed(context):
    get_dispatcher().restore_propagation_context(context)
    assert await Doubles().run(number=21) == 42

mlflow.llama_index.autolog()
if len(sys.argv) == 1:
    mlflow.set_experiment({experiment!r})
    async def begins():
        with mlflow.start_span("request") as span:
            context = get_dispatcher().capture_propagation_context()
            # The context travels as a text, as to another process.
            context = json.loads(json.dumps(context))
            await asyncio.create_task(resumed(context), **{nothing})
            subprocess.run([sys.executable, __file__, json.dumps(context)], check=True)
            assert mlflow.get_current_active_span().span_id == span.span_id
        with mlflow.start_span("another request"):
            get_dispatcher().restore_propagation_context({{}})
            get_dispatcher().restore_propagation_context({{"mlflow": {{"traceparent": "nonsense"}}}})
            get_dispatcher().restore_propagation_context({{"mlflow": "nonsense"}})
            with mlflow.start_span("its child"):
                pass
    assert get_dispatcher().capture_propagation_context().get("mlflow") is None
    asyncio.run(begins())
else:
    asyncio.run(resumed(json.loads(sys.argv[1])))
"""

#: asyncio.create_task() takes a context since 3.11.
NOTHING = '({"context": contextvars.Context()} if sys.version_info >= (3, 11) else {})'


@pytest.mark.long
@pytest.mark.parametrize("how", IMPORTS)
def test_a_resumed_workflow_joins_the_trace(server, own_spool, tmp_path, monkeypatch, how):
    experiment = f"resumed {how}"
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(imports=IMPORTS[how], experiment=experiment, nothing=NOTHING))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    result = subprocess.run([PYTHON, script], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr

    def trees() -> list[list[tuple[str, str]]] | None:
        found = sorted(map(names_of, traces_of(server.uri, experiment)), key=len)
        return found if sum(map(len, found)) >= 9 else None

    another, request = wait_until(trees, 60, "the traces")
    assert another == [("", "another request"), ("another request", "its child")]
    resumed = [
        ("Doubles.double", "by hand"),
        ("Doubles.run", "Doubles.double"),
        ("request", "Doubles.run"),
    ]
    assert request == sorted([("", "request"), *resumed, *resumed])
