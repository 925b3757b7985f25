"""Programs that did harm a tracer once, on every Python that is installed here, under -X dev. They check
themselves and record into a ring that nobody drains."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import platformdirs
import pytest
from support.processes import ROOT, TESTS
from support.pythons import VERSIONS, interpreter

PROGRAMS = sorted(
    path.stem
    for path in (TESTS / "programs/soundness").glob("*.py")
    if path.stem not in ("__init__", "recorded")
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """What the package needs of PyPI to be imported and to record."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "platformdirs").symlink_to(Path(platformdirs.__file__).parent)
    return folder


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_finds_nothing_wrong(name, version, site, own_spool, tmp_path):
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
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "python", TESTS, site))),
            "MLFLOW_FASTTRACE_SENDER": "none",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        },
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
