"""The Pythons that the one wheel is for, as far as they are installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow_fasttrace
import platformdirs
import pytest

from support.lengths import long_but
from support.processes import ROOT, TESTS

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
#: Of a test that runs on each: the others are left to `make test-long`.
IN_EVERY_RUN = ("3.10", "3.13")
EACH_VERSION = long_but(IN_EVERY_RUN, VERSIONS)

#: Where the package lies that the tests have imported, which may be an instrumented build's.
PACKAGE = Path(mlflow_fasttrace.__file__).parents[1]

#: That of the Python that runs the tests.
OWN_VERSION = "{}.{}".format(*sys.version_info)


def interpreter(version: str) -> str | None:
    """A Python of that version: among pyenv's, in .pythons/ (.ci/other_pythons.py), or on the PATH."""
    candidates = [
        *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))[-1:],
        *(ROOT / ".pythons").glob(f"newer/usr/bin/python{version}"),
        shutil.which(f"python{version}"),
    ]
    for candidate in map(str, filter(None, candidates)):
        check = [candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        result = subprocess.run(check, capture_output=True, text=True)
        if result.stdout.strip() == version:
            return candidate
    return None


def venv_of(version: str, folder: Path) -> str:
    """A fresh virtual environment's Python, without pip; the test is skipped where there is no such version."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    return new_venv(python, folder)


def new_venv(python: str | Path, folder: Path) -> str:
    """A fresh virtual environment's Python, without pip."""
    subprocess.run([python, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    return str(folder / "bin/python")


def pip_install(python: str, *what: str | Path) -> None:
    """Has the tests' pip install something for another Python."""
    # Isolated: what PYTHONPATH has is not in the virtual environment.
    pip = [sys.executable, "-I", "-m", "pip", "--python", python, "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", *what], check=True)


def python_without_mlflow(version: str) -> str:
    """A Python of that version, the tests' own if it is one; the test is skipped where there is none."""
    if version == OWN_VERSION:
        return sys.executable
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    return python


def modules_without_mlflow(folder: Path) -> str:
    """A PYTHONPATH of the package, the tests, and what the package needs of PyPI to be imported and to
    record.

    Args:
        folder: Where the last is put.
    """
    (folder / "platformdirs").symlink_to(Path(platformdirs.__file__).parent)
    return os.pathsep.join(map(str, (PACKAGE, TESTS, folder)))
