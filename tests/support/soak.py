"""Mixed load with faults, for as long as one likes: programs that record in threads, tasks, generators and bursts, while
senders, programs and the server are killed. In the end every trace whose root had ended is at the server, once and whole,
and nothing is left behind.

    python tests/support/soak.py MINUTES

Prints its figures, and writes nothing but what it removes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.processes import memory_of, module_path
from support.servers import MlflowServer
from support.spools import assert_sender_ends, base_environment, clean_up, rings_of, sender_pids
from support.waiting import wait_until

KINDS = ("threads", "tasks", "generators", "bursts")
FAULTS = ("sender", "program", "server", "program and sender")
_MEGABYTES = 1 << 20
#: Of a sender, and of a program, at any time.
MOST_BYTES = 120 * _MEGABYTES
_ASKED_AT_ONCE = 500


class Traces:
    """Those that programs have noted, and which of them the server has.

    It reads the server's database: MLflow's API reads some hundred traces a second.
    """

    def __init__(self, folder: Path, server: MlflowServer):
        self._folder, self._server = folder, server
        self._read: dict[Path, int] = {}
        self._lock = threading.Lock()
        self.noted: dict[str, int] = {}  # their spans
        self.waiting: dict[str, float] = {}  # when they ended
        self.lags: list[float] = []

    def look(self) -> bool:
        """What has ended and what has arrived since; whether all has."""
        with self._lock:
            for file in self._folder.glob("*.noted"):
                text = file.read_bytes()[self._read.get(file, 0) :]
                self._read[file] = self._read.get(file, 0) + len(text)
                for line in text.decode().splitlines():
                    trace_id, spans, ended = line.split()
                    self.noted[trace_id], self.waiting[trace_id] = int(spans), float(ended)
            for trace_id, spans, _ in self._stored(list(self.waiting)):
                if spans == self.noted[trace_id]:
                    self.lags.append(time.monotonic() - self.waiting.pop(trace_id))
            return not self.waiting

    def wrong(self) -> list[tuple[str, int, int]]:
        """Traces whose spans, or the sum of whose tokens, are not as they were recorded."""
        stored = {row[0]: row for row in self._stored(list(self.noted))}
        return [
            stored.get(trace_id, (trace_id, 0, 0))
            for trace_id, spans in self.noted.items()
            if stored.get(trace_id) != (trace_id, spans, 11)
        ]

    def _stored(self, ids: list[str]) -> list[tuple[str, int, int]]:
        """Of those that have ended: how many spans and how many tokens."""
        found: list[tuple[str, int, int]] = []
        uri = f"file:{self._server.folder}/server.db?mode=ro"
        # There is no table yet, or the server has just been killed.
        with contextlib.suppress(sqlite3.OperationalError):
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
                for begin in range(0, len(ids), _ASKED_AT_ONCE):
                    some = ids[begin : begin + _ASKED_AT_ONCE]
                    found += database.execute(_STORED.format(",".join("?" * len(some))), some)
        return found


_STORED = (
    "SELECT request_id, (SELECT count(*) FROM spans WHERE trace_id = request_id), total_tokens "
    "FROM trace_info WHERE status = 'OK' AND request_id IN ({})"
)


class Soak:
    """One run.

    Args:
        folder: Where all of it lies.
        seconds: For which programs record.
    """

    def __init__(self, folder: Path, seconds: float, chance: random.Random):
        self._folder, self._seconds, self._chance = folder, seconds, chance
        self._spool = folder / "spool"
        self._spool.mkdir()
        self._server = MlflowServer(folder)
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self._started = itertools.count()
        self._ended = threading.Event()
        self._traces = Traces(folder, self._server)
        self.faults: Counter[str] = Counter()
        self.program_bytes = self.sender_bytes = self.memory_bytes = 0

    def run(self) -> dict[str, object]:
        """The figures, once all has arrived.

        Raises:
            AssertionError: something is lost, is there twice, is left behind, or needs more memory than it may.
        """
        watcher = threading.Thread(target=self._watch)
        try:
            self._server.start()
            began = time.monotonic()
            for kind in KINDS:
                self._start(kind)
            watcher.start()
            self._make_faults(began + self._seconds)
            recorded_for = time.monotonic() - began
            for program in self._programs.values():
                program.stdin.close()
            for kind, program in self._programs.items():
                assert program.wait() == 0, (self._folder / f"{kind}.said").read_text()[-4000:]
            # What a killed sender has left waits for the next program of that destination.
            self._start("tasks").stdin.close()
            wait_until(self._traces.look, 300 + self._seconds, "the arrival of all")
            took = time.monotonic() - began
            self._assert_nothing_is_left()
        finally:
            self._ended.set()
            if watcher.ident is not None:
                watcher.join()
            self._end_all()
        figures = self._figures(recorded_for, took)
        assert self.sender_bytes < MOST_BYTES, figures
        assert self.program_bytes < MOST_BYTES, figures
        return figures

    def _start(self, kind: str) -> subprocess.Popen[bytes]:
        noted = self._folder / f"{next(self._started)}-{kind}.noted"
        with (self._folder / f"{kind}.said").open("ab") as said:
            self._programs[kind] = subprocess.Popen(
                [sys.executable, "-m", "programs.soak", kind, str(noted)],
                stdin=subprocess.PIPE,
                stderr=said,
                env={
                    **os.environ,
                    **base_environment(self._spool),
                    "MLFLOW_FASTTRACE_EXIT_TIMEOUT": "5",
                    "MLFLOW_TRACKING_URI": self._server.uri,
                    "MLFLOW_EXPERIMENT_NAME": "soak",
                    "PYTHONPATH": module_path(),
                },
            )
        return self._programs[kind]

    def _make_faults(self, until: float) -> None:
        """Each fault in its turn; the pauses between them are random."""
        pause = min(8.0, self._seconds / 6)
        for fault in itertools.cycle(FAULTS):
            self._ended.wait(max(0.0, min(pause, until - time.monotonic())))
            if time.monotonic() >= until:
                return
            self.faults[fault] += 1
            if "program" in fault:
                kind = self._chance.choice(KINDS)
                self._programs[kind].kill()
            if "sender" in fault:
                for pid in sender_pids(self._spool):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            if "program" in fault:
                self._programs[kind].wait()
                self._programs[kind].stdin.close()
                self._start(kind)
            if fault == "server":
                self._server.stop()
                self._ended.wait(self._chance.uniform(0.0, pause))
                self._server.start()
            pause = self._chance.uniform(0.5, min(25.0, self._seconds / 4))

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            self._traces.look()
            self.memory_bytes = max(self.memory_bytes, self._in_memory())
            for pid in sender_pids(self._spool):
                self.sender_bytes = max(self.sender_bytes, _peak(pid))
            for program in list(self._programs.values()):
                self.program_bytes = max(self.program_bytes, _peak(program.pid))

    def _in_memory(self) -> int:
        """What programs have in shared memory, in bytes."""
        size = 0
        for folder in rings_of(self._spool):
            for file in folder.glob("*"):
                with contextlib.suppress(OSError):  # it has just been removed
                    size += file.stat().st_blocks * 512
        return size

    def _assert_nothing_is_left(self) -> None:
        assert self._traces.wrong() == []
        assert_sender_ends(self._spool)
        left = [*self._spool.glob("*/*.seg"), *self._spool.glob("*/refused-*")]
        assert left + [*self._spool.glob("*/*.damaged")] == []
        assert self._in_memory() == 0

    def _end_all(self) -> None:
        for program in self._programs.values():
            program.kill()
            program.communicate()
        self._server.stop()
        clean_up(self._spool)

    def _figures(self, recorded_for: float, took: float) -> dict[str, object]:
        lags = sorted(self._traces.lags)
        return {
            "recorded for, s": round(recorded_for),
            "until all had arrived, s": round(took),
            "traces": len(self._traces.noted),
            "spans": sum(self._traces.noted.values()),
            **{f"faults: {fault}": self.faults[fault] for fault in FAULTS},
            "a program's peak, MB": round(self.program_bytes / _MEGABYTES),
            "a sender's peak, MB": round(self.sender_bytes / _MEGABYTES),
            "most in /dev/shm, MB": round(self.memory_bytes / _MEGABYTES, 1),
            "until a trace has arrived, median, s": round(lags[len(lags) // 2], 1),
            "the same, p99, s": round(lags[int(len(lags) * 0.99)], 1),
            "the same, the longest, s": round(lags[-1], 1),
        }


def _peak(pid: int) -> int:
    """The most memory that a process has had, in bytes; 0 where it has ended."""
    with contextlib.suppress(OSError, IndexError):
        return memory_of(pid, "VmHWM")
    return 0


def soak(seconds: float) -> dict[str, object]:
    """Programs record for so long, and faults happen; the figures.

    Raises:
        AssertionError: as ``Soak.run``.
    """
    with tempfile.TemporaryDirectory(prefix="mlflow-fasttrace-soak-") as folder:
        return Soak(Path(folder), seconds, random.Random("soak")).run()


if __name__ == "__main__":
    for name, figure in soak(float(sys.argv[1]) * 60).items():
        print(f"{name:<42} {figure}")
