"""What two runs of the benchmark differ in, beyond the spread of their rounds.

    .venv/bin/python benchmarks/bench_compare.py A B

A and B are files of results, or commits whose benchmarks/results.json is meant. A figure is marked
where the rounds of the two do not overlap and its medians differ by more than a tenth; that of one
round where it differs by more than a quarter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LEAST = 1.1  # differences that a quiet machine shows between two runs of the same
LEAST_OF_ONE_ROUND = 1.25


class Difference(NamedTuple):
    name: str
    key: str
    before: float
    after: float
    outside: bool

    def __str__(self) -> str:
        ratio = f"{self.after / self.before:8.2f}x" if self.before else "        –"
        mark = ""
        if self.outside:
            mark = "  more" if self.after > self.before else "  less"
        return (
            f"{self.name:16} {self.key:26} {self.before:12,.4g} {self.after:12,.4g} {ratio}{mark}"
        )


def results(which: str) -> dict[str, Any]:
    """Of a file, or of a commit."""
    if Path(which).is_file():
        text = Path(which).read_text()
    else:
        command = ["git", "-C", str(ROOT), "show", f"{which}:benchmarks/results.json"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(text)
    return found


def is_outside(before: list[float], after: list[float]) -> bool:
    """Whether two figures differ by more than their rounds do."""
    low, high = sorted((statistics.median(before), statistics.median(after)))
    least = LEAST if min(len(before), len(after)) > 1 else LEAST_OF_ONE_ROUND
    overlap = min(before) <= max(after) and min(after) <= max(before)
    return not overlap and high > low * least


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Difference]:
    """Of every figure that both have."""
    for name, rows in before["figures"].items():
        for key, values in rows.items():
            if others := after["figures"].get(name, {}).get(key):
                medians = statistics.median(values), statistics.median(others)
                yield Difference(name, key, *medians, is_outside(values, others))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a", metavar="A")
    parser.add_argument("b", metavar="B")
    options = parser.parse_args()
    runs = results(options.a), results(options.b)
    for letter, run in zip("AB", runs, strict=True):
        about = run["about"]
        print(f"{letter}: {about['date']}, commit {about['commit']}, load {about['load']}")
    if len({(run["about"]["cpu"], run["about"]["cpus"]) for run in runs}) > 1:
        print("They are of two machines.")
    print()
    for difference in differences(*runs):
        print(difference)


if __name__ == "__main__":
    main()
