"""Runs the programs that are compared with MLflow under each release of it that is supported, and prints the table of
docs/compatibility.md: of each release, on each Python, how many tests passed.

    .venv/bin/python .ci/releases.py [--python VERSION]... [RELEASE...]

A release is one of tests/support/mlflow_releases.txt, "pinned", which is that of .venv, or "newest", the newest that there
is. `make test-long` runs all of them on the Python of .venv, from this tree; `make matrix` the oldest, the pinned and the
newest on the others, with the wheel that `make wheels` built. Each has its virtual environment, which those commands
make. Fails where a test does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from mlflow_fasttrace._internal.base.version import release_of

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from support.pythons import OWN_VERSION, pip_install  # noqa: E402
from support.servers import OTHER_RELEASES  # noqa: E402

#: What each release is compared with, by the same programs.
EQUAL = ("tests/api/test_programs_equal_to_mlflow.py", "tests/api/test_trees_equal_to_mlflow.py")
#: What the newest is tried with besides, on the Python of .venv: it is the one whose seams may have moved.
SEAMS = (
    "tests/seams/test_install.py",
    "tests/seams/test_dropin.py",
    "tests/otel/test_otel.py",
    "tests/api/test_tracing_api.py",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--python", action="append", dest="pythons", metavar="VERSION")
    parser.add_argument("releases", nargs="*", metavar="RELEASE")
    chosen = parser.parse_args()
    pythons = chosen.pythons or [OWN_VERSION]
    cells: dict[str, dict[str, str]] = {}
    failed = False
    for version in pythons:
        own = version == OWN_VERSION
        if not own:
            install_wheel(venv_of(version, "pinned") / "bin/python")
        listed = OTHER_RELEASES if own else OTHER_RELEASES[:1]
        for release in chosen.releases or [*listed, "pinned", "newest"]:
            python = venv_of(version, release) / "bin/python"
            mlflow = mlflow_of(python)
            counts = run(python, *EQUAL, *(SEAMS if own and release == "newest" else ()))
            failed |= counts["passed"] == 0 or counts["failed"] > 0
            row = cells.setdefault(mlflow, {})
            row[version] = f"{counts['passed']} passed" + "".join(
                f", {counts[outcome]} {outcome}"
                for outcome in ("skipped", "failed")
                if counts[outcome]
            )
            print(f"Python {version}, MLflow {mlflow}: {row[version]}", flush=True)
    print("\n| MLflow |" + "".join(f" Python {version} |" for version in pythons))
    print("|---|" + "---|" * len(pythons))
    for release, row in sorted(cells.items(), key=lambda item: release_of(item[0])):
        print(f"| {release} |" + "".join(f" {row.get(version, '')} |" for version in pythons))
    return int(failed)


def venv_of(version: str, release: str) -> Path:
    """The virtual environment of a release of MLflow for a Python."""
    own = "" if version == OWN_VERSION else f"-python-{version}"
    names = {"pinned": "", "newest": "-newest-mlflow"}
    return ROOT / f".venv{own}{names.get(release, f'-mlflow-{release}')}"


def install_wheel(python: Path) -> None:
    (wheel,) = ROOT.glob("dist/*manylinux*_x86_64.whl")
    pip_install(str(python), "--force-reinstall", "--no-deps", wheel)


def mlflow_of(python: Path) -> str:
    """The version of MLflow that is installed for a Python."""
    if not python.exists():
        sys.exit(f"{python} is missing: make test-long and make matrix make it")
    ask = "from importlib.metadata import version; print(version('mlflow'))"
    return subprocess.check_output([python, "-c", ask], text=True).strip()


def run(python: Path, *files: str) -> Counter[str]:
    """Runs test files; how many tests came out how, none where they could not be run."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        subprocess.call(
            [python, "-m", "pytest", "-n", "3", "-q", "-m", "not long", *files]
            + ["-p", "no:cacheprovider", "--junitxml", report.name],
            cwd=ROOT,
        )
        try:
            return Counter(map(outcome_of, ElementTree.parse(report.name).iter("testcase")))
        except ElementTree.ParseError:
            return Counter()


def outcome_of(case: ElementTree.Element) -> str:
    found = {child.tag for child in case}
    if found & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in found else "passed"


if __name__ == "__main__":
    sys.exit(main())
