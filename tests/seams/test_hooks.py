"""The table of what the C core asks of Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlflow_fasttrace

#: In a process of its own, which has no use for its hooks afterwards.
EACH = """
from mlflow_fasttrace._internal.base import hooks
found = [hook for hook in vars(hooks).values() if isinstance(hook, hooks.Hook)]
for hook in found:
    hook.answer(lambda *given: None)
    hook.answer(None)
print(len(found))
"""


def test_the_core_knows_each_hook():
    result = subprocess.run(
        [sys.executable, "-c", EACH], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) == 14


def test_hooks_are_set_in_one_place():
    package = Path(mlflow_fasttrace.__file__).parent
    found = [path.name for path in package.rglob("*.py") if "set_hook(" in path.read_text()]
    assert found == ["hooks.py"]
