"""What ended is delivered: kills, a server that is away, a full ring, a forked child."""

from __future__ import annotations

import os
import signal
import time

import pytest
from support.traces import TRACES, MlflowServer, free_port, rings_of, traces_of, wait_until

AGENT = (
    """
import os, sys, time
import mlflow_fasttrace as mlflow

mlflow.set_tracking_uri({uri!r})
os.environ["MLFLOW_EXPERIMENT_NAME"] = {experiment!r}
"""
    + TRACES
)


def agent_code(uri: str, experiment: str, traces: int, then: str = "") -> str:
    return AGENT.format(uri=uri, experiment=experiment, traces=traces) + then


def assert_all_there(uri: str, experiment: str, traces: int) -> None:
    def there():
        found = traces_of(uri, experiment)
        return found if len(found) >= traces else None

    found = wait_until(there, 90, f"{traces} traces on the server")
    inputs = sorted(trace.data.spans[0].inputs["n"] for trace in found)
    assert inputs == list(range(traces))
    assert {len(trace.data.spans) for trace in found} == {2}
    assert {trace.info.state.value for trace in found} == {"OK"}


def sender_pids(spool) -> list[int]:
    return [
        int(lock.read_text().split()[0]) for lock in spool.glob("*/sender.lock") if lock.read_text()
    ]


def assert_sender_ends(spool) -> None:
    """With nothing left to do it goes, and takes the rings with it."""
    (pid,) = sender_pids(spool)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 30, "the sender's end")
    assert [list(rings.iterdir()) for rings in rings_of(spool)] == []


def assert_delivered_when_it_is_there(folder, port, spool, experiment, traces) -> None:
    """To a server that is started only now; then nothing is left to do."""
    server = MlflowServer(folder, port)
    server.start()
    try:
        assert_all_there(server.uri, experiment, traces)
        assert_sender_ends(spool)
    finally:
        server.stop()


KILL_AGENT = "\nos.kill(os.getpid(), 9)\n"


def test_killed_right_after_200_traces(server, own_spool, agent):
    process = agent(agent_code(server.uri, "killed", 200, KILL_AGENT))
    assert process.returncode == -signal.SIGKILL
    assert_all_there(server.uri, "killed", 200)
    assert_sender_ends(own_spool)


def test_killed_together_with_its_sender(server, own_spool, agent):
    kill_both = """
import glob
locks = []
while not locks:
    locks = glob.glob(os.environ["MLFLOW_FASTTRACE_SPOOL_DIR"] + "/*/sender.lock")
    locks = [open(path).read() for path in locks]
    locks = [content.split()[0] for content in locks if content]
os.kill(int(locks[0]), 9)
for n in range(100, 200):
    root(n)
os.kill(os.getpid(), 9)
"""
    process = agent(agent_code(server.uri, "both killed", 100, kill_both))
    assert process.returncode == -signal.SIGKILL, process.err
    # The next start for the same destination delivers what is left.
    process = agent(agent_code(server.uri, "next start", 1))
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "both killed", 200)
    assert_all_there(server.uri, "next start", 1)


def test_server_that_comes_later(tmp_path, own_spool, agent):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    code = agent_code(uri, "later", 50)
    started = time.monotonic()
    set_experiment = "mlflow.set_experiment('later')\n"
    process = agent(code.replace("for n in range", set_experiment + "for n in range"))
    assert process.returncode == 0, process.err
    assert time.monotonic() - started < 25, "the exit must not wait for the server"
    assert "does not answer" in process.err
    assert_delivered_when_it_is_there(tmp_path, port, own_spool, "later", 50)


def test_exit_time_with_unreachable_server(own_spool, agent):
    uri = f"http://127.0.0.1:{free_port()}"
    then = """
import atexit, time
began = time.monotonic()
from mlflow_fasttrace._internal.recording import runtime
runtime._at_exit()
took = time.monotonic() - began
print(took)
"""
    process = agent(agent_code(uri, "nowhere", 50, then), MLFLOW_FASTTRACE_EXIT_TIMEOUT="5")
    assert process.returncode == 0, process.err
    assert float(process.out) <= 5.5
    assert process.err.count("does not answer yet") == 1, process.err


def test_everything_fits_through_a_small_ring(server, own_spool, agent):
    """More than the ring holds, faster than it is drained: the rest goes by spill segments."""
    process = agent(
        agent_code(server.uri, "spilled", 500),
        MLFLOW_FASTTRACE_RING_BYTES=str(64 << 10),
    )
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "spilled", 500)
    wait_until(lambda: not list(own_spool.glob("*/*.seg")), 30, "segments are deleted")
    assert_sender_ends(own_spool)


def test_server_that_restarts(tmp_path, own_spool, agent):
    server = MlflowServer(tmp_path)
    server.start()
    try:
        then = """
mlflow.flush_trace_async_logging()
print("flushed", flush=True)
sys.stdin.readline()
for n in range(20, 40):
    root(n)
"""
        code = agent_code(server.uri, "restarted", 20, then).replace(
            "sys.stdin.readline()",
            "while not os.path.exists('go'): time.sleep(0.01)",
        )
        process = agent(code, wait=False)
        assert process.stdout.readline() == "flushed\n"
        server.stop()
        (tmp_path / "go").touch()
        process.communicate(timeout=30)
        assert process.returncode == 0
        server.start()
        assert_all_there(server.uri, "restarted", 40)
    finally:
        server.stop()


