"""Where the package mlflow-tracing is installed alone, which has no store: with a server all works as with MLflow;
without one nothing is lost, nothing raises, and a line says what to set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.pythons import OWN_VERSION, pip_install, venv_of

WHAT_TO_SET = "set MLFLOW_TRACKING_URI to a server"

RECORDS = """
import json, logging, sys
{before}
import mlflow_fasttrace as mlflow
{install}
uri = mlflow.get_tracking_uri()
experiment = mlflow.set_experiment("light").name

@mlflow.trace
def answer():
    return mlflow.get_active_trace_id()

traces = [answer() for _ in range(3)]
print(json.dumps([uri, experiment, len(set(traces))]))
"""


def run(
    python: str, program: str, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MLFLOW_FASTTRACE_SPOOL_DIR": str(folder / "spool"), **environment}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.run(
        [python, "-c", program], cwd=folder, env=environment, capture_output=True, text=True
    )


def assert_recorded(result: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [f"sqlite:///{folder}/mlflow.db", "light", 3]
    assert result.stderr.count("Traces are recorded and wait on this machine") == 1
    assert WHAT_TO_SET in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_store_traces_wait_and_a_line_says_what_to_set(tmp_path):
    program = RECORDS.format(
        before="sys.modules['sqlalchemy'] = sys.modules['sqlparse'] = None", install=""
    )
    # The sender would find the packages.
    result = run(sys.executable, program, tmp_path, MLFLOW_FASTTRACE_SENDER="none")
    assert_recorded(result, tmp_path)


@pytest.fixture(scope="module")
def light(wheel, tmp_path_factory) -> str:
    """A Python with mlflow-tracing and without the rest of MLflow."""
    python = venv_of(OWN_VERSION, tmp_path_factory.mktemp("light"))
    pip_install(python, wheel, "openai")
    return python


@pytest.mark.long
@pytest.mark.parametrize("install", ["", "import mlflow as real; mlflow.install()"])
def test_the_light_installation_without_a_server(light, tmp_path, install):
    program = RECORDS.format(before="", install=install)
    result = run(light, program, tmp_path, MLFLOW_FASTTRACE_EXIT_TIMEOUT="1")
    assert_recorded(result, tmp_path)


@pytest.mark.long
def test_autolog_and_doctor_do_not_raise_there(light, tmp_path):
    result = run(
        light,
        "import mlflow_fasttrace as mlflow; mlflow.openai.autolog(); mlflow.autolog()",
        tmp_path,
    )
    assert result.returncode == 0, result.stderr
    doctor = "from mlflow_fasttrace.__main__ import main; main()"
    result = run(light, f"import sys; sys.argv[1:] = ['doctor']; {doctor}", tmp_path)
    assert result.returncode == 3, result.stderr
    assert WHAT_TO_SET in " ".join(result.stdout.split())
