"""Nothing is lost under load: bursts, kills at any moment, a server that comes and goes, a backlog.

The long forms are those of docs/reliability.md, which has their figures; they print them (``-rP``).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from support.fault_proxy import FaultProxy, Reply
from support.servers import MlflowServer
from support.spools import sender_pids
from support.texts import program_text
from support.traces import experiment_id, traces_of
from support.waiting import free_port, wait_until

LONG = pytest.mark.long


def _rows(server: MlflowServer, experiment: str, query: str, *more: str) -> list[tuple]:
    """What the server's database answers about an experiment: MLflow's API reads some hundred traces
    a second. The query's first parameter is the experiment's id."""
    found = experiment_id(server.uri, experiment)
    uri = f"file:{server.folder}/server.db?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
        return database.execute(query, (found, *more)).fetchall()


def stored_spans(server: MlflowServer, experiment: str) -> list[tuple[str, str, dict]]:
    """Trace id, name and MLflow's dictionary of every span of an experiment."""
    query = "SELECT trace_id, name, content FROM spans WHERE experiment_id = ?"
    rows = _rows(server, experiment, query)
    return [(trace_id, name, json.loads(content)) for trace_id, name, content in rows]


def stored_traces(server: MlflowServer, experiment: str) -> Counter[str]:
    """How many traces of an experiment there are, by their state."""
    query = "SELECT status, count(*) FROM trace_info WHERE experiment_id = ? GROUP BY status"
    return Counter(dict(_rows(server, experiment, query)))


def stored_count(server: MlflowServer, experiment: str, name: str = "%") -> int:
    """How many spans of that name there are."""
    query = "SELECT count(*) FROM spans WHERE experiment_id = ? AND name LIKE ?"
    return _rows(server, experiment, query, name)[0][0]


def input_of(span: dict, name: str = "n"):
    return json.loads(span["attributes"]["mlflow.spanInputs"])[name]


#: For programs that watch their memory.
MEMORY = """
def memory_kb():
    fields = dict(line.split(":") for line in open("/proc/self/status"))
    return int(fields["VmRSS"].split()[0])
"""

#: Traces of ten spans in a tight loop; prints what it took and what memory it needed.
BURST = (
    MEMORY
    + """
import json

@mlflow.trace
def root(n):
    for i in range(9):
        began = now()
        leaf(n * 9 + i)
        times.append(now() - began)
    return n

now = time.perf_counter_ns
times = []
root(-1)
mlflow.flush_trace_async_logging()
idle = most = memory_kb()
times = [0] * ({traces} * 9)
times.clear()
began = now()
for n in range({traces}):
    root(n)
    if n % 100 == 0:
        most = max(most, memory_kb())
took = now() - began
most = max(most, memory_kb())
times.sort()
print(json.dumps({{
    "calls": len(times),
    "call_us": sum(times) / len(times) / 1000,
    "p999_us": times[int(len(times) * 0.999)] / 1000,
    "p9999_us": times[int(len(times) * 0.9999)] / 1000,
    "burst_s": took / 1e9,
    "memory_mb": (most - idle) / 1024,
}}), flush=True)
"""
)


@pytest.mark.parametrize("traces", [200, pytest.param(10_000, marks=LONG)])
def test_a_burst_arrives_whole(server, own_spool, run_program, traces):
    """Ten spans a trace, as fast as the program can, with a live server."""
    experiment = f"burst of {traces}"
    began = time.monotonic()
    process = run_program(program_text(server.uri, experiment, 0, BURST.format(traces=traces)))
    assert process.returncode == 0, process.err
    figures = json.loads(process.out)
    wait_until(
        lambda: stored_count(server, experiment) >= (traces + 1) * 10,
        60 + traces / 10,
        f"{traces * 10} spans",
    )
    wait_until(
        lambda: stored_traces(server, experiment) == {"OK": traces + 1}, 60, "the traces' ends"
    )
    figures["until_there_s"] = time.monotonic() - began
    print(json.dumps(figures))
    spans = stored_spans(server, experiment)
    inputs = Counter((name, input_of(span)) for _, name, span in spans)
    assert inputs == Counter(
        [("root", n) for n in range(-1, traces)] + [("leaf", n) for n in range(-9, traces * 9)]
    )
    # The list of times is the test's own: 8 bytes each and the integers.
    assert figures["memory_mb"] < 64


