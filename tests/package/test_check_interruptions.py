"""`make lint` finds a handler that swallows what belongs to the program, and lets the others be."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.processes import ROOT

CHECK = ROOT / ".ci/check_interruptions.py"


def faults(tmp_path, body: str) -> str:
    folder = tmp_path / "python/mlflow_fasttrace/_internal/recording"
    folder.mkdir(parents=True)
    (folder / "module.py").write_text(body)
    result = subprocess.run([sys.executable, CHECK, tmp_path], capture_output=True, text=True)
    assert result.returncode == bool(result.stdout), result.stderr
    return result.stdout


TRY = "try:\n    work()\n"


@pytest.mark.parametrize(
    "body",
    [
        TRY + "except Exception:\n    pass\n",
        TRY + "except:\n    pass\n",
        TRY + "except (KeyError, OSError) as error:\n    log(error)\n",
        TRY + "except RuntimeError:\n    if late:\n        raise\n",
        "with contextlib.suppress(KeyError, OSError):\n    work()\n",
        "if os.path.exists(path):\n    work()\n",
        "os.makedirs(path, exist_ok=True)\n",
    ],
)
def test_a_handler_that_swallows_everything_is_found(tmp_path, body):
    assert "module.py:" in faults(tmp_path, body)


@pytest.mark.parametrize(
    "body",
    [
        TRY + "except Exception as error:\n    let_pass(error)\n",
        TRY + "except BaseException:\n    close()\n    raise\n",
        TRY + "except OSError as error:\n    if _core.is_interruption(error):\n        raise\n",
        TRY + "except ValueError:\n    pass\n",
        "with contextlib.suppress(ValueError):\n    work()\n",
    ],
)
def test_other_handlers_are_let_be(tmp_path, body):
    assert faults(tmp_path, body) == ""
