"""Programs that did harm a tracer once, on every Python that is installed here, under -X dev. They check
themselves and record into a ring that no sender drains."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.processes import TESTS, run_to_its_end
from support.pythons import IN_EVERY_RUN, VERSIONS, interpreter, modules_without_mlflow

PROGRAMS = sorted(
    path.stem
    for path in (TESTS / "programs/soundness").glob("*.py")
    if path.stem not in ("__init__", "recorded")
)
#: Programs that take long, but on the oldest Python.
SLOW = ("contexts", "recursion")
CASES = [
    pytest.param(name, version, marks=pytest.mark.long if is_long else ())
    for name in PROGRAMS
    for version in VERSIONS
    for is_long in [version not in IN_EVERY_RUN or (name in SLOW and version != VERSIONS[0])]
]


@pytest.fixture(scope="session")
def without_mlflow(tmp_path_factory) -> str:
    return modules_without_mlflow(tmp_path_factory.mktemp("site"))


@pytest.mark.parametrize(("name", "version"), CASES)
def test_the_program_finds_nothing_wrong(name, version, without_mlflow, own_spool, tmp_path):
    run(name, version, without_mlflow, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
def test_everything_at_once_for_ten_minutes(version, without_mlflow, own_spool, tmp_path):
    run("everything_at_once", version, without_mlflow, tmp_path, seconds=600)


def run(name: str, version: str, modules: str, folder: Path, seconds: int | None = None) -> None:
    """Runs a program, which must end well.

    Args:
        name: Its module.
        version: Of Python.
        modules: Its PYTHONPATH.
        folder: Where it runs.
        seconds: How long, where the program can be told.
    """
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    environment = {
        **os.environ,
        "PYTHONPATH": modules,
        "MLFLOW_FASTTRACE_SENDER": "none",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }
    if seconds is not None:
        environment["SOUNDNESS_SECONDS"] = str(seconds)
    result = run_to_its_end(
        [python, "-X", "dev", "-W", "ignore::ResourceWarning", "-m", f"programs.soundness.{name}"],
        (seconds or 0) + 150,
        cwd=folder,
        env=environment,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
