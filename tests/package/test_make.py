"""The Makefile's targets, and what a run of the tests says at its end."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from support import figures
from support.processes import ROOT


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    (names,) = re.findall(r"^\.PHONY: (.*)$", text, re.M)
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"^make ([a-z-]+) +\S", shown.stdout, re.M)
    assert len(found) == len(shown.stdout.splitlines()), shown.stdout
    assert sorted(found) == sorted(names.split())


def test_the_demo_needs_nothing_that_the_tests_do_not_have_of_that_version():
    """Both are installed into one environment, in either order."""

    def pins(extra: str) -> dict[str, str]:
        command = [sys.executable, ".ci/requirements.py", extra]
        printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return dict(re.findall(r"^([\w-]+)==(\S+)$", printed.stdout, re.M))

    version = pins("test")["mlflow"]
    assert pins("demo") == {"mlflow-skinny": version, "mlflow-tracing": version}


def report(nodeid: str, when: str, outcome: str, duration: float) -> pytest.TestReport:
    return pytest.TestReport(nodeid, ("", 0, ""), {}, outcome, None, when, duration=duration)


def test_a_run_of_the_tests_says_what_each_folder_took():
    found = figures.parts(
        [
            report("tests/cli/test_a.py::one", "setup", "passed", 2.0),
            report("tests/cli/test_a.py::one", "call", "passed", 1.0),
            report("tests/cli/test_a.py::one", "teardown", "failed", 0.5),
            report("tests/cli/test_b.py::two[x]", "call", "passed", 1.0),
            report("tests/values/test_c.py::three", "setup", "skipped", 0.25),
            report("tests/values/test_c.py::four", "setup", "failed", 10.0),
        ]
    )
    assert found == [
        ("tests/values", 0, 1, 1, 10.25),
        ("tests/cli", 1, 0, 1, 4.5),
    ]
    assert figures.lines(found) == [
        "folder               passed  skipped   failed  seconds",
        "tests/values              0        1        1       10",
        "tests/cli                 1        0        1        4",
        "together                  1        1        2       15",
    ]
