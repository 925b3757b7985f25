"""One sender for a spool: replaced when it dies or is of an older release; forks of every kind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base.version import VERSION
from mlflow_fasttrace._internal.recording import sender_process, supervisor
from mlflow_fasttrace._internal.recording.rings import Ring
from mlflow_fasttrace._internal.spool.files import new_segment_path
from mlflow_fasttrace._internal.spool.folder import spool_for
from mlflow_fasttrace._internal.spool.lock import Lock
from support.processes import memory_of
from support.spools import assert_sender_ends, is_alive, sender_pids
from support.texts import KILLS_ITSELF, assert_all_there, program_text, wait_for_file
from support.traces import traces_of
from support.waiting import wait_until

WAITS = """
from pathlib import Path
Path("waiting").touch()
while not os.path.exists("go"):
    time.sleep(0.01)
"""


#: One sender, and not a second one that is just starting.
ONE_SENDER = """
from mlflow_fasttrace._internal.recording.rings import rings
from mlflow_fasttrace._internal.spool.lock import sender_of
(ring,) = rings.in_use.values()
while sender_of(ring.spool) is None:
    time.sleep(0.01)
mlflow.flush_trace_async_logging()
"""

#: Kills the sender that ONE_SENDER has waited for.
KILLS_SENDER = """
os.kill(sender_of(ring.spool)[0], 9)
deadline = time.monotonic() + 600
while sender_of(ring.spool) is not None:
    time.sleep(0.001)
"""

#: Records from a number on until a new sender is there; ``n`` is the next number then.
UNTIL_REPLACED = """
while sender_of(ring.spool) is None:
    root(n)
    n += 1
    time.sleep(0.1)
    assert time.monotonic() < deadline, "nobody saw that the sender is gone"
"""


@pytest.mark.parametrize("form", ["process", "thread"])
def test_a_server_is_sent_to_without_mlflow(server, own_spool, run_program, form):
    """Its import costs a hundred megabytes, and a second of the processor."""
    name = f"without MLflow, {form}"
    then = """