#: Counts what has ended in a file that outlives it, and is killed at some moment.
COUNTING = """
import mmap, os, sys
import mlflow_fasttrace as mlflow

counter = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 8)
mlflow.set_tracking_uri(sys.argv[2])
os.environ["MLFLOW_EXPERIMENT_NAME"] = sys.argv[3]

@mlflow.trace
def leaf(n, text):
    return n

@mlflow.trace
def root(n, text):
    for i in range(n, n + 30):
        leaf(i, text)
        counter[:] = (i + 1).to_bytes(8, "little")

texts = ["x" * size for size in (10, 300, 5000)]
for n in range(0, 1800, 30):
    root(n, texts[n // 30 % 3])
sys.stdin.read()
"""


#: The same of traces that cost something and get feedback; what it counts are traces.
ADDING_UP = """
import mmap, os, sys, time
import mlflow_fasttrace as mlflow

counter = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 8)
mlflow.set_tracking_uri(sys.argv[2])
os.environ["MLFLOW_EXPERIMENT_NAME"] = sys.argv[3]

@mlflow.trace(span_type="CHAT_MODEL")
def call(n):
    span = mlflow.get_current_active_span()
    usage = {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11}
    span.set_attribute("mlflow.chat.tokenUsage", usage)
    span.set_attribute("mlflow.llm.cost", {"input_cost": 0.1, "output_cost": 0.01, "total_cost": 0.11})

@mlflow.trace
def root(n):
    trace_id = mlflow.get_current_active_span().trace_id
    for i in range(4):
        call(n)
        mlflow.log_feedback(trace_id=trace_id, name=f"q{i}", value=float(n))
        if n % 3 == 0:
            time.sleep(0.05)

for n in range(12):
    root(n)
    counter[:] = (n + 1).to_bytes(8, "little")
sys.stdin.read()
"""


