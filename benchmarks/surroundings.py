"""What arrives where agents run, how long their exit takes, and the memory of program and sender: this package
beside MLflow itself, against a real server, as a table in Markdown.

    .venv/bin/python benchmarks/surroundings.py [WORDS OF A ROW ...]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.servers import MlflowServer
from support.surroundings import PACKAGES, SURROUNDINGS, Run, missing, run_in

HEAD = """\
| where | | arrived | recording takes | exit takes | all there after | program | sender |
|---|---|---|---|---|---|---|---|"""


def row(where: str, package: str, run: Run) -> str:
    """A line of the table: the slowest program's times, the last two from its last line on; memory at its peak."""
    if run.failed:
        figures = [f"{run.arrived()} of {run.expected()}", "it does not run", "", "", "", ""]
    else:
        sender = f"{run.sender_bytes >> 20} MB" if run.sender_bytes else "–"
        figures = [
            f"{run.arrived()} of {run.expected()}",
            f"{max(run.worked):.1f} s",
            f"{max(run.exits):.2f} s",
            f"{max(run.exits) + run.arrived_after:.1f} s",
            f"{run.program_bytes >> 20} MB",
            sender,
        ]
    return f"| {where} | {package} | " + " | ".join(figures) + " |"


def main() -> None:
    wanted = " ".join(sys.argv[1:])
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder, MlflowServer(Path(folder)) as server:
        for name, where in SURROUNDINGS.items():
            if wanted not in name:
                continue
            if (reason := missing(where)) is not None:
                print(f"| {name} | | not here: {reason} | | | | | |", flush=True)
                continue
            for package in PACKAGES:
                run = run_in(where, package, server)
                try:
                    print(row(name, package, run), flush=True)
                finally:
                    run.remove()


if __name__ == "__main__":
    main()
