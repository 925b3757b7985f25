"""Releases of MLflow. What differs by release is told by the version that MLflow says it is of: here this release's
code under another name. The releases themselves: `.ci/releases.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow_fasttrace._internal.base import version
from support.processes import Program

OWN = mlflow.__version__

RECORDS = """
import inspect, json, os
{imports}
from mlflow.version import VERSION

found = {{}}

@mlflow.trace
def own_outputs():
    mlflow.get_current_active_span().set_outputs("own")
    return "returned"

own_outputs()

def newer(**arguments):
    try:
        with mlflow.start_span("span", **arguments):
            return None
    except TypeError as error:
        return str(error)

found["refused"] = [
    newer(description="d"), newer(links=[]), newer(run_id=None), newer(log_level="INFO")
]
found["parameters"] = list(inspect.signature(mlflow.start_span).parameters)[4:]
with mlflow.start_span("span") as span:
    span.record_exception("words")
found["core"] = type(span).__module__ == "mlflow_fasttrace._core"
found["status"] = span.status.description
found["keys"] = sorted(span.to_dict())
found["level"] = span.attributes.get("mlflow.spanLogLevel")
try:
    found["links"] = span.links
except AttributeError as error:
    found["links"] = str(error)
found["session"] = []
with mlflow.start_span("session"):
    for session in (["a", "b"], []):
        try:
            mlflow.update_current_trace(session_id=session)
        except Exception as error:
            found["session"].append(type(error).__name__)
mlflow.flush_trace_async_logging()
traces = mlflow.search_traces(return_type="list")
found["outputs"] = [s.outputs for t in traces for s in t.data.spans if s.name == "own_outputs"]
found["traces"] = len(traces)
print(json.dumps([VERSION, found]))
"""

DROPIN = "import mlflow_fasttrace as mlflow"
INSTALLED = "import mlflow_fasttrace; mlflow_fasttrace.install(); import mlflow"


def call_it(folder: Path, release: str, **distributions: str) -> str:
    """Makes a folder in which this MLflow lies as one of another release, beside what says which distributions it
    came with; its PYTHONPATH."""
    package = folder / "mlflow"
    package.mkdir(parents=True)
    own = Path(mlflow.__file__).parent
    for entry in own.iterdir():
        if entry.name not in ("version.py", "__pycache__"):
            (package / entry.name).symlink_to(entry)
    text = (own / "version.py").read_text()
    (package / "version.py").write_text(text.replace(f'"{OWN}"', f'"{release}"'))
    for name, number in distributions.items():
        metadata = folder / f"{name}-{number}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
        )
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


def run(program: str, folder: Path, path: str, **environment: str) -> Program:
    process = Program(
        program,
        folder,
        PYTHONPATH=path,
        MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db",
        **environment,
    )
    process.succeeds()
    return process


@pytest.mark.parametrize(
    ("release", "known"),
    [
        ("3.12.0", 0),
        pytest.param("3.13.0", 1, marks=pytest.mark.long),
        pytest.param("3.15.2", 3, marks=pytest.mark.long),
        pytest.param("3.16.1", 3, marks=pytest.mark.long),
        ("3.18.0", 4),
    ],
)
def test_behaviour_is_that_of_the_release(release, known, tmp_path):
    path = call_it(tmp_path / "other", release)
    process = run(RECORDS.format(imports=DROPIN), tmp_path, path)
    said, found = json.loads(process.out.splitlines()[-1])
    assert said == release
    assert found["core"]
    assert found["parameters"] == ["log_level", "run_id", "links", "description"][:known]
    unknown = ["description", "links", "run_id", "log_level"][: 4 - known]
    refused = [f"start_span() got an unexpected keyword argument {name!r}" for name in unknown]
    assert found["refused"] == [*refused, *[None] * known]
    number = version.release_of(release)
    assert found["outputs"] == ["own" if number >= (3, 16) else "returned"]
    assert found["status"] == ("Exception: words" if number >= (3, 17) else "str: words")
    assert ("kind" in found["keys"]) == (number >= (3, 18))
    assert ("links" in found["keys"]) == (number >= (3, 13))
    assert found["level"] == (40 if number >= (3, 13) else None)
    assert found["links"] == (
        [] if number >= (3, 13) else "'LiveSpan' object has no attribute 'links'"
    )
    assert found["session"] == (["MlflowException"] if number >= (3, 18) else [])


@pytest.mark.parametrize("imports", [DROPIN, INSTALLED], ids=["drop-in", "install()"])
def test_an_mlflow_that_is_too_old_runs_on_itself_with_one_line(imports, tmp_path):
    path = call_it(tmp_path / "other", "3.11.1")
    process = run(RECORDS.format(imports=imports), tmp_path, path)
    said, found = json.loads(process.out.splitlines()[-1])
    assert said == "3.11.1"
    assert not found["core"]
    assert found["traces"] == 7
    assert process.err.count("MLflow 3.11.1 is older than 3.12, the oldest that is known here") == 1


def test_distributions_that_do_not_fit_are_named_at_the_first_start(tmp_path):
    path = call_it(tmp_path / "other", "3.17.2", mlflow="3.12.0", mlflow_tracing="3.17.2")
    process = run(RECORDS.format(imports=DROPIN), tmp_path, path)
    line = "mlflow 3.12.0 and mlflow-tracing 3.17.2 are installed over one another"
    assert process.err.count(line) == 1
    assert (
        "pip install --force-reinstall --no-deps mlflow-tracing==3.12.0 mlflow==3.12.0"
        in process.err
    )
    report = subprocess.run(
        [sys.executable, "-m", "mlflow_fasttrace", "doctor", "--json"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    findings = {each["label"]: each for each in json.loads(report.stdout)["findings"]}
    assert line in findings["MLflow"]["text"]
    assert findings["MLflow"]["rating"] == "bad"


def test_distributions_that_fit_are_not_named():
    assert version.mixed_versions() is None


def test_the_version_in_the_files_is_the_one_that_is_loaded():
    assert version._version_in_files() == version.mlflow_version() == OWN
