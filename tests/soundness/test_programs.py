"""Programs that did harm a tracer once, on every Python that is installed here, under -X dev. They check
themselves and record into a ring that nobody drains."""

from __future__ import annotations

import os
import subprocess

import pytest
from support.processes import TESTS
from support.pythons import VERSIONS, interpreter, modules_without_mlflow

PROGRAMS = sorted(
    path.stem
    for path in (TESTS / "programs/soundness").glob("*.py")
    if path.stem not in ("__init__", "recorded")
)


@pytest.fixture(scope="module")
def without_mlflow(tmp_path_factory) -> str:
    return modules_without_mlflow(tmp_path_factory.mktemp("site"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_finds_nothing_wrong(name, version, without_mlflow, own_spool, tmp_path):
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    result = subprocess.run(
        [python, "-X", "dev", "-W", "ignore::ResourceWarning", "-m", f"programs.soundness.{name}"],
        capture_output=True,
        text=True,
        timeout=170,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": without_mlflow,
            "MLFLOW_FASTTRACE_SENDER": "none",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        },
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
