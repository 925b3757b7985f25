"""Every span that ended is delivered: after kills, with the server away, from a full ring, of forks."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow_fasttrace._internal.base.version import mlflow_version
from support.bench import record
from support.fault_proxy import FaultProxy, Reply, Request
from support.servers import MlflowServer
from support.spools import assert_sender_ends, refusals, sender_pids
from support.texts import (
    ENDS_LATER,
    KILLS_ITSELF,
    assert_all_there,
    assert_delivered_when_it_is_there,
    program_text,
    wait_for_file,
    without_origin,
)
from support.traces import traces_of
from support.waiting import Patience, free_port, refusing_port, wait_until


def test_all_arrives_of_a_program_killed_right_after_200_traces(server, own_spool, run_program):
    process = run_program(program_text(server.uri, "killed", 200, KILLS_ITSELF))
    assert process.returncode == -signal.SIGKILL
    assert_all_there(server.uri, "killed", 200)
    assert_sender_ends(own_spool)


def test_all_arrives_of_a_program_killed_together_with_its_sender(server, own_spool, run_program):
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
    process = run_program(program_text(server.uri, "both killed", 100, kill_both))
    assert process.returncode == -signal.SIGKILL, process.err
    # The next start for the same destination delivers what is left.
    process = run_program(program_text(server.uri, "next start", 1))
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "both killed", 200)
    assert_all_there(server.uri, "next start", 1)


@pytest.mark.long
def test_a_server_that_comes_later_gets_all(tmp_path, own_spool, run_program):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    patience = Patience(15)
    set_experiment = "mlflow.set_experiment('later')"
    process = run_program(program_text(uri, "later", 50, before=set_experiment))
    assert process.returncode == 0, process.err
    assert not patience.is_over(), "the exit must not wait for the server"
    assert "does not answer" in process.err
    assert_delivered_when_it_is_there(tmp_path, port, own_spool, "later", 50)


def test_an_exit_waits_no_longer_for_an_unreachable_server_than_is_set(own_spool, run_program):
    uri = f"http://127.0.0.1:{refusing_port()}"
    then = """
import atexit, time
began = time.monotonic()
from mlflow_fasttrace._internal.recording import flush
flush.at_exit()
took = time.monotonic() - began
print(took)
"""
    process = run_program(program_text(uri, "nowhere", 50, then), MLFLOW_FASTTRACE_EXIT_TIMEOUT="5")
    assert process.returncode == 0, process.err
    assert float(process.out) < 20
    assert process.err.count("does not answer yet") == 1, process.err


READS = """
from mlflow_fasttrace._internal.recording import flush
flush.FLUSH_SECONDS = 16.0
with mlflow.start_span("read") as span:
    pass
assert mlflow.get_trace(span.trace_id).info.trace_id == span.trace_id
"""


def test_who_reads_waits_as_long_as_a_slow_server_takes_traces(server, own_spool, run_program):
    """As in MLflow, where there is no limit. This gives up where nothing is delivered any more."""

    def slow(request: Request) -> Reply | None:
        time.sleep(0.25)
        return None

    with FaultProxy(server.uri, slow) as proxy:
        process = run_program(program_text(proxy.uri, "slow server", 320, READS))
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "slow server", 320)


@pytest.mark.long
def test_everything_fits_through_a_small_ring(server, own_spool, run_program):
    """What the ring cannot take before it is drained goes by spill segments."""
    process = run_program(
        program_text(server.uri, "spilled", 500),
        MLFLOW_FASTTRACE_RING_BYTES=str(64 << 10),
    )
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "spilled", 500)
    wait_until(lambda: not list(own_spool.glob("*/*.seg")), 30, "segments are deleted")
    assert_sender_ends(own_spool)


def test_a_server_that_restarts_gets_all(tmp_path, own_spool, run_program):
    server = MlflowServer(tmp_path)
    then = f"""
mlflow.flush_trace_async_logging()
print("flushed", flush=True)
{wait_for_file("go")}
for n in range(20, 40):
    root(n)
