"""Runs the programs that are compared with MLflow under each release of it that is supported, and prints the table of
docs/compatibility.md: what ran, passed and failed.

    .venv/bin/python .ci/releases.py [RELEASE...]

A release is one of tests/support/mlflow_releases.txt, in its virtual environment of that name (`make test-long` makes
them); "newest" is the newest that there is. Without any, all of them. Fails where a test does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: What each release is compared with, by the same programs.
EQUAL = ("tests/api/test_programs_equal_to_mlflow.py", "tests/api/test_trees_equal_to_mlflow.py")
#: What the newest is tried with besides: it is the one whose seams may have moved.
SEAMS = (
    "tests/seams/test_install.py",
    "tests/seams/test_dropin.py",
    "tests/otel/test_otel.py",
    "tests/api/test_tracing_api.py",
)


def main(releases: list[str]) -> int:
    listed = (ROOT / "tests/support/mlflow_releases.txt").read_text().split()
    failed = False
    rows = ["| MLflow | tests | passed | skipped | failed |", "|---|---:|---:|---:|---:|"]
    for release in releases or [*listed, "newest"]:
        counts = run(release, *EQUAL, *(SEAMS if release == "newest" else ()))
        total = sum(counts.values())
        failed |= total == 0 or counts["failed"] > 0
        rows.append(
            f"| {version_in(release)} | {total} | {counts['passed']} | {counts['skipped']} | "
            f"{counts['failed']} |"
        )
        print(rows[-1], flush=True)
    print("\n".join(["", *rows]))
    return int(failed)


def python_of(release: str) -> Path:
    name = "newest-mlflow" if release == "newest" else f"mlflow-{release}"
    return ROOT / f".venv-{name}/bin/python"


def version_in(release: str) -> str:
    ask = "from importlib.metadata import version; print(version('mlflow'))"
    found = subprocess.run([python_of(release), "-c", ask], stdout=subprocess.PIPE, text=True)
    return found.stdout.strip() or release


def run(release: str, *files: str) -> Counter[str]:
    """Runs test files under a release; how many tests came out how, none where it could not be run."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        subprocess.call(
            [python_of(release), "-m", "pytest", "-n", "3", "-q", "-m", "not long", *files]
            + ["-p", "no:cacheprovider", "--junitxml", report.name],
            cwd=ROOT,
        )
        try:
            return Counter(map(outcome, ElementTree.parse(report.name).iter("testcase")))
        except ElementTree.ParseError:
            return Counter()


def outcome(case: ElementTree.Element) -> str:
    found = {child.tag for child in case}
    if found & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in found else "passed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
