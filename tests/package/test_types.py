"""Type checkers see in mlflow_fasttrace what they see in MLflow: every name, every signature, every wrong call."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from support.processes import ROOT, TESTS

#: Programs with right and with wrong calls; the lines that are wrong say so.
PROGRAMS = {
    f"{name}.py": (TESTS / f"programs/typed/{name}.py").read_text() for name in ("right", "wrong")
}


class Finding(NamedTuple):
    program: str
    line: int
    severity: str
    code: str
    message: str


def of_this_package(text: str) -> str:
    """A program, or a checker's message, with this package in MLflow's place."""
    text = re.sub(r"^import mlflow$", "import mlflow_fasttrace as mlflow", text, flags=re.M)
    return re.sub(r"^(import|from) mlflow\b", r"\1 mlflow_fasttrace", text, flags=re.M)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """The programs as they are, and with this package's name in their imports."""
    root = tmp_path_factory.mktemp("typed")
    pure, ours = root / "pure", root / "ours"
    for folder in (pure, ours):
        folder.mkdir()
    for name, text in PROGRAMS.items():
        (pure / name).write_text(text)
        (ours / name).write_text(of_this_package(text))
    return pure, ours


def mypy(folder: Path) -> set[Finding]:
    command = [sys.executable, "-m", "mypy", "--strict", "--output", "json", "--cache-dir"]
    result = subprocess.run(
        [*command, folder.parent / "cache", *PROGRAMS], cwd=folder, capture_output=True, text=True
    )
    assert result.returncode == 1, result.stdout + result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return {
        Finding(f["file"], f["line"], f["severity"], f["code"] or "", f["message"]) for f in found
    }


def pyright(folder: Path) -> set[Finding]:
    configuration = {"typeCheckingMode": "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(configuration))
    command = [sys.executable, "-m", "basedpyright", "--outputjson"]
    command += ["--pythonpath", sys.executable, *PROGRAMS]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 1, result.stdout + result.stderr
    return {
        Finding(
            Path(f["file"]).name,
            f["range"]["start"]["line"] + 1,
            f["severity"],
            f.get("rule", ""),
            f["message"],
        )
        for f in json.loads(result.stdout)["generalDiagnostics"]
    }


@pytest.mark.parametrize("checker", [pytest.param(mypy, marks=pytest.mark.long), pyright])
def test_a_checker_finds_what_it_finds_in_mlflow(folders, checker):
    pure, ours = (checker(folder) for folder in folders)
    # Where a message names the module, it is this package's.
    renamed = {
        f._replace(message=re.sub(r'((?:M|m)odule) "mlflow\b', r'\1 "mlflow_fasttrace', f.message))
        for f in pure
    }
    # A stub of a module that this package has not itself: MLflow has it.
    ours = {f for f in ours if f.code != "reportMissingModuleSource"}
    assert ours - pure <= renamed
    assert {f[:4] for f in pure} == {f[:4] for f in ours}
    assert len([f for f in ours if f.program == "right.py" and f.severity != "error"]) > 70
    wrong = {
        number
        for number, line in enumerate(PROGRAMS["wrong.py"].splitlines(), 1)
        if line.endswith("# wrong")
    }
    assert len(wrong) > 25
    assert wrong == {f.line for f in ours if f.program == "wrong.py" and f.severity == "error"}


def test_every_public_module_of_mlflow_has_a_stub():
    command = [sys.executable, ROOT / ".ci/mlflow_modules.py"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert listed == (ROOT / "python/mlflow_modules.txt").read_text()