class Counting:
    """A program that is killed at some moment, with its sender, or only the sender."""

    code = COUNTING
    name = "counts"
    longest = 0.005  # seconds until it is killed

    def __init__(
        self, folder: Path, server: MlflowServer | FaultProxy, number: int, chance: random.Random
    ):
        self.experiment = f"{self.name} until it is killed, {number}"
        self.kills = chance.choice([("program",), ("sender",), ("program", "sender")])
        self.seconds = chance.uniform(0.0, self.longest)
        self.counter = folder / f"{number}.count"
        self.counter.write_bytes(bytes(8))
        script = folder / "counting.py"
        script.write_text(self.code)
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(self.counter), server.uri, self.experiment],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "MLFLOW_FASTTRACE_RING_BYTES": str(chance.choice([64 << 10, 4 << 20])),
                "MLFLOW_FASTTRACE_EXIT_TIMEOUT": "0",
                "MLFLOW_FASTTRACE_OPEN_TRACE_SECONDS": chance.choice(["0", "4"]),
            },
        )

    @classmethod
    def all_killed(
        cls,
        kills: int,
        first: int,
        folder: Path,
        server: MlflowServer | FaultProxy,
        spool: Path,
        chance: random.Random,
    ) -> list[Counting]:
        """Programs, one after another, numbered from the first, each of which is killed."""
        killed = []
        for number in range(first, first + kills):
            one = cls(folder, server, number, chance)
            one.kill(spool)
            killed.append(one)
        return killed

    @property
    def ended(self) -> int:
        return int.from_bytes(self.counter.read_bytes(), "little")

    def kill(self, spool: Path) -> None:
        # Import takes a while; the moments that matter begin with the first span.
        with self.counter.open("r+b") as file, mmap.mmap(file.fileno(), 8) as counter:
            while counter[:] == bytes(8):
                assert self.process.poll() is None, self.process.stderr.read()
        moment = time.monotonic() + self.seconds
        while time.monotonic() < moment:
            pass
        for whom in self.kills:
            pids = [self.process.pid] if whom == "program" else sender_pids(spool)
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.process.stdin.close()
        assert self.process.wait() == (-9 if "program" in self.kills else 0), (
            self.process.stderr.read()
        )
        self.process.stderr.close()


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=LONG)])
def test_all_that_ended_arrives_after_kills_at_any_moment(
    server, own_spool, run_program, tmp_path, kills
):
    """Program, sender or both are killed while the program records: every span that had ended is on the
    server, once, whole."""
    chance = random.Random(f"{kills} kills")
    killed = Counting.all_killed(kills, kills * 1000, tmp_path, server, own_spool, chance)
    # The next program's sender delivers what all of them left.
    last = f"after {kills} kills"
    process = run_program(program_text(server.uri, last, 0, BURST.format(traces=1)))
    assert process.returncode == 0, process.err
    spans = 0
    for one in killed:
        ended = one.ended

        def there(one=one, ended=ended):
            return stored_count(server, one.experiment, "leaf") >= ended

        wait_until(there, 120, f"{ended} spans of {one.experiment}, of which {one.kills} died")
        found = stored_spans(server, one.experiment)
        leaves = Counter(input_of(span) for _, name, span in found if name == "leaf")
        assert set(leaves) >= set(range(ended)), one.kills
        assert set(leaves.values()) == {1}, one.kills
        for _, _, span in found:
            n = input_of(span)
            assert len(input_of(span, "text")) == (10, 300, 5000)[n // 30 % 3]
        spans += len(found)
    assert not list(own_spool.glob("*/*.damaged"))
    assert not list(own_spool.glob("*/refused-*"))
    print(json.dumps({"kills": kills, "spans": spans}))


class AddingUp(Counting):
    code = ADDING_UP
    name = "adds up"
    longest = 1.0


#: Of a trace: its spans, tokens, cost and feedback.
AS_IT_SHOULD_BE = (("call",) * 4 + ("root",), 44, 0.44, ("q0", "q1", "q2", "q3"))


def sums_of(server: MlflowServer, experiment: str) -> tuple[Counter[int], list[tuple]]:
    """How often each trace has ended, by its number, and what they have and what the server has added up.

    What is known of an ended trace as a whole comes before its spans, so one may be read that has no root yet. It
    has no number then, and its sums are not as they should be."""
    numbers: Counter[int] = Counter()
    sums = []
    for trace in traces_of(server.uri, experiment):
        if trace.info.state.value != "OK":
            continue
        numbers.update(span.inputs["n"] for span in trace.data.spans if span.parent_id is None)
        cost, usage = trace.info.cost or {}, trace.info.token_usage or {}
        sums.append(
            (
                tuple(sorted(span.name for span in trace.data.spans)),
                usage.get("total_tokens"),
                round(cost.get("total_cost", 0.0), 6),
                tuple(sorted(assessment.name for assessment in trace.info.assessments)),
            )
        )
    return numbers, sums


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=LONG)])
def test_what_a_server_adds_up_is_right_though_answers_are_lost_and_everything_is_killed(
    server, own_spool, run_program, tmp_path, kills
):
    """Every tenth answer is lost after the server has taken the request. Of every trace that had ended there are
    all spans, once, its feedback, once, and the sums of its calls."""
    chance = random.Random(f"{kills} kills, lost answers")
    requests = itertools.count(1)

    def lose_answers(_request):
        return Reply(forward=True, drop=True) if next(requests) % 10 == 0 else None

    with FaultProxy(server.uri, lose_answers) as proxy:
        killed = AddingUp.all_killed(kills, kills * 2000, tmp_path, proxy, own_spool, chance)
        last = f"after {kills} kills and lost answers"
        process = run_program(program_text(proxy.uri, last, 1))
        assert process.returncode == 0, process.err
        traces = 0
        for one in killed:
            ended = one.ended

            def all_add_up(one=one, ended=ended):
                numbers, sums = sums_of(server, one.experiment)
                return len(numbers) >= ended and set(sums) <= {AS_IT_SHOULD_BE}

            with contextlib.suppress(TimeoutError, AssertionError):
                wait_until(all_add_up, 60, f"{ended} traces of {one.experiment}")
            numbers, sums = sums_of(server, one.experiment)
            assert set(sums) <= {AS_IT_SHOULD_BE}, one.kills
            assert set(numbers) >= set(range(ended)), one.kills
            assert set(numbers.values()) <= {1}, one.kills
            traces += len(sums)
    assert not list(own_spool.glob("*/*.damaged"))
    assert not list(own_spool.glob("*/refused-*"))
    print(json.dumps({"kills": kills, "traces": traces}))


