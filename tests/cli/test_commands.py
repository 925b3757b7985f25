"""The commands are imported when they are called, and each is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = ["completion", "doctor", "run", "send", "show", "status", "traces"]

HELP = """
import sys
from mlflow_fasttrace._internal.cli.main import main
main(["--help"], standalone_mode=False)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"rich", "mlflow", "opentelemetry", "requests"}, loaded
commands = [name for name in sys.modules if name.startswith("mlflow_fasttrace._internal.cli.")]
assert commands == ["mlflow_fasttrace._internal.cli.main"], commands
"""


def test_help_imports_no_command():
    result = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name):
    from click.testing import CliRunner
    from mlflow_fasttrace._internal.cli.main import main

    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: main {name} ")
    *_, example = result.output.strip().split("\n\n")
    assert example.strip().startswith("Example: "), "each help ends in one"
    assert f"mlflow-fasttrace {name}" in " ".join(example.split())


def test_an_unknown_command():
    from click.testing import CliRunner
    from mlflow_fasttrace._internal.cli.main import main

    result = CliRunner().invoke(main, ["nonsense"])
    assert result.exit_code == 2
    assert "No such command" in result.output
