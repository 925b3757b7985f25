"""``show``: all that is known of a trace, where it lies here and where a server has it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from support.fault_proxy import FaultProxy
from support.terminals import COMMAND, Terminal
from support.traces import experiment_id, traces_of
from support.waiting import wait_until

PROGRAM = """
import base64, sys
import mlflow_fasttrace as mlflow

mlflow.set_tracking_uri({uri!r})
image = "data:image/png;base64," + base64.b64encode(bytes(3000)).decode()

@mlflow.trace(span_type="TOOL")
def fails(image):
    span = mlflow.get_current_active_span()
    span.set_attribute("speed", {{"unit": "m/s", "value": 7}})
    span.add_event(mlflow.entities.SpanEvent("looked", attributes={{"depth": 3}}))
    span.set_attribute("mlflow.chat.tokenUsage", {{"input_tokens": 8, "output_tokens": 2, "total_tokens": 10}})
    span.set_attribute("mlflow.llm.cost", {{"input_cost": 0.5, "output_cost": 1, "total_cost": 1.5}})
    raise LookupError("nothing [red] there")

@mlflow.trace(span_type="AGENT")
def root(question):
    mlflow.update_current_trace(
        tags={{"team": "blue"}},
        metadata={{"mlflow.trace.session": "session 1", "mlflow.trace.user": "anna", "build": "77"}},
    )
    with mlflow.start_span("fine") as span:
        span.set_outputs("text " * 200)
    fails(image)

try:
    root("why?")
except LookupError:
    pass
"""


def run(*arguments: str, code: int = 0, **environment: str) -> str:
    result = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert result.returncode == code, result.stdout + result.stderr
    assert result.stderr == "" or code
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
def waits(own_spool, run_program):
    """A trace that waits here."""
    process = run_program(
        PROGRAM.format(uri="http://127.0.0.1:9"),
        MLFLOW_FASTTRACE_SENDER="none",
        MLFLOW_EXPERIMENT_NAME="shown",
    )
    assert process.returncode == 0, process.err


def assert_has_everything(text: str, program: Path) -> None:
    head, error, *_ = text.splitlines()
    assert "  root  " in head
    assert "  ERROR  3 spans  10 tokens, $1.50  tr-" in head
    assert error == "error in fails", "the stack trace is first, of the span that it began in"
    assert text.count("Traceback (most recent call last)") == 1
    assert f'File "{program}", line' in text
    labels = {
        line.split()[0]: line.split(maxsplit=1)[1] for line in text.splitlines() if " " in line
    }
    assert labels["session"] == "session 1"
    assert labels["user"] == "anna"
    assert labels["tokens"] == "input 8, output 2, total 10"
    assert labels["cost"].endswith("total $1.50")
    for part in (
        "  tag         team = blue\n",
        "  metadata    build = 77\n",
        'inputs {"question": "why?"}\n',
        "outputs " + '"' + "text " * 200 + '"\n',
        'speed {"unit": "m/s", "value": 7}\n',
        "event looked +",
        "event exception +",
        "exception.message nothing [red] there\n",
        "LookupError: nothing [red] there",
        "image/png",
    ):
        assert part in text, part
    assert "attachment " in text


def test_a_trace_that_waits_is_shown_with_everything(waits, tmp_path):
    text = run("show", "--last")
    assert_has_everything(text, tmp_path / "program0.py")
    assert "3.0 KB" in text, "the size of the attachment"
    assert "  experiment  shown\n" in text
    (trace,) = json.loads(run("show", "--last", "--json"))
    assert trace["tags"]["team"] == "blue"
    assert trace["metadata"]["build"] == "77"
    assert trace["tokens"]["total_tokens"] == 10
    assert trace["cost"]["total_cost"] == 1.5
    assert list(trace["attachments"].values()) == [3000]
    assert run("show", trace["trace_id"]) == text


@pytest.mark.parametrize("columns", [20, 60, 120])
def test_a_terminal_shows_all_of_it(waits, columns):
    with Terminal("show", "--last", columns=columns) as terminal:
        assert terminal.ends() == 0
        text = "".join("".join(terminal.rows).split())
        cut = terminal.text
    for part in ("Traceback", "raiseLookupError", "session1", "team=blue", "build=77", "image/png"):
        assert part in text.replace("│", ""), part
    assert re.search("text te?x?t?…", cut) or columns == 20, "long values are cut"
    with Terminal("show", "--last", "--full", columns=columns) as terminal:
        assert terminal.ends() == 0
        assert terminal.text.count("text") >= 200
        assert "…" not in terminal.text


@pytest.mark.long
def test_a_delivered_trace_is_read_from_its_server(
    server, own_spool, run_program, experiment, tmp_path
):
    process = run_program(PROGRAM.format(uri=server.uri), MLFLOW_EXPERIMENT_NAME=experiment)
    assert process.returncode == 0, process.err
    (trace,) = traces_of(server.uri, experiment)
    trace_id = trace.info.trace_id
    wait_until(lambda: trace_id in run("traces"), 30, "the sender's word")
    text = run("show", "--last")
    assert_has_everything(text, tmp_path / "program0.py")
    place = f"#/experiments/{experiment_id(server.uri, experiment)}/traces"
    assert f"{server.uri}/{place}?selectedEvaluationId={trace_id}" in text
    assert text == run("show", trace_id[:12])
    (found,) = json.loads(run("show", trace_id, "--json"))
    assert {span["name"] for span in found["spans"]} == {"root", "fine", "fails"}
    assert found["metadata"]["mlflow.trace.session"] == "session 1"
    # Filters that need what only the server knows ask it.
    assert trace_id in run("traces", "--tag", "team=blue", "--experiment", experiment)
    assert trace_id not in run("traces", "--tag", "team=red")
    # A whole id is asked of the servers that are known, also when this sender never saw it.
    (status,) = own_spool.glob("*/status.json")
    status.unlink()
    assert trace_id in run("show", trace_id, MLFLOW_TRACKING_URI=server.uri)


@pytest.mark.long
def test_a_server_that_does_not_give_a_trace_is_named(server, own_spool, run_program, experiment):
    with FaultProxy(server.uri, lambda request: None) as proxy:
        process = run_program(PROGRAM.format(uri=proxy.uri), MLFLOW_EXPERIMENT_NAME=experiment)
        assert process.returncode == 0, process.err
        (trace,) = wait_until(lambda: traces_of(server.uri, experiment), 60, process.err)
        trace_id = trace.info.trace_id
        wait_until(lambda: trace_id in run("traces"), 30, "the sender's word")
    said = run("show", trace_id, code=1)
    assert said.startswith(f"Error: {trace_id} (root) has been delivered to {proxy.uri}, but ")
    assert said.count("\n") == 1
    result = subprocess.run(
        [*COMMAND, "traces", "--tag", "team=blue"], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (0, "No such traces are known here.\n")
    assert "traces that were delivered are left out" in result.stderr


def test_what_cannot_be_shown_is_said(own_spool):
    assert "no traces are known here" in run("show", "--last", code=1)
    assert "Give a trace" in run("show", code=2)
    assert "Give a trace" in run("show", "tr-1", "--last", code=2)