mlflow.flush_trace_async_logging()
print("mlflow" in sys.modules, file=sys.stderr)
"""
    code = program_text(server.uri, name, 5, then, before="import sys")
    program = run_program(code, MLFLOW_FASTTRACE_SENDER=form)
    assert program.err.splitlines() == ["False"]
    assert_all_there(server.uri, name, 5)
    if form == "process":
        (pid,) = sender_pids(own_spool)
        assert memory_of(pid, "VmHWM") < 60e6, "megabytes of an idle sender"


def test_a_killed_sender_is_replaced_while_the_program_runs(server, own_spool, run_program):
    then = f"{ONE_SENDER}{KILLS_SENDER}n = 20{UNTIL_REPLACED}print(n, flush=True){KILLS_ITSELF}"
    process = run_program(program_text(server.uri, "replaced", 20, then))
    assert process.out, process.err
    assert_all_there(server.uri, "replaced", int(process.out))
    assert_sender_ends(own_spool)


OLDER = """
import fcntl, os, signal, sys, time
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.pwrite(lock, f"{os.getpid()} 0.0.1{sys.argv[2]}\\n".encode(), 0)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("holds", flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def sender_of_an_older_release(uri: str, stays: bool):
    """A process that holds the lock of a tracking URI's spool.

    Args:
        stays: Whether its lock says that nobody may ask it to end, as a program's own thread does.
    """
    spool = spool_for(uri)
    spool.make_folder()
    stays_there = " stays" if stays else ""
    command = [sys.executable, "-c", OLDER, spool.lock, stays_there, spool.folder, spool.rings]
    older = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert older.stdout.readline() == "holds\n"
        yield older
    finally:
        older.kill()
        older.communicate()


def test_a_sender_of_an_older_release_gives_way(server, own_spool, run_program):
    with sender_of_an_older_release(server.uri, stays=False) as older:
        process = run_program(program_text(server.uri, "upgraded", 5))
        assert process.returncode == 0, process.err
        assert older.wait() in (0, -15)
        assert_all_there(server.uri, "upgraded", 5)
        (pid,) = sender_pids(own_spool)
        assert pid != older.pid


def test_a_program_that_delivers_itself_is_not_told_to_end(own_spool, run_program):
    """The older release's sender is a thread of a program."""
    uri = "http://127.0.0.1:9"
    with sender_of_an_older_release(uri, stays=True) as older:
        process = run_program(program_text(uri, "upgraded", 5), MLFLOW_FASTTRACE_EXIT_TIMEOUT="0")
        assert process.returncode == 0, process.err
        assert older.poll() is None


def test_a_process_that_is_no_sender_is_left_alone(own_spool, run_program):
    """The lock's holder has its number in another container."""
    uri = "http://127.0.0.1:9"
    spool = spool_for(uri)
    spool.make_folder()
    command = [sys.executable, "-c", OLDER, spool.lock, "", "of somebody else"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "holds\n"
        process = run_program(program_text(uri, "beside", 5), MLFLOW_FASTTRACE_EXIT_TIMEOUT="0")
        assert process.returncode == 0, process.err
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("lacks", ["os.pidfd_open", "signal.pidfd_send_signal", "nothing"])
def test_a_sender_is_asked_to_end_where_python_lacks_pidfd(lacks, own_spool, monkeypatch):
    """As builds against old headers do."""
    if lacks == "os.pidfd_open":
        monkeypatch.delattr(sender_process.os, "pidfd_open")
    if lacks == "signal.pidfd_send_signal":
        monkeypatch.delattr(sender_process.signal, "pidfd_send_signal")
    uri = "http://127.0.0.1:9"
    with sender_of_an_older_release(uri, stays=False) as older:
        assert sender_process.signal_sender(older.pid, spool_for(uri), signal.SIGTERM)
        assert older.wait() in (0, -15)


#: Its sender stands still once it has delivered the first trace.
SENDER_STANDS_STILL = """
import signal
from mlflow_fasttrace._internal.recording import silence
from mlflow_fasttrace._internal.recording.flush import flush
from mlflow_fasttrace._internal.recording.rings import rings
from mlflow_fasttrace._internal.spool.lock import sender_of
silence._SILENT_SECONDS = silence._LAST_SECONDS = 1.0
root(0)
assert flush()
(ring,) = rings
stopped = sender_of(ring.spool).pid
os.kill(stopped, signal.SIGSTOP)
root(1)
assert flush(60.0)
assert sender_of(ring.spool).pid != stopped
"""


def test_a_sender_that_does_nothing_is_replaced(server, own_spool, run_program):
    """It is stopped: SIGTERM does not end it either."""
    process = run_program(
        program_text(server.uri, "stands still", 0, SENDER_STANDS_STILL),
        MLFLOW_HTTP_REQUEST_TIMEOUT="1",
    )
    assert process.returncode == 0, process.err
    (line,) = process.err.splitlines()
    assert "has given no sign of life for" in line
    assert_all_there(server.uri, "stands still", 2)


def test_a_program_that_stood_still_itself_gives_its_sender_time(own_spool, monkeypatch, caplog):
    """The container was frozen, say: for an hour neither of them did anything."""
    clock = [1000.0]
    monkeypatch.setattr(supervisor.clock, "monotonic", lambda: clock[0])
    uri = "http://127.0.0.1:9"
    spool = spool_for(uri)
    spool.make_folder()
    spool.make_rings()
    writer = _core.RingWriter(f"{spool.rings}/1-00000000.ring", 64 << 10, spool.folder + "/spill")
    ring = Ring(spool, uri, writer, f"{spool.rings}/1-00000000.ring", spool.credentials)
    looks = supervisor.Supervisor()
    with sender_of_an_older_release(uri, stays=False) as sender:
        lock = Path(spool.lock)
        lock.write_text(lock.read_text().replace(" 0.0.1", f" {VERSION}"))
        looks.ensure_sender(ring)
        for _ in range(3):
            clock[0] += 3600
            looks.ensure_sender(ring)
        assert sender.poll() is None
        assert caplog.messages == []
        for _ in range(100):
            clock[0] += 3
            looks.ensure_sender(ring)
        assert sender.wait() in (0, -15, -9)


#: Five senders are killed as soon as they have their lock, and none of them is seen.
KILLED_AGAIN_AND_AGAIN = """
from unittest import mock
from mlflow_fasttrace._internal.recording import supervisor as module
from mlflow_fasttrace._internal.recording.rings import rings
from mlflow_fasttrace._internal.spool.lock import named_in, sender_of
supervisor = module.supervisor
root(-1)
(ring,) = rings.in_use.values()
deadline = time.monotonic() + 600
while not named_in(ring.spool):
    assert time.monotonic() < deadline, "no sender has begun"
    time.sleep(0.01)
with mock.patch.multiple(
    module, STARTING_SECONDS=0.05, STARTS_SECONDS=0.1, sender_of=lambda spool: None
):
    killed = [0]
    while len(killed) < 6 and time.monotonic() < deadline:
        if (pid := named_in(ring.spool)) not in killed:
            os.kill(pid, 9)
            killed.append(pid)
        supervisor.ensure_sender(ring)
        time.sleep(0.01)
print(len(killed), supervisor._threads, file=sys.stderr)
"""


def test_a_sender_that_is_killed_again_and_again_is_started_again(server, own_spool, run_program):
    """As by the kernel, where there is too little memory: a thread of the program would have it ended."""
    before = "import sys\n" + KILLED_AGAIN_AND_AGAIN
    then = "mlflow.flush_trace_async_logging()"
    program = run_program(program_text(server.uri, "again and again", 5, then, before=before))
    assert program.returncode == 0, program.err
    assert program.err.splitlines() == ["6 {}"]

    def all_there():
        found = traces_of(server.uri, "again and again")
        return found if len(found) >= 6 and all(trace.data.spans for trace in found) else None

    found = wait_until(all_there, 30, "the traces")
    assert sorted(trace.data.spans[0].inputs["n"] for trace in found) == [-1, 0, 1, 2, 3, 4]
    (pid,) = sender_pids(own_spool)
    if is_alive(pid):
        assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) >= 500


OPEN_WHEN_KILLED = f"""
around = mlflow.start_span_no_context("open")
mlflow.start_span_no_context("early", parent_span=around).end()
{ONE_SENDER}{KILLS_SENDER}
mlflow.start_span_no_context("late", parent_span=around).end()
{KILLS_ITSELF}
"""


def test_spans_arrive_whose_record_went_with_a_killed_sender(server, own_spool, run_program):
    """The trace's record was delivered and released; program and sender die before there is another."""
    process = run_program(program_text(server.uri, "record gone", 0, OPEN_WHEN_KILLED))
    assert process.returncode == -9, process.err
    process = run_program(program_text(server.uri, "starts the sender", 1))
    assert process.returncode == 0, process.err

    def whole():
        found = traces_of(server.uri, "record gone")
        return found if found and len(found[0].data.spans) == 2 else None

    (trace,) = wait_until(whole, 30, "both spans")
    assert [span.name for span in trace.data.spans] == ["early", "late"]
    assert_sender_ends(own_spool)
    assert not list(own_spool.glob("*/*.seg"))


# ---- the lock ----

LOOKS = """
import sys
from pathlib import Path
from mlflow_fasttrace._internal.spool.folder import Spool
from mlflow_fasttrace._internal.spool.lock import sender_of
spool = Spool("x", sys.argv[1], sys.argv[1])
print("looks", flush=True)
while True:
    sender_of(spool)
"""


def test_a_look_at_the_lock_does_not_stop_a_sender(tmp_path):
    path = str(tmp_path / "sender.lock")
    looking = [
        subprocess.Popen(
            [sys.executable, "-c", LOOKS, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for process in looking:
            assert process.stdout.readline() == "looks\n"
        for _ in range(500):
            lock = Lock(path, stays=False)
            assert lock.take()
            other = Lock(path, stays=True)
            assert not other.take(), "one at a time"
            other.close()
            lock.release()
            lock.close()
    finally:
        for process in looking:
            process.kill()
            process.communicate()


# ---- the clock ----

#: A library; the clock of a process that loads it is wrong by as many seconds as a file says.
CLOCK = """
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    long result = syscall(SYS_clock_gettime, clock, now), seconds = 0;
    FILE *file = clock == CLOCK_REALTIME ? fopen("OFFSET", "r") : NULL;
    if (file != NULL) {
        if (fscanf(file, "%ld", &seconds) == 1) {
            now->tv_sec += seconds;
        }
        fclose(file);
    }
    return (int)result;
}
"""


@pytest.fixture
def clock(tmp_path):
    """A library for LD_PRELOAD, and the file that sets the clock of processes that have loaded it."""
    offset = tmp_path / "offset"
    (tmp_path / "clock.c").write_text(CLOCK.replace("OFFSET", str(offset)))
    library = tmp_path / "clock.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(tmp_path / "clock.c")]
    subprocess.run(command, check=True)
    return str(library), str(offset)


CLOCK_SET = f"""
root(10)  # finds the sender attending, and knows it for some seconds
before = time.time()
with mlflow.start_span("around"):
    with open({{offset!r}}, "w") as file:
        file.write("{{seconds}}")
assert abs(time.time() - before - {{seconds}}) < 100
{KILLS_SENDER}
n = 11
{UNTIL_REPLACED}
for n in range(n, n + 50):
    root(n)
mlflow.flush_trace_async_logging()
print(n + 1)
"""


@pytest.mark.parametrize("seconds", [-7200, 7200])
def test_a_killed_sender_is_replaced_though_the_clock_is_set(
    server, own_spool, run_program, clock, seconds
):
    """The clock is set, back or forward, under a program and its sender."""
    library, offset = clock
    experiment = f"clock set by {seconds} s"
    then = ONE_SENDER + CLOCK_SET.format(offset=offset, seconds=seconds)
    process = run_program(program_text(server.uri, experiment, 10, then), LD_PRELOAD=library)
    assert process.returncode == 0, process.err
    assert process.err == ""
    found = traces_of(server.uri, experiment)
    assert len(found) == int(process.out) + 1
    (around,) = [trace for trace in found if trace.data.spans[0].name == "around"]
    assert around.info.execution_duration >= 0
    (sender,) = sender_pids(own_spool)
    os.kill(sender, 9)


SPILLS = """
import json, os, sys
import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core

folder, offset = sys.argv[1:]
prefix = os.path.join(folder, "missing", "deep", "spill-1-00000000")
writer = _core.RingWriter(os.path.join(folder, "1-00000000.ring"), 64 << 10, prefix)
_core.set_destination(writer, {"uri": "x", "experiment": {"id": "0"}})

def spill():
    with mlflow.start_span("large") as span:
        span.set_inputs("x" * 100_000)

with mlflow.start_span("around"):
    spill()
    before = writer.progress()
    with open(offset, "w") as file:
        file.write("-7200")
    os.makedirs(os.path.dirname(prefix))
    import time
    deadline = time.monotonic() + 600
    while writer.progress()[3] == before[3] and time.monotonic() < deadline:
        spill()
        time.sleep(0.05)
print(json.dumps([before[3], writer.progress()[3]]))
"""


def test_spilling_is_tried_again_with_the_clock_set_back(tmp_path, clock):
    library, offset = clock
    result = subprocess.run(
        [sys.executable, "-c", SPILLS, str(tmp_path), offset],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LD_PRELOAD": library},
    )
    before, after = json.loads(result.stdout)
    assert (before, after > 0) == (0, True), result.stderr


def test_names_of_segments_follow_each_other_whatever_the_clock_says(tmp_path):
    later = f"packed-{2 * 10**18:020d}-000001.seg"
    (tmp_path / later).touch()
    (
        tmp_path / "packed-999999999999999999999999-000001.seg"
    ).touch()  # no time that a sender writes
    names = [later]
    for _ in range(3):
        path = new_segment_path(str(tmp_path))
        open(path, "x").close()
        names.append(os.path.basename(path))
    assert names == sorted(names)
    assert len({len(name.split("-")[1]) for name in names}) == 1


# ---- a sender that ends ----


def test_a_sender_that_is_told_to_end_leaves_the_rest(server, own_spool, run_program):
    """As when a container stops, by SIGTERM: what is not delivered stays where it is."""
    then = f"open('waiting', 'w').close()\n{wait_for_file('go')}"
    process = run_program(program_text("http://127.0.0.1:9", "told to end", 5, then), wait=False)
    wait_until((process.folder / "waiting").exists, 30, "the program's traces")
    wait_until(lambda: sender_pids(own_spool), 30, "the sender")
    (pid,) = sender_pids(own_spool)
    wait_until(lambda: list(own_spool.glob("*/*.seg")), 30, "segments")
    os.kill(pid, 15)
    wait_until(lambda: not is_alive(pid), 30, "the sender's end")
    assert list(own_spool.glob("*/*.seg"))
    (process.folder / "go").touch()
    process.finish()


FORKS_IN_C = """
import ctypes
child = ctypes.PyDLL(None).fork()
if child == 0:
    for n in range(10, 20):
        root(n)
    mlflow.flush_trace_async_logging()
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_child_forked_by_c_code_records_its_own_traces(server, own_spool, run_program):
    process = run_program(program_text(server.uri, "forked in C", 10, FORKS_IN_C))
    assert process.returncode == 0, process.err
    assert process.err == ""
    assert_all_there(server.uri, "forked in C", 20)


FORKS_INSIDE = """
with mlflow.start_span("around"):
    leaf(0)
    child = os.fork()
    if child == 0:
        leaf(1)
        os._exit(0)
    os.waitpid(child, 0)
    leaf(2)
"""


def test_a_child_forked_inside_of_a_trace_carries_it_on(server, own_spool, run_program):
    process = run_program(program_text(server.uri, "forked inside", 0, FORKS_INSIDE))
    assert process.returncode == 0, process.err
    assert process.err == ""

    def whole():
        found = traces_of(server.uri, "forked inside")
        return found if found and len(found[0].data.spans) == 4 else None

    (trace,) = wait_until(whole, 60, "the spans of both")
    root, *leaves = trace.data.spans
    assert root.name == "around"
    assert {leaf.parent_id for leaf in leaves} == {root.span_id}
    assert sorted(leaf.inputs["n"] for leaf in leaves) == [0, 1, 2]
    assert trace.info.state.value == "OK"


POOL = """
import multiprocessing

def work(n):
    root(n)

if __name__ == "__main__":
    with multiprocessing.get_context({method!r}).Pool(3) as pool:
        pool.map(work, range(30))
        pool.close()
        pool.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_all_of_a_multiprocessing_pool_arrives(server, own_spool, run_program, method):
    process = run_program(program_text(server.uri, method, 0, POOL.format(method=method)))
    assert process.returncode == 0, process.err
    assert process.err == ""
    assert_all_there(server.uri, method, 30)


FORK_STORM = """
children = []
for n in range({children}):
    child = os.fork()
    if child == 0:
        root(n)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("children", [30, pytest.param(200, marks=pytest.mark.long)])
def test_all_of_a_storm_of_forks_arrives(server, own_spool, run_program, children):
    """Every child ends at once, and waits for nothing; one sender finds what they left."""
    experiment = f"storm of {children}"
    code = program_text(server.uri, experiment, 0, FORK_STORM.format(children=children))
    process = run_program(code, MLFLOW_FASTTRACE_RING_BYTES=str(64 << 10))
    assert process.returncode == 0, process.err
    assert process.err == ""
    assert_all_there(server.uri, experiment, children)
    assert_sender_ends(own_spool)


MANY_THREADS = """
import contextvars, threading
with mlflow.start_span("around") as span:
    def work(n):
        for i in range({each}):
            leaf(n * {each} + i)
    threads = [threading.Thread(target=contextvars.copy_context().run, args=(work, n)) for n in range(64)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


def test_64_threads_record_one_trace(server, own_spool, run_program):
    process = run_program(
        program_text(server.uri, "threads on one", 0, MANY_THREADS.format(each=20))
    )
    assert process.returncode == 0, process.err

    def whole():
        found = traces_of(server.uri, "threads on one")
        return found if found and len(found[0].data.spans) == 64 * 20 + 1 else None

    (trace,) = wait_until(whole, 60, "all spans")
    root = next(span for span in trace.data.spans if span.parent_id is None)
    leaves = [span for span in trace.data.spans if span is not root]
    assert {leaf.parent_id for leaf in leaves} == {root.span_id}
    assert sorted(leaf.inputs["n"] for leaf in leaves) == list(range(64 * 20))


# ---- how a process ends ----

ENDS = {
    "sys.exit": "sys.exit(3)",
    "exception": "raise ValueError('unhandled')",
    "SIGTERM": "os.kill(os.getpid(), 15); time.sleep(60)",
    "os._exit": "os._exit(0)",
    "thread": """
import threading
def late():
    threading.main_thread().join()
    for n in range(10, 20):
        root(n)
threading.Thread(target=late).start()
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_all_arrives_however_a_process_ends(server, own_spool, run_program, end):
    run_program(program_text(server.uri, f"ends by {end}", 10, "\n" + ENDS[end]))
    assert_all_there(server.uri, f"ends by {end}", 20 if end == "thread" else 10)


@pytest.mark.parametrize("how", ["pass", "os.kill(os.getpid(), 9)"])
def test_open_traces_arrive_as_far_as_they_have_ended(server, own_spool, run_program, how):
    then = f"""
around = mlflow.start_span_no_context("open")
mlflow.start_span_no_context("ended", parent_span=around).end()
mlflow.start_span_no_context("open too", parent_span=around)
{how}
"""
    experiment = f"open at the end: {how}"
    run_program(program_text(server.uri, experiment, 0, then))
    (trace,) = wait_until(lambda: traces_of(server.uri, experiment), 60, "the trace")
    assert trace.info.state.value == "IN_PROGRESS"
    assert [span.name for span in trace.data.spans] == ["ended"]
