"""Says which of MLflow's names that this package uses a release of it has moved: to be run each week, and before a
release of this package. Installs it into a virtual environment of its own, over .venv.

    .venv/bin/python .ci/moved_seams.py [REQUIREMENT]

REQUIREMENT is what pip is told; by default the newest MLflow, pre-releases too. Fails where a name that is required is
missing or has moved.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

LOOK = """
import importlib, mlflow
from mlflow_fasttrace._internal.seams import private_names

print(f"MLflow {mlflow.__version__}:")
required = 0
for late in sorted({name.module for name in private_names.NAMES if name.late}):
    try:
        importlib.import_module(late)
    except ImportError as error:
        print(f"  not looked at: {late} ({error})")
for process in private_names.PROGRAM, private_names.SENDER:
    for name, reason in private_names.missing(process):
        required += name.required
        print(f"  {reason}; " + ("REQUIRED" if name.required else f"lost: {name.lost}"))
print(f"  {required} required names have moved")
raise SystemExit(required > 0)
"""


def main(requirement: str = "mlflow") -> int:
    with tempfile.TemporaryDirectory() as folder:
        overlay = [sys.executable, str(ROOT / ".ci/overlay_venv.py"), folder]
        subprocess.check_call([*overlay, "--no-deps", "--pre", "--upgrade", requirement])
        return subprocess.call([f"{folder}/bin/python", "-W", "ignore", "-c", LOOK])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
