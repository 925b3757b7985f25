"""What a run of the tests says at its end of each folder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest


class Part(NamedTuple):
    """A folder of tests.

    Args:
        seconds: Of its tests, and of what they set up, one after the other: several processes take less.
    """

    folder: str
    passed: int
    skipped: int
    failed: int
    seconds: float


def parts(reports: Iterable[pytest.TestReport]) -> list[Part]:
    """The folders of these tests, the one that took longest first."""
    outcomes: dict[str, dict[str, str]] = {}
    seconds: dict[str, float] = {}
    for report in reports:
        folder = "/".join(report.nodeid.partition("::")[0].split("/")[:2])
        seconds[folder] = seconds.get(folder, 0.0) + report.duration
        of_tests = outcomes.setdefault(folder, {})
        if report.when == "call" or report.outcome != "passed":
            # What fails before or behind a test counts as that test's.
            if of_tests.get(report.nodeid) != "failed":
                of_tests[report.nodeid] = report.outcome
    return sorted(
        (
            Part(
                folder,
                *(list(of_tests.values()).count(kind) for kind in ("passed", "skipped", "failed")),
                seconds[folder],
            )
            for folder, of_tests in outcomes.items()
        ),
        key=lambda part: -part.seconds,
    )


def lines(found: list[Part]) -> list[str]:
    """A table of them, and their sum."""
    total = Part("together", *(sum(part[i] for part in found) for i in range(1, 5)))
    rows = [("folder", "passed", "skipped", "failed", "seconds")]
    rows += [(p.folder, *map(str, p[1:4]), f"{p.seconds:.0f}") for p in (*found, total)]
    return ["".join([f"{row[0]:<18}", *(f"{cell:>9}" for cell in row[1:])]) for row in rows]
