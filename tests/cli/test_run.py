"""`mlflow-fasttrace run` and `doctor`, the commands as users run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.traces import traces_of

COMMAND = Path(sys.executable).parent / "mlflow-fasttrace"

PROGRAM = """
import multiprocessing, subprocess, sys
import mlflow

def child(name):
    with mlflow.start_span(name) as span:
        span.set_outputs(type(span).__module__)

if __name__ == "__main__":
    print([folder for folder in sys.path if "bootstrap" in folder])
    child("program " + " ".join(sys.argv[1:]))
    subprocess.run(
        [sys.executable, "-c", "import program; program.child('subprocess')"], check=True
    )
    worker = multiprocessing.get_context("spawn").Process(target=child, args=("spawned",))
    worker.start()
    worker.join()
    sys.exit(7)
"""


def run(*arguments, folder, **environment):
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
    )


@pytest.fixture
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "sitecustomize.py").write_text("import sys; sys.other = 1")
    return tmp_path


def test_a_program_and_its_children_run_on_the_core(program, server):
    result = run(
        "run",
        "--",
        "-m",
        "program",
        "-n",
        "--help",
        folder=program,
        MLFLOW_TRACKING_URI=server.uri,
        MLFLOW_EXPERIMENT_NAME="run",
    )
    assert result.returncode == 7, result.stderr
    assert result.stdout == "[]\n", "the bootstrap's folder is off sys.path again"
    spans = [trace.data.spans[0] for trace in traces_of(server.uri, "run")]
    assert {span.name: span.outputs for span in spans} == {
        "program -n --help": "mlflow_fasttrace._core",
        "subprocess": "mlflow_fasttrace._core",
        "spawned": "mlflow_fasttrace._core",
    }


def test_run_takes_scripts_modules_and_commands(program):
    probe = program / "probe.py"
    probe.write_text(
        "import sys\n"
        "print(any(type(f).__name__ == '_Finder' for f in sys.meta_path), getattr(sys, 'other', None),"
        " 'mlflow' in sys.modules, 'mlflow_fasttrace' in sys.modules)\n"
    )
    others = str(program / "elsewhere")
    result = run("run", str(probe), folder=program, PYTHONPATH=others)
    assert result.stdout.split() == ["True", "1", "False", "False"]
    result = run("run", str(probe), folder=program, MLFLOW_FASTTRACE_DISABLE="1")
    assert result.stdout.split() == ["False", "None", "False", "False"]
    result = run("run", "env", folder=program)
    assert "MLFLOW_FASTTRACE=1" in result.stdout
    assert run("run", folder=program).returncode == 2
    assert "SCRIPT.py" in run("run", "--help", folder=program).stdout


@pytest.mark.parametrize("missing", ["nosuchcmd", "./nosuchcmd", "no such.py", "no/such.py"])
def test_a_program_that_is_missing_costs_one_line(tmp_path, missing):
    result = run("run", missing, folder=tmp_path)
    assert result.returncode == 127
    assert result.stderr == f"mlflow-fasttrace: {missing}: there is no such command or file\n"
    assert result.stdout == ""


def test_a_file_that_cannot_be_executed_costs_one_line(tmp_path):
    (tmp_path / "notes").write_text("nothing to run")
    (tmp_path / "broken").write_bytes(b"\x7fELF nothing to run")
    (tmp_path / "broken").chmod(0o755)
    (tmp_path / "gone").write_text("#!/no/such/interpreter\n")
    (tmp_path / "gone").chmod(0o755)
    for name, code, reason in (
        ("./notes", 126, "Permission denied"),
        ("./broken", 126, "Exec format error"),
        ("./gone", 127, "No such file or directory"),
    ):
        result = run("run", name, folder=tmp_path)
        assert result.returncode == code, result.stderr
        assert result.stderr == f"mlflow-fasttrace: {name} cannot be executed: {reason}\n"


def test_a_python_file_needs_neither_an_ending_nor_a_mode(tmp_path):
    (tmp_path / "tool").write_text("#!/usr/bin/env python3\nimport sys\nsys.exit(len(sys.argv))\n")
    assert run("run", "tool", "a", "b", folder=tmp_path).returncode == 3


def doctor(folder, **environment):
    result = run("doctor", "--json", folder=folder, **environment)
    findings = json.loads(result.stdout)["findings"]
    return result.returncode, {(f["section"], f["label"]): f for f in findings}


def test_doctor_finds_all_well(tmp_path, server, own_spool):
    code, findings = doctor(
        tmp_path, MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME="run", MLFLOW_FASTTRACE="1"
    )
    assert code == 0
    assert "mlflow 3." in findings["versions", "MLflow"]["text"]
    assert findings["versions", "C core"]["text"].endswith(".so")
    assert "on the core" in findings["active", "import mlflow"]["text"]
    assert findings["destination", "server"]["text"].startswith("answers, MLflow 3.")
    assert findings["destination", "experiment"]["text"] == "run"
    assert findings["spool", "folder"]["text"] == str(own_spool)
    assert any(section == "integrations" for section, _ in findings)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"MLFLOW_FASTTRACE_DISABLE": "1"}, "MLFLOW_FASTTRACE_DISABLE is set"),
        ({"MLFLOW_USE_DEFAULT_TRACER_PROVIDER": "false"}, "OpenTelemetry provider"),
    ],
)
def test_doctor_says_why_mlflow_runs_by_itself(tmp_path, own_spool, environment, reason):
    code, findings = doctor(
        tmp_path, MLFLOW_TRACKING_URI="http://user:secret@127.0.0.1:9", **environment
    )
    assert code == 3
    for name in ("import mlflow", "import mlflow_fasttrace"):
        assert "on MLflow itself" in findings["active", name]["text"]
        assert reason in findings["active", name]["text"]
    assert "does not answer" in findings["destination", "server"]["text"]
    assert "secret" not in str(findings)


@pytest.mark.long
def test_doctor_reads_truth_values_as_the_sitecustomize_does(tmp_path, own_spool):
    for text, wanted in (("TRUE", True), (" 1 ", True), ("0", False)):
        _, findings = doctor(
            tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9", MLFLOW_FASTTRACE=text
        )
        said = findings["active", "import mlflow"]["text"]
        assert ("MLFLOW_FASTTRACE is set" in said) is wanted


def test_doctor_and_status_say_that_the_core_cannot_be_loaded(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.modules['mlflow_fasttrace._core'] = None"
    )
    code, findings = doctor(tmp_path, PYTHONPATH=str(tmp_path))
    assert code == 3
    assert "cannot be loaded" in findings["versions", "C core"]["text"]
    assert "on MLflow itself" in findings["active", "import mlflow"]["text"]
    result = run("status", folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "the C core cannot be loaded" in result.stderr
    assert "Traceback" not in result.stderr