"""
    with server:
        process = run_program(program_text(server.uri, "restarted", 20, then), wait=False)
        assert process.stdout.readline() == "flushed\n"
        server.stop()
        (tmp_path / "go").touch()
        process.finish()
        assert process.returncode == 0, process.err
        server.start()
        assert_all_there(server.uri, "restarted", 40)


def test_a_forked_child_records_its_own_traces(server, own_spool, run_program):
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
    process = run_program(program_text(server.uri, "forked", 10, then))
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "forked", 30)


@pytest.mark.parametrize("mode", ["thread", "none"])
def test_all_arrives_by_a_thread_or_a_later_sender(server, own_spool, run_program, mode):
    process = run_program(
        program_text(server.uri, f"by {mode}", 5),
        MLFLOW_FASTTRACE_SENDER=mode,
    )
    assert process.returncode == 0, process.err
    if mode == "thread":
        assert sender_pids(own_spool), "the thread holds the sender's lock"
    else:
        assert not sender_pids(own_spool)
        # The traces are in their ring until a sender comes.
        process = run_program(program_text(server.uri, "after none", 1))
        assert process.returncode == 0, process.err
    assert_all_there(server.uri, f"by {mode}", 5)


#: Sender processes do this before all else, until a thread stands in for them.
SENDERS_DO = """
from pathlib import Path
from mlflow_fasttrace._internal.recording import supervisor
from mlflow_fasttrace._internal.recording.rings import rings
Path("sitecustomize.py").write_text(f'''
import os, time
def stand_still():
    while os.path.exists("/proc/{{os.getpid()}}"):
        time.sleep(0.01)
if "MLFLOW_FASTTRACE_AGENT_PATH" in os.environ:
    {}
''')
os.environ["PYTHONPATH"] = os.getcwd() + os.pathsep + os.environ.get("PYTHONPATH", "")
supervisor.STARTS_SECONDS = 0.1
supervisor.STARTING_SECONDS = 0.05
supervisor.BEGINS_SECONDS = 1.0
root(-1)
(ring,) = rings.in_use.values()
deadline = time.monotonic() + 600
while not supervisor.supervisor._threads:
    assert time.monotonic() < deadline
    supervisor.supervisor.ensure_sender(ring)
    time.sleep(0.01)
"""

#: What makes it impossible to start a sender process, and the beginning of the line that says so.
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
        SENDERS_DO.format("os._exit(1)"),
        "Sender processes end as soon as they begin",
    ),
    "for ever": (
        SENDERS_DO.format("stand_still(); os._exit(1)"),
        "No sender process has begun within 1 s",
    ),
}


@pytest.mark.parametrize("why", NO_PROCESS)
def test_a_thread_delivers_where_no_process_can(server, own_spool, run_program, tmp_path, why):
    first, line = NO_PROCESS[why]
    code = program_text(server.uri, f"no process: {why}", 5, before=first)
    process = run_program(code)
    assert process.returncode == 0, process.err
    assert without_origin(process.err).startswith(line), process.err
    assert process.err.count("a thread of this program delivers") == 1, process.err
    assert sender_pids(own_spool) == [process.pid]

    def numbers():
        found = traces_of(server.uri, f"no process: {why}")
        return {span.inputs["n"] for trace in found for span in trace.data.spans[:1]}

    wait_until(lambda: numbers() >= set(range(5)), 30, "the traces")
    assert not (tmp_path / "started-anew").exists()


WAITS_FOR_ONE = """
import mlflow_fasttrace.traces
from mlflow_fasttrace._internal.recording import flush

waited, own = set(), flush._Goal.is_reached

def is_reached(self):
    waited.add(self.ring.uri.partition(":")[0])
    return own(self)

flush._Goal.is_reached = is_reached
mlflow.set_tracking_uri("http://127.0.0.1:9")
root(-1)
mlflow.set_tracking_uri({uri!r})
root(0)
trace_id = mlflow.get_last_active_trace_id()
found = mlflow.get_trace(trace_id)
mlflow.log_feedback(trace_id=trace_id, name="good", value=True)
print(found.info.trace_id == trace_id, mlflow.MlflowClient().get_trace(trace_id).info.assessments[0].name)
print(waited)
mlflow.flush_trace_async_logging()
print(sorted(waited))
"""


def test_who_reads_a_trace_waits_for_no_other_destination(tmp_path, own_spool, run_program):
    code = WAITS_FOR_ONE.format(uri=f"sqlite:///{tmp_path}/own.db")
    program = run_program(
        program_text(None, None, 0, before=code), MLFLOW_FASTTRACE_EXIT_TIMEOUT="0"
    )
    assert program.returncode == 0, program.err
    assert program.out.splitlines() == ["True good", "{'sqlite'}", "['http', 'sqlite']"]
    assert "Not everything was delivered" not in program.err, "nobody waits for one that is away"


@pytest.mark.parametrize("then", ["os.chdir('../elsewhere')", "os.rmdir(os.getcwd())"])
def test_a_program_that_has_left_its_folder_waits_for_its_own_destination(
    tmp_path, own_spool, run_program, then
):
    """Its tracking URI is relative, and means another place now, or none."""
    code = f"""
from mlflow_fasttrace._internal.recording import flush
from mlflow_fasttrace._internal.recording.rings import rings
for folder in ("began", "elsewhere"):
    os.mkdir(folder)
