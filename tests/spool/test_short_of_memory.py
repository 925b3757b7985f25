"""Out of memory is not damage: good records are good when there is memory again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from mlflow_fasttrace import _core
from support.processes import TESTS
from support.pythons import VERSIONS, interpreter
from support.shims import build_shim

PROGRAM = TESTS / "programs/short_of_memory.py"


@pytest.mark.parametrize("version", [*VERSIONS, "this"])
def test_what_fails_for_want_of_memory_is_not_called_damaged(version, tmp_path):
    python = sys.executable if version == "this" else interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    if subprocess.run([python, "-c", "import _testcapi"], capture_output=True).returncode != 0:
        pytest.skip(f"this Python {version} has no _testcapi")
    result = subprocess.run(
        [python, str(PROGRAM), _core.__file__, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": build_shim("failing_malloc", tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    shortages = {
        line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in result.stdout.splitlines()
    }
    assert len(shortages) == 18
    assert all(count > 1 for count in shortages.values()), shortages
