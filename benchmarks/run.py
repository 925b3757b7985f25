"""All tracers, case by case, into benchmarks/results.json, docs/benchmarks.md and README.md.

    .venv/bin/python benchmarks/run.py [--quick] [--only NAME ...] [--peers PYTHON] [--output FILE]

Every tracer runs in a process of its own and delivers to a sink on loopback that counts the spans
which arrive; the rows of the live server deliver to a real ``mlflow server`` and to SQLite. The
tracers take turns, round by round, so that a drift of the machine's speed meets all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(ROOT / "tests"))

import floor  # noqa: E402
import report  # noqa: E402
from sink import Sink  # noqa: E402
from support.servers import MlflowServer  # noqa: E402
from support.spools import base_environment, clean_up  # noqa: E402
from support.waiting import free_port  # noqa: E402
from tracers import NAMES, adapter  # noqa: E402

OWN = ("mlflow", "mlflow_512", "fasttrace")
#: Fewer where delivery takes long, so that all is done in five minutes.
ROUNDS = {"mlflow": 1, "mlflow_512": 1, "fasttrace": 4, "msgspec": 4, "opik": 1, "weave": 1}
OTHER_ROUNDS = 2
#: What `--quick` measures.
QUICK = ("mlflow", "fasttrace", "opentelemetry", "ddtrace", "msgspec")
LONGEST_SECONDS = 100
EXIT_SECONDS = 10  # what an exit may take while the server is down

Figures = dict[str, dict[str, list[float]]]


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Machine:
    """Starts programs and gathers their figures.

    Args:
        folder: Everything that they write is below it.
        peers: The interpreter that has the peers, or None.
        seconds: For how long the calls of a row go on.
    """

    def __init__(self, folder: Path, peers: Path | None, seconds: float):
        self.folder, self.peers, self.seconds = folder, peers, seconds
        self.figures: Figures = {}
        floor.build(folder)

    def note(self, name: str, figures: dict[str, float], prefix: str = "") -> None:
        for key, value in figures.items():
            self.figures.setdefault(name, {}).setdefault(prefix + key, []).append(value)

    @contextlib.contextmanager
    def program(
        self, name: str, mode: str, what: str, uri: str, spool: Path, **variables: str
    ) -> Iterator[subprocess.Popen[str]]:
        home = Path(tempfile.mkdtemp(prefix="home-", dir=self.folder))
        python: str | Path = sys.executable
        environment = {**os.environ, **base_environment(spool), "HOME": str(home)}
        environment["TMPDIR"] = str(home)
        if name == "msgspec" or adapter(name).peer:
            assert self.peers is not None
            python = self.peers
            environment.pop("PYTHONPATH", None)
        if name == "fasttrace":
            environment["FASTTRACE_FLOOR"] = str(self.folder)
        if name != "msgspec":
            environment |= adapter(name).environment(uri, mode)
        with subprocess.Popen(
            [python, str(HERE / "workload.py"), name, mode, what, uri, str(self.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(home / "errors.txt", "w"),
            text=True,
            cwd=home,
            env=environment | variables,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def result(self, process: subprocess.Popen[str]) -> dict[str, float]:
        """The figures of a program, which goes on to its end; none where it takes minutes."""
        assert process.stdout is not None
        late = threading.Timer(LONGEST_SECONDS, process.kill)
        late.start()
        try:
            for line in process.stdout:
                if line.startswith("{"):
                    found: dict[str, float] = json.loads(line)
                    return found
            return {}
        finally:
            late.cancel()

    def run(self, name: str, mode: str, what: str, uri: str) -> dict[str, float]:
        """A program from its start to its end."""
        spool = Path(tempfile.mkdtemp(prefix="spool-", dir=self.folder))
        began = time.monotonic()
        try:
            with self.program(name, mode, what, uri, spool) as process:
                figures = self.result(process)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
        finally:
            clean_up(spool)
        progress(f"  {name} {mode} {what}: {time.monotonic() - began:.1f} s")
        if not figures:
            for file in sorted(self.folder.glob("home-*/errors.txt"), key=os.path.getmtime)[-1:]:
                progress(file.read_text()[-2000:])
        return figures

    # ---- parts ----

    def round(self, name: str) -> None:
        """All rows of calls, of one tracer."""
        if name == "msgspec":
            self.note(name, self.run(name, "on", "msgspec", ""))
            return
        with Sink() as sink:
            self.note(name, self.run(name, "on", "micro", sink.uri))
        modes = ["off", "unsampled"] if adapter(name).samples else ["off"]
        for mode in modes if name != "mlflow_512" else []:
            with Sink() as sink:
                self.note(name, self.run(name, mode, "switched", sink.uri))

    def sizes(self, name: str) -> None:
        self.note(name, self.run(name, "on", "size", ""))

    def live(self, names: list[str], database: bool) -> None:
        """A real server, and a database without one."""
        folder = self.folder / "server"
        folder.mkdir()
        server = MlflowServer(folder)
        server.start()
        empty = folder / "empty.db"
        try:
            with sqlite3.connect(folder / "server.db") as source, sqlite3.connect(empty) as target:
                source.backup(target)
            for name in names:
                self.note(name, self.run(name, "on", "live", server.uri), "live.")
        finally:
            server.stop()
        for name in set(names) - {"mlflow_512"} if database else ():
            file = folder / f"{name}.db"
            shutil.copy(empty, file)
            self.note(name, self.run(name, "on", "live", f"sqlite:///{file}"), "sqlite.")

    def down(self, names: list[str]) -> None:
        """Programs that record when their server has gone, and exit; and what arrives once it is back."""
        ports = {name: free_port() for name in names}
        spools = {name: Path(tempfile.mkdtemp(prefix="spool-", dir=self.folder)) for name in names}

        def program(name: str, what: str) -> Any:
            uri = f"http://127.0.0.1:{ports[name]}"
            variables = {"HOME": str(spools[name]), "MLFLOW_FASTTRACE_EXIT_TIMEOUT": "5"}
            return self.program(name, "on", what, uri, spools[name], **variables)

        def found_later(name: str) -> float:
            with Sink(ports[name]), program(name, "later") as process:
                return self.result(process).get("arrived", 0)

        try:
            with contextlib.ExitStack() as ending:
                waiting = []

                def wait_for_exit(name: str, process: subprocess.Popen[str]) -> None:
                    since = time.monotonic()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(EXIT_SECONDS)
                    self.note(name, {"down.exit": time.monotonic() - since})

                for name in names:
                    with Sink(ports[name]):
                        process = ending.enter_context(program(name, "down"))
                        self.result(process)
                    assert process.stdin is not None
                    process.stdin.write("\n")
                    process.stdin.flush()
                    self.note(name, self.result(process))
                    waiting.append(threading.Thread(target=wait_for_exit, args=(name, process)))
                    waiting[-1].start()
                for thread in waiting:
                    thread.join()
            with ThreadPoolExecutor(len(names)) as pool:
                for name, arrived in zip(names, pool.map(found_later, names), strict=True):
                    self.note(name, {"down.kept": max(0, arrived - 1) / 2})
                    progress(f"  {name} down: {arrived:.0f} arrived")
        finally:
            for spool in spools.values():
                clean_up(spool)


# ---- what it ran on ----


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def versions(peers: Path | None) -> dict[str, str]:
    script = (
        "import importlib.metadata as m, json, sys; "
        "print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    )
    packages = sorted({p for name in NAMES if adapter(name).peer for p in adapter(name).packages})
    found = {name: importlib.metadata.version(name) for name in ("mlflow", "mlflow-fasttrace")}
    if peers is not None:
        command = [peers, "-c", script, *packages, "msgspec"]
        found |= json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def about(peers: Path | None, quick: bool) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "quick": quick,
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "versions": versions(peers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a round of each, no document")
    parser.add_argument("--only", nargs="*", default=[], help="only these tracers, no document")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers/bin/python")
    parser.add_argument("--output", type=Path, help="where the figures go")
    options = parser.parse_args()
    peers = options.peers if options.peers.exists() else None
    if peers is None:
        progress(f"{options.peers} is not there: without the peers")
    names = [
        name
        for name in NAMES
        if (not options.only or name in options.only) and (peers or not adapter(name).peer)
    ]
    whole = not options.quick and not options.only and peers is not None
    began = time.monotonic()
    results: dict[str, Any] = {"about": about(peers, options.quick)}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        machine = Machine(Path(folder), peers, 0.03 if options.quick else 0.1)
        columns = [*names, "msgspec"] if peers else names
        rounds = {name: ROUNDS.get(name, OTHER_ROUNDS) for name in columns}
        if options.quick:
            rounds = {name: 1 for name in columns if name in QUICK}
        for number in range(max(rounds.values())):
            progress(f"round {number + 1}, at {time.monotonic() - began:.0f} s")
            for name in columns:
                if rounds.get(name, 0) > number:
                    machine.round(name)
        names = [name for name in names if name in rounds]
        for name in names:
            machine.sizes(name)
        own = [name for name in names if name in OWN]
        progress(f"a real server, at {time.monotonic() - began:.0f} s")
        if own:
            machine.live(own, database=not options.quick)
        progress(f"no server, at {time.monotonic() - began:.0f} s")
        if not options.quick:
            machine.down(names)
    results["about"]["seconds"] = round(time.monotonic() - began)
    results["figures"] = machine.figures
    progress(f"{results['about']['seconds']} s in all")
    output = options.output or (report.RESULTS if whole else None)
    if output is not None:
        output.write_text(report.to_json(results))
    if whole and options.output is None:
        report.write(results)
    print(report.readme_table(results))


if __name__ == "__main__":
    main()