os.environ["MLFLOW_FASTTRACE_SENDER"] = "none"
root(0)
os.chdir("began")
{then}
os.environ["MLFLOW_FASTTRACE_SENDER"] = "process"
(ring,) = rings
waited, own = [], flush._Goal.is_reached
flush._Goal.is_reached = lambda self: waited.append(self.ring is ring) or own(self)
flush.flush = lambda *args, own=flush.flush, **options: own(1.0, **options)
flush.before_reading()
print(waited[:1])
"""
    program = run_program(
        program_text(None, "left", 0, before=code),
        MLFLOW_TRACKING_URI="sqlite:///own.db",
        MLFLOW_FASTTRACE_EXIT_TIMEOUT="0",
    )
    assert program.returncode == 0, program.err
    assert program.out == "[True]\n", program.err


def test_a_program_hears_at_once_of_an_experiment_that_cannot_be(own_spool, run_program, server):
    name = os.fsdecode(b"caf\xe9")
    program = run_program(
        program_text(server.uri, None, 2, then="mlflow.flush_trace_async_logging()"),
        MLFLOW_EXPERIMENT_NAME=name,
    )
    assert program.returncode == 0, program.err
    (line,) = program.err.splitlines()
    assert "'caf\\udce9' is not UTF-8 and can be the name of no experiment" in line
    assert len(refusals(own_spool)) == 2


def test_a_database_file_is_made_and_gets_all(tmp_path, own_spool, run_program):
    uri = f"sqlite:///{tmp_path}/not there yet/own.db"
    process = run_program(program_text(uri, "embedded", 30))
    assert process.returncode == 0, process.err
    assert_all_there(uri, "embedded", 30)


def test_a_long_running_trace_arrives_before_its_end(server, own_spool, run_program):
    process = run_program(program_text(server.uri, "long", 0, ENDS_LATER), wait=False)
    assert process.stdout.readline() == "leaf ended\n"
    (early,) = wait_until(lambda: traces_of(server.uri, "long"), 30, "the open trace")
    assert early.info.state.value == "IN_PROGRESS"
    assert [span.name for span in early.data.spans] == ["leaf"]
    (process.folder / "go").touch()
    process.finish()

    def ended():
        (trace,) = traces_of(server.uri, "long")
        return trace if trace.info.state.value == "OK" and len(trace.data.spans) == 2 else None

    trace = wait_until(ended, 30, "the end of the trace")
    assert {span.name for span in trace.data.spans} == {"root", "leaf"}


def test_the_spool_is_private(server, own_spool, run_program):
    process = run_program(program_text(server.uri, "private", 1))
    assert process.returncode == 0, process.err
    for path in own_spool.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_no_root_is_lost_where_many_threads_start_at_once(server, own_spool, run_program):
    """The first root makes the ring; roots that other threads start meanwhile are not lost."""
    then = """
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
    process = run_program(program_text(server.uri, "threads", 0, then))
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "threads", 20)


def test_the_program_has_no_children(server, own_spool, run_program):
    """A program that waits for all its children does not wait for the sender."""
    then = """print(open(f"/proc/self/task/{os.getpid()}/children").read(), end="")"""
    process = run_program(program_text(server.uri, "children", 1, then))
    assert process.returncode == 0, process.err
    assert process.out == ""
    assert sender_pids(own_spool)


def test_modules_beside_the_program_do_not_reach_the_sender(
    server, own_spool, run_program, tmp_path
):
    for name in ("queue", "gzip", "random"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not the standard library')")
    code = program_text(server.uri, "shadowed", 3)
    code = code.replace("import os, sys, time", "import os, sys, time\nsys.path.pop(0)")
    process = run_program(code)
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "shadowed", 3)


@pytest.mark.parametrize("missing", ["a function", "a method"])
def test_an_mlflow_that_lacks_a_name_is_no_server_that_is_away(
    missing, bench, tmp_path, experiment, monkeypatch, caplog
):
    monkeypatch.delitem(
        sys.modules, "mlflow_fasttrace._internal.sender.store", raising=False
    )  # which would hold the function
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    bench.to(uri, experiment)
    record()
    with monkeypatch.context() as without:
        if missing == "a function":
            without.delattr("mlflow.store.db.utils.create_sqlalchemy_engine")
        else:
            for cls in SqlAlchemyStore, AbstractStore:
                without.delattr(cls, "log_spans")
        bench.run(until=lambda: "is not as it is known here" in caplog.text)
        assert f"MLflow {mlflow_version()} is not as it is known here" in caplog.text
        assert "what is recorded is kept until another release" in caplog.text
    bench.run()
    assert len(traces_of(uri, experiment)) == 1
    assert not bench.dead_letters()
