"""Every part of the API, over and over in a process of its own: memory stays flat."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.pythons import VERSIONS, pip_install, venv_of

SCRIPT = Path(__file__).parents[1] / "programs/leaks.py"


def run_on(python: str, rounds: int, folder: Path) -> None:
    result = subprocess.run(
        [python, SCRIPT, str(rounds)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            "MLFLOW_FASTTRACE_SENDER": "none",
            "TMPDIR": str(folder),
        },
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_memory_stays_flat(tmp_path):
    run_on(sys.executable, 500, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
def test_memory_stays_flat_for_long(wheel, tmp_path, version):
    python = venv_of(version, tmp_path / "venv")
    mlflow = f"mlflow-skinny=={importlib.metadata.version('mlflow')}"
    pip_install(python, mlflow, "platformdirs>=4", "cloudpickle")
    pip_install(python, "--no-deps", wheel)
    run_on(python, 100_000, tmp_path)
