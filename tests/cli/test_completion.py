"""Completion in the shell: what switches it on, and what it offers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.terminals import COMMAND
from support.texts import program_text

COMMAND_NAME = "mlflow-fasttrace"


def offered(*words: str, **environment: str) -> list[str]:
    """What is offered for the last word, by click's protocol for fish."""
    variables = {
        "_MLFLOW_FASTTRACE_COMPLETE": "fish_complete",
        "COMP_WORDS": " ".join([COMMAND_NAME, *words]),
        "COMP_CWORD": words[-1],
    }
    result = subprocess.run(
        COMMAND,
        capture_output=True,
        text=True,
        env={**os.environ, **variables, **environment},
    )
    assert result.stderr == ""
    lines = filter(None, result.stdout.splitlines())
    return [line.partition(",")[2].partition("\t")[0] for line in lines]


@pytest.fixture
def ids(own_spool, run_program):
    """The ids of traces that wait."""
    process = run_program(
        program_text("http://127.0.0.1:9", "completed", 3), MLFLOW_FASTTRACE_SENDER="none"
    )
    assert process.returncode == 0, process.err
    result = subprocess.run([*COMMAND, "traces", "--json"], capture_output=True, text=True)
    return [trace["trace_id"] for trace in json.loads(result.stdout)]


def test_it_offers_commands_options_traces_and_spools(ids, own_spool):
    assert offered("s") == ["send", "show", "status"]
    assert "--follow" in offered("traces", "--")
    assert offered("traces", "--status", "e") == ["error"]
    assert set(offered("show", "tr-")) == set(ids)
    assert offered("show", ids[1][:20]) == [ids[1]]
    (spool,) = (path.name for path in own_spool.glob("*-*") if path.is_dir())
    assert offered("send", spool[:3]) == [spool]
    assert offered("traces", "--name", "r") == ["root"]
    assert offered("traces", "--experiment", "") == ["completed"]


def test_it_offers_nothing_where_nothing_can_be_read(own_spool, tmp_path):
    assert offered("show", "tr-") == ["tr-"], "a file, perhaps"
    (tmp_path / "file").write_text("")
    assert offered("traces", "--name", "r", MLFLOW_FASTTRACE_SPOOL_DIR=str(tmp_path / "file")) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_that_switches_it_on_is_the_shells_own(shell):
    result = subprocess.run([*COMMAND, "completion", shell], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"{shell}_complete" in result.stdout
    if (found := shutil.which(shell)) is not None:
        checked = subprocess.run([found, "-n"], input=result.stdout, capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_bash_completes(ids):
    folder = Path(COMMAND[0]).parent
    script = f"""
eval "$({COMMAND_NAME} completion bash)"
complete -p {COMMAND_NAME} >/dev/null || exit 9
COMP_WORDS=({COMMAND_NAME} show {ids[0][:12]}) COMP_CWORD=2
_mlflow_fasttrace_completion {COMMAND_NAME}
echo "${{COMPREPLY[@]}}"
"""
    result = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [ids[0]]