class ComesAndGoes(threading.Thread):
    """A way to the server that is open for a second, and then shut for a second."""

    def __init__(self, server: MlflowServer):
        super().__init__()
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._server = server
        self._ended = threading.Event()
        self.openings = 0

    def run(self) -> None:
        while not self._ended.is_set():
            with FaultProxy(self._server.uri, port=self.port):
                self.openings += 1
                self._ended.wait(1.0)
            self._ended.wait(1.0)

    def end(self) -> None:
        self._ended.set()
        self.join()


STEADY = """
for n in range({traces}):
    root(n)
    time.sleep({pause})
"""


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=LONG)])
def test_a_server_that_comes_and_goes_gets_all(server, own_spool, run_program, seconds):
    experiment = f"comes and goes for {seconds} s"
    way = ComesAndGoes(server)
    way.start()
    try:
        traces = seconds * 20
        then = STEADY.format(traces=traces, pause=0.05)
        process = run_program(
            program_text(way.uri, experiment, 0, then), MLFLOW_FASTTRACE_EXIT_TIMEOUT="1"
        )
        assert process.returncode == 0, process.err
        wait_until(
            lambda: (
                experiment_id(server.uri, experiment)
                and stored_traces(server, experiment) == {"OK": traces}
                and stored_count(server, experiment) == traces * 2
            ),
            60 + traces / 4,
            f"{traces} traces",
        )
        assert way.openings > seconds / 3
    finally:
        way.end()
    inputs = Counter(input_of(span) for _, _, span in stored_spans(server, experiment))
    assert inputs == dict.fromkeys(range(traces), 2)


#: Traces of a hundred spans, which nobody takes.
BACKLOG = (
    MEMORY
    + """
import json

@mlflow.trace
def root(n):
    for i in range(99):
        leaf(n * 99 + i)

root(0)
idle = most = memory_kb()
for n in range(1, {traces}):
    root(n)
    if n % 100 == 0:
        most = max(most, memory_kb())
print(json.dumps((most - idle) / 1024))
"""
)


