"""A program and its sender at one ring, seen by ThreadSanitizer: neither reads what the other is
writing."""

from __future__ import annotations

import subprocess
import tempfile

import pytest
from support import fuzzing
from support.processes import ROOT


@pytest.mark.skipif(not fuzzing.can_build(), reason="there is no clang, or no shared libpython")
@pytest.mark.parametrize(
    "seconds", [2, pytest.param(60, marks=pytest.mark.long)], ids=["briefly", "long"]
)
def test_program_and_sender_do_not_race(seconds):
    program = fuzzing.compile_with_core(
        ROOT / "build/race/ring",
        ROOT / "tests/race/ring.c",
        "-O1",
        "-fsanitize=thread",
        "-Wl,--wrap=mmap64,--wrap=munmap",
    )
    # setarch: this ThreadSanitizer does not know how far newer kernels move what they load.
    with tempfile.TemporaryDirectory(prefix="fasttrace-race-", dir="/dev/shm") as folder:
        result = subprocess.run(
            ["setarch", "-R", program, folder, str(seconds)],
            capture_output=True,
            text=True,
            timeout=60 + 2 * seconds,
        )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "records" in result.stdout
