"""What a program that records one span pays: its import and first span, and how soon that is delivered.

.venv/bin/python benchmarks/cold_start.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.quick_server import QuickServer
from support.spools import clean_up

PROGRAMS = 10
PROGRAM = """
import time
began = time.perf_counter()
import mlflow_fasttrace as mlflow
imported = time.perf_counter()
@mlflow.trace
def traced(x):
    return x
traced(1)
print(imported - began, time.perf_counter() - imported, time.time())
"""


def one_program() -> tuple[float, float, float]:
    """Milliseconds that the import takes, the first span, and the delivery from then on."""
    with QuickServer() as server, tempfile.TemporaryDirectory() as spool:
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": server.uri,
            "MLFLOW_EXPERIMENT_ID": "0",
            "MLFLOW_FASTTRACE_SPOOL_DIR": spool,
        }
        command = [sys.executable, "-c", PROGRAM]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            while not (server.sizes and server.infos):
                time.sleep(0.001)
            delivered = time.time()
            figures = process.communicate()[0].split()
        clean_up(Path(spool))
    imported, spanned, at = map(float, figures)
    return imported * 1e3, spanned * 1e3, (delivered - at) * 1e3


def main() -> None:
    one_program()  # the files are in memory then, as they are for the second program of a user
    imported, spanned, delivered = map(
        statistics.median, zip(*(one_program() for _ in range(PROGRAMS)), strict=True)
    )
    print(f"import            {imported:6.1f} ms")
    print(f"first span        {spanned:6.1f} ms")
    print(f"delivered after   {delivered:6.1f} ms more, by a sender that was started for it")


if __name__ == "__main__":
    main()
