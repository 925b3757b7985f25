"""One sender for a spool: replaced when it dies or is of an older release; forks of every kind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import traces_of, wait_until
from test_delivery import agent_code, assert_all_there, assert_sender_ends, sender_pids

WAITS = """
from pathlib import Path
Path("waiting").touch()
while not os.path.exists("go"):
    time.sleep(0.01)
"""


def test_a_killed_sender_is_replaced_while_the_agent_runs(server, own_spool, agent):
    then = """
from mlflow_fasttrace import _runtime
mlflow.flush_trace_async_logging()
(home,) = _runtime._homes.values()
os.kill(_runtime._sender_of(home.spool)[0], 9)
deadline = time.monotonic() + 60
while _runtime._sender_of(home.spool) is not None:
    time.sleep(0.001)
n = 20
while _runtime._sender_of(home.spool) is None:
    root(n)
    n += 1
    time.sleep(0.1)
    assert time.monotonic() < deadline
print(n)
os.kill(os.getpid(), 9)
"""
    process = agent(
        agent_code(server.uri, "replaced", 20, then).replace("print(n)", "print(n, flush=True)")
    )
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


def test_a_sender_of_an_older_release_gives_way(server, own_spool, agent, monkeypatch):
    from mlflow_fasttrace import _settings

    spool = _settings.spool_for(server.uri)
    spool.make_state()
    older = subprocess.Popen(
        [sys.executable, "-c", OLDER, spool.lock, ""], stdout=subprocess.PIPE, text=True
    )
    try:
        assert older.stdout.readline() == "holds\n"
        process = agent(agent_code(server.uri, "upgraded", 5))
        assert process.returncode == 0, process.err
        assert older.wait(10) in (0, -15)
        assert_all_there(server.uri, "upgraded", 5)
        (pid,) = sender_pids(own_spool)
        assert pid != older.pid
    finally:
        older.kill()
        older.communicate()


def test_an_agent_that_delivers_itself_is_not_told_to_end(own_spool, agent):
    """The older release's sender is a thread of a program."""
    from mlflow_fasttrace import _settings

    spool = _settings.spool_for("http://127.0.0.1:9")
    spool.make_state()
    older = subprocess.Popen(
        [sys.executable, "-c", OLDER, spool.lock, " stays"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert older.stdout.readline() == "holds\n"
        process = agent(
            agent_code("http://127.0.0.1:9", "upgraded", 5), MLFLOW_FASTTRACE_EXIT_TIMEOUT="0"
        )
        assert process.returncode == 0, process.err
        assert older.poll() is None
    finally:
        older.kill()
        older.communicate()


def test_a_sender_that_is_told_to_end_leaves_the_rest(server, own_spool, agent):
    """SIGTERM, as when a container stops: what is not delivered stays where it is."""
    process = agent(agent_code("http://127.0.0.1:9", "told to end", 5, WAITS), wait=False)
    cwd = os.path.dirname(process.args[1])
    wait_until(lambda: os.path.exists(os.path.join(cwd, "waiting")), 30, "the agent's traces")
    wait_until(lambda: sender_pids(own_spool), 30, "the sender")
    (pid,) = sender_pids(own_spool)
    wait_until(lambda: list(own_spool.glob("*/*.seg")), 30, "segments")
    os.kill(pid, 15)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 30, "the sender's end")
    assert list(own_spool.glob("*/*.seg"))
    open(os.path.join(cwd, "go"), "w").close()
    process.communicate(timeout=30)


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


def test_fork_by_c_code(server, own_spool, agent):
    process = agent(agent_code(server.uri, "forked in C", 10, FORKS_IN_C))
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


def test_a_child_forked_inside_of_a_trace_carries_it_on(server, own_spool, agent):
    process = agent(agent_code(server.uri, "forked inside", 0, FORKS_INSIDE))
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
def test_multiprocessing(server, own_spool, agent, method):
    process = agent(agent_code(server.uri, method, 0, POOL.format(method=method)))
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
def test_fork_storm(server, own_spool, agent, children):
    """Every child ends at once, without a word; one sender finds what they left."""
    experiment = f"storm of {children}"
    code = agent_code(server.uri, experiment, 0, FORK_STORM.format(children=children))
    process = agent(code, MLFLOW_FASTTRACE_RING_BYTES=str(64 << 10))
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


def test_64_threads_on_one_trace(server, own_spool, agent):
    process = agent(agent_code(server.uri, "threads on one", 0, MANY_THREADS.format(each=20)))
    assert process.returncode == 0, process.err

    def whole():
        found = traces_of(server.uri, "threads on one")
        return found if found and len(found[0].data.spans) == 64 * 20 + 1 else None

    (trace,) = wait_until(whole, 60, "all spans")
    root = next(span for span in trace.data.spans if span.parent_id is None)
    leaves = [span for span in trace.data.spans if span is not root]
    assert {leaf.parent_id for leaf in leaves} == {root.span_id}
    assert sorted(leaf.inputs["n"] for leaf in leaves) == list(range(64 * 20))


KEEPS = """
import contextlib

@mlflow.trace
def fails():
    raise ValueError

with mlflow.start_span("has an error inside"):
    with contextlib.suppress(ValueError):
        fails()
mlflow.start_span_no_context("slow", start_time_ns=10**9).end(end_time_ns=3 * 10**9)
mlflow.start_span_no_context("not slow", start_time_ns=10**9).end(end_time_ns=2 * 10**9)
open_one = mlflow.start_span_no_context("open")
mlflow.start_span_no_context("part of it", parent_span=open_one).end()
began = time.monotonic()
mlflow.flush_trace_async_logging()
assert time.monotonic() - began < 20, "a flush does not wait for the end of traces"
"""


def test_tail_sampling(server, own_spool, agent):
    then = KEEPS + "\nopen_one.record_exception(ValueError('late'))\nopen_one.end()\n"
    process = agent(
        agent_code(server.uri, "kept", 50, then), MLFLOW_FASTTRACE_KEEP="error, slow>1.5s"
    )
    assert process.returncode == 0, process.err
    assert process.err == ""

    def kept():
        found = traces_of(server.uri, "kept")
        return found if len(found) >= 3 else None

    traces = {trace.data.spans[0].name: trace for trace in wait_until(kept, 60, "what is kept")}
    assert set(traces) == {"has an error inside", "slow", "open"}
    assert len(traces["open"].data.spans) == 2
    assert len(traces["has an error inside"].data.spans) == 2


def test_tail_sampling_by_share(server, own_spool, agent):
    process = agent(
        agent_code(server.uri, "share", 400),
        MLFLOW_FASTTRACE_KEEP="25%",
        MLFLOW_FASTTRACE_EXIT_TIMEOUT="60",
    )
    assert process.returncode == 0, process.err
    kept = len(traces_of(server.uri, "share"))
    assert 50 < kept < 150, kept


def test_tail_sampling_keeps_what_a_killed_agent_left_open(server, own_spool, agent):
    then = KEEPS + "\nos.kill(os.getpid(), 9)\n"
    process = agent(agent_code(server.uri, "left open", 5, then), MLFLOW_FASTTRACE_KEEP="error")
    assert process.returncode == -9, process.err

    def there():
        names = {
            span.name for trace in traces_of(server.uri, "left open") for span in trace.data.spans
        }
        return names if "part of it" in names else None

    assert wait_until(there, 60, "the open trace") == {"has an error inside", "fails", "part of it"}


def test_rules_that_cannot_be_read_keep_everything(server, own_spool, agent):
    process = agent(agent_code(server.uri, "odd rules", 3), MLFLOW_FASTTRACE_KEEP="errors,slow")
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "odd rules", 3)


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
def test_however_a_process_ends(server, own_spool, agent, end):
    agent(agent_code(server.uri, f"ends by {end}", 10, "\n" + ENDS[end]))
    assert_all_there(server.uri, f"ends by {end}", 20 if end == "thread" else 10)


@pytest.mark.parametrize("how", ["pass", "os.kill(os.getpid(), 9)"])
def test_open_traces_arrive_as_far_as_they_are(server, own_spool, agent, how):
    then = f"""
around = mlflow.start_span_no_context("open")
mlflow.start_span_no_context("ended", parent_span=around).end()
mlflow.start_span_no_context("open too", parent_span=around)
{how}
"""
    experiment = f"open at the end: {how}"
    agent(agent_code(server.uri, experiment, 0, then))
    (trace,) = wait_until(lambda: traces_of(server.uri, experiment), 60, "the trace")
    assert trace.info.state.value == "IN_PROGRESS"
    assert [span.name for span in trace.data.spans] == ["ended"]