def test_forked_child_records_its_own(server, own_spool, agent):
    then = """
pid = os.fork()
for n in range(10, 20) if pid else range(20, 30):
    root(n)
if pid:
    assert os.waitpid(pid, 0)[1] == 0
else:
    mlflow.flush_trace_async_logging()
    os._exit(0)
"""
    process = agent(agent_code(server.uri, "forked", 10, then))
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "forked", 30)


@pytest.mark.parametrize("mode", ["thread", "none"])
def test_other_senders(server, own_spool, agent, mode):
    process = agent(
        agent_code(server.uri, f"by {mode}", 5),
        MLFLOW_FASTTRACE_SENDER=mode,
    )
    assert process.returncode == 0, process.err
    if mode == "thread":
        assert sender_pids(own_spool), "the thread holds the sender's lock"
    else:
        assert not sender_pids(own_spool)
        # Left in its ring until a sender comes.
        process = agent(agent_code(server.uri, "after none", 1))
        assert process.returncode == 0, process.err
    assert_all_there(server.uri, f"by {mode}", 5)


#: Where no sender process can be started, and the beginning of the line that says so.
NO_PROCESS = {
    "embedded": (
        """
open("embedding", "w").write("#!/bin/sh\\ntouch started-anew\\n")
os.chmod("embedding", 0o755)
sys.executable = os.path.abspath("embedding")
""",
        "embedding is no Python that could run a sender",
    ),
    "frozen": ("sys.frozen = True\n", "python"),
    "forbidden": (
        """
def forbid(event, arguments):
    if event == "subprocess.Popen":
        raise PermissionError(1, "no processes here")
sys.addaudithook(forbid)
""",
        "No sender process could be started ([Errno 1] no processes here)",
    ),
    "in vain": (
        """
from mlflow_fasttrace._internal.recording import runtime
open("sitecustomize.py", "w").write("import os\\n'MLFLOW_FASTTRACE_AGENT_PATH' in os.environ and os._exit(1)")
os.environ["PYTHONPATH"] = os.getcwd() + os.pathsep + os.environ.get("PYTHONPATH", "")
runtime._STARTS_SECONDS = 0.1
root(-1)
(home,) = runtime._homes.values()
for _ in range(3):
    runtime.ensure_sender(home)
    time.sleep(0.1)
""",
        "Sender processes end as soon as they begin",
    ),
}


@pytest.mark.parametrize("why", NO_PROCESS)
def test_a_thread_delivers_where_no_process_can(server, own_spool, agent, tmp_path, why):
    first, line = NO_PROCESS[why]
    code = agent_code(server.uri, f"no process: {why}", 5).replace("for n in", f"{first}\nfor n in")
    process = agent(code)
    assert process.returncode == 0, process.err
    assert process.err.startswith(line), process.err
    assert process.err.count("a thread of this program delivers") == 1, process.err
    assert sender_pids(own_spool) == [process.pid]
    found = wait_until(lambda: traces_of(server.uri, f"no process: {why}"), 30, "the traces")
    assert {trace.data.spans[0].inputs["n"] for trace in found} >= set(range(5))
    assert not (tmp_path / "started-anew").exists()


def test_embedded_store(tmp_path, own_spool, agent):
    uri = f"sqlite:///{tmp_path}/not there yet/own.db"
    process = agent(agent_code(uri, "embedded", 30))
    assert process.returncode == 0, process.err
    assert_all_there(uri, "embedded", 30)


def test_long_running_trace_arrives_before_its_end(server, own_spool, agent):
    code = (
        agent_code(server.uri, "long", 0)
        + """
with mlflow.start_span("root"):
    leaf(1)
    print("leaf ended", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.01)
"""
    )
    process = agent(code, wait=False)
    assert process.stdout.readline() == "leaf ended\n"
    (early,) = wait_until(lambda: traces_of(server.uri, "long"), 30, "the open trace")
    assert early.info.state.value == "IN_PROGRESS"
    assert [span.name for span in early.data.spans] == ["leaf"]
    open(os.path.join(process.args[1].rpartition("/")[0], "go"), "w").close()
    process.communicate(timeout=30)

    def ended():
        (trace,) = traces_of(server.uri, "long")
        return trace if trace.info.state.value == "OK" and len(trace.data.spans) == 2 else None

    trace = wait_until(ended, 30, "the end of the trace")
    assert {span.name for span in trace.data.spans} == {"root", "leaf"}


def test_folders_are_private(server, own_spool, agent):
    process = agent(agent_code(server.uri, "private", 1))
    assert process.returncode == 0, process.err
    for folder in own_spool.iterdir():
        assert folder.stat().st_mode & 0o777 == 0o700
        for file in folder.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600, file


def test_many_threads_start_at_once(server, own_spool, agent):
    """The first root makes the ring; roots that other threads start meanwhile are not lost."""
    code = (
        agent_code(server.uri, "threads", 0)
        + """
import threading
gate = threading.Barrier(20)
def work(n):
    gate.wait()
    root(n)
threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    )
    process = agent(code)
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "threads", 20)


def test_agent_has_no_children(server, own_spool, agent):
    then = """
children = open(f"/proc/self/task/{os.getpid()}/children").read()
assert children == "", children
"""
    process = agent(agent_code(server.uri, "children", 1, then))
    assert process.returncode == 0, process.err


def test_modules_beside_the_agent_do_not_reach_the_sender(server, own_spool, agent, tmp_path):
    for name in ("queue", "gzip", "random"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not the standard library')")
    code = agent_code(server.uri, "shadowed", 3)
    code = code.replace("import os, sys, time", "import os, sys, time\nsys.path.pop(0)")
    process = agent(code)
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "shadowed", 3)