@pytest.mark.parametrize("spans", [5_000, pytest.param(1_000_000, marks=LONG)])
def test_a_backlog_is_bounded_and_arrives_whole(tmp_path, own_spool, run_program, spans):
    """The server is down all the while: the program's memory stays flat, the disk is bounded, and all
    of it is delivered later, by the command here, with progress shown."""
    server = MlflowServer(tmp_path)
    process = run_program(
        program_text(server.uri, "backlog", 0, BACKLOG.format(traces=spans // 100))
    )
    assert process.returncode == 0, process.err
    grown_mb = json.loads(process.out)
    held = sum(file.stat().st_size for file in own_spool.rglob("*") if file.is_file())
    assert grown_mb < 64
    assert held < 1 << 30
    for pid in sender_pids(own_spool):
        os.kill(pid, signal.SIGTERM)
    with server:
        began = time.monotonic()
        send = subprocess.run(
            [sys.executable, "-m", "mlflow_fasttrace", "send"],
            capture_output=True,
            text=True,
            env={**os.environ, "MLFLOW_TRACKING_URI": server.uri},
        )
        took = time.monotonic() - began
        assert send.returncode == 0, send.stdout + send.stderr
        assert f"{spans:,}" in send.stdout + send.stderr
        assert stored_traces(server, "backlog") == {"OK": spans // 100}
        assert stored_count(server, "backlog") == spans
        assert not list(own_spool.glob("*/*.seg"))
    print(json.dumps({"grown_mb": grown_mb, "on_disk_mb": held / (1 << 20), "sent_in_s": took}))


#: One of many processes that record at once; prints how long that took.
ONE_OF_MANY = """
import importlib, os, sys, time
mlflow = importlib.import_module(sys.argv[1])
mlflow.set_tracking_uri(sys.argv[2])
os.environ["MLFLOW_EXPERIMENT_NAME"] = sys.argv[3]
traces = int(sys.argv[4])

@mlflow.trace
def leaf(n):
    return n

@mlflow.trace
def root(n):
    for i in range(10):
        leaf(i)
    return n

root(-1)
mlflow.flush_trace_async_logging()
print("ready", flush=True)
sys.stdin.readline()
began = time.perf_counter()
for n in range(traces):
    root(n)
took = time.perf_counter() - began
mlflow.flush_trace_async_logging()
print(took, flush=True)
"""


def fleet(
    module: str, uri: str, folder: Path, processes: int, traces: int
) -> tuple[float, list[float]]:
    """Lets that many processes record at once. When they began, and for how many seconds each of
    them recorded."""
    script = folder / "one_of_many.py"
    script.write_text(ONE_OF_MANY)
    started = [
        subprocess.Popen(
            [sys.executable, str(script), module, uri, f"fleet {module}", str(traces)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MLFLOW_FASTTRACE_EXIT_TIMEOUT": "1"},
        )
        for _ in range(processes)
    ]
    try:
        for process in started:
            assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        for process in started:
            process.stdin.write("go\n")
            process.stdin.flush()
        return began, [float(process.communicate()[0]) for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("processes", "workers", "traces"), [(4, 2, 10), pytest.param(16, 4, 50, marks=LONG)]
)
def test_a_fleet_arrives_whole_by_one_sender(
    tmp_path, own_spool, postgres, processes, workers, traces
):
    """Many processes at once, one server of several workers on PostgreSQL; one sender. The long form
    also shows what MLflow takes for the same."""
    server = MlflowServer(tmp_path)
    server.store, server.workers = postgres.create(f"fleet_{processes}"), workers
    with server:
        figures = {"processes": processes, "spans": processes * traces * 11}
        for module in ("mlflow_fasttrace", "mlflow") if processes == 16 else ("mlflow_fasttrace",):
            expected = processes * (traces + 1)
            began, recorded = fleet(module, server.uri, tmp_path, processes, traces)

            def there(expected=expected, module=module):
                found = traces_of(server.uri, f"fleet {module}")
                whole = [trace for trace in found if len(trace.data.spans) == 11]
                return whole if len(whole) >= expected else None

            if module == "mlflow_fasttrace":
                found = wait_until(there, 300, f"{expected} traces")
                assert len(found) == expected
                assert len(sender_pids(own_spool)) == 1
            figures[module] = {
                "recorded_s": max(recorded),
                "until_there_s": time.monotonic() - began,
                "traces": len(traces_of(server.uri, f"fleet {module}")),
            }
        print(json.dumps(figures))
