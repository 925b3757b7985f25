"""What the delivery of a backlog takes: until all is there, and the sender's processor time and memory.

    python benchmarks/delivery.py [--to sink|server|sqlite] [--traces 450] [--leaves 10]
    python benchmarks/delivery.py --with mlflow ...     MLflow's own client instead, from the first trace on

A program records its traces, a root and its leaves each, and ends; then a sender is started. A sink
answers at once; the server is a real ``mlflow server`` with one worker on SQLite.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "tests"))

from mlflow_fasttrace._internal.spool.folder import spool_named  # noqa: E402
from sink import Sink, spans_at  # noqa: E402
from support.servers import MlflowServer  # noqa: E402
from support.spools import base_environment, clean_up  # noqa: E402

LONGEST_SECONDS = 900

PROGRAM = """
import importlib
import sys

module, traces, leaves = sys.argv[1], *map(int, sys.argv[2:])
mlflow = importlib.import_module(module)


@mlflow.trace
def leaf(n):
    return {"n": n}


@mlflow.trace
def root(n):
    for i in range(leaves):
        leaf(i)


for n in range(traces):
    root(n)
mlflow.flush_trace_async_logging()
"""


@contextlib.contextmanager
def sink() -> Iterator[tuple[str, Callable[[], int]]]:
    with Sink() as running:
        yield running.uri, lambda: spans_at(running.uri)


def count(database: Path) -> Callable[[], int]:
    """Counts the spans of a database whose traces have their infos; fewer where one lacks it."""
    connection = sqlite3.connect(database, timeout=60)

    def spans() -> int:
        query = (
            "SELECT count(*) FROM spans JOIN trace_request_metadata AS m ON m.request_id = trace_id "
            "WHERE m.key = 'mlflow.trace.sizeStats'"
        )
        return int(connection.execute(query).fetchone()[0])

    return spans


@contextlib.contextmanager
def server() -> Iterator[tuple[str, Callable[[], int]]]:
    with tempfile.TemporaryDirectory() as folder, MlflowServer(Path(folder)) as running:
        yield running.uri, count(Path(folder) / "server.db")


@contextlib.contextmanager
def sqlite() -> Iterator[tuple[str, Callable[[], int]]]:
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "traces.db"
        uri = f"sqlite:///{database}"
        make = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments()"
        subprocess.run([sys.executable, "-c", make, uri], check=True, capture_output=True)
        yield uri, count(database)


PLACES = {"sink": sink, "server": server, "sqlite": sqlite}


def wait_for(spans: int, counted: Callable[[], int]) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while counted() < spans and time.monotonic() < deadline:
        time.sleep(0.05)


def memory(pid: int, key: str) -> int:
    """Megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) >> 10
    return 0


def deliver(spool: Path, uri: str, spans: int, counted: Callable[[], int]) -> dict[str, float]:
    """Starts a sender for what lies in a spool, until all is there."""
    (folder,) = (path for path in spool.iterdir() if path.is_dir())
    places = spool_named(str(spool), folder.name)
    command = [sys.executable, "-m", "mlflow_fasttrace._internal.sender"]
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, places.folder, places.rings],
        env={**os.environ, **base_environment(spool), "MLFLOW_TRACKING_URI": uri},
        stderr=subprocess.DEVNULL,
    )
    wait_for(spans, counted)
    found: dict[str, float] = {"seconds": time.monotonic() - began}
    time.sleep(2)  # when it has nothing to do it gives memory back
    found["memory_mb"] = memory(process.pid, "VmRSS:")
    found["peak_mb"] = memory(process.pid, "VmHWM:")
    process.send_signal(signal.SIGTERM)
    _, _, usage = os.wait4(process.pid, 0)
    found["cpu_us_a_span"] = (usage.ru_utime + usage.ru_stime) / spans * 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", choices=PLACES, default="sink")
    parser.add_argument("--traces", type=int, default=450)
    parser.add_argument("--leaves", type=int, default=10)
    parser.add_argument("--with", dest="module", default="mlflow_fasttrace")
    options = parser.parse_args()
    spans = options.traces * (options.leaves + 1)
    of_mlflow = options.module == "mlflow"
    with PLACES[options.to]() as (uri, counted), tempfile.TemporaryDirectory() as folder:
        spool = Path(folder).resolve() / "spool"
        began = time.monotonic()
        try:
            subprocess.run(
                [
                    *(sys.executable, "-c", PROGRAM, options.module),
                    *(str(options.traces), str(options.leaves)),
                ],
                check=True,
                env={
                    **os.environ,
                    **base_environment(spool),
                    "MLFLOW_TRACKING_URI": uri,
                    "MLFLOW_EXPERIMENT_ID": "0",
                    "MLFLOW_FASTTRACE_SENDER": "none",
                    "MLFLOW_FASTTRACE_EXIT_TIMEOUT": "0",
                },
            )
            if of_mlflow:
                found = {"seconds": time.monotonic() - began}
            else:
                found = deliver(spool, uri, spans, counted)
            found["arrived"] = counted()
        finally:
            clean_up(spool)
    print(json.dumps({"spans": spans, **{key: round(value, 2) for key, value in found.items()}}))


if __name__ == "__main__":
    main()
