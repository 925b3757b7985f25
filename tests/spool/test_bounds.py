"""Memory and disk are bounded: past the bound whole traces are refused, and where no folder can be
written memory takes over."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from support.fault_proxy import FaultProxy
from support.lengths import long_but
from support.servers import MlflowServer
from support.shims import build_shim
from support.spools import clean_up
from support.texts import assert_all_there, program_text, shared_memory_in, wait_for_file
from support.traces import traces_of
from support.waiting import wait_until

#: Traces of two spans, each some 2 KB, as many as are asked for; prints what was recorded whole.
FILLS = """
import json, os, sys
import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording.rings import rings

mlflow.set_tracking_uri({uri!r})
os.environ["MLFLOW_EXPERIMENT_NAME"] = {experiment!r}
text = "%d " * 600 % tuple(range(600))

@mlflow.trace
def leaf(n, text):
    pass

@mlflow.trace
def root(n, text):
    leaf(n, text)
    return mlflow.get_current_active_span() is not None

recorded = [n for n in range({traces}) if root(n, text)]
(ring,) = rings.in_use.values()
*_, refused_records, refused_traces = ring.progress()
print(json.dumps([len(recorded), refused_records, refused_traces]))
"""


SPOOL_BYTES = 512 << 10


def on_disk(spool: Path) -> int:
    return sum(file.stat().st_size for file in spool.rglob("*") if file.is_file())


def settings(**more: str) -> dict[str, str]:
    return {
        "MLFLOW_FASTTRACE_RING_BYTES": str(64 << 10),
        "MLFLOW_FASTTRACE_SPOOL_MAX_BYTES": str(SPOOL_BYTES),
        "MLFLOW_FASTTRACE_EXIT_TIMEOUT": "2",
        **more,
    }


def delivered_later(server: MlflowServer, experiment: str, traces: int) -> list:
    """The traces, once there are so many."""

    def there():
        found = traces_of(server.uri, experiment)
        return found if len(found) >= traces else None

    return wait_until(there, 90, "all that was recorded")


@pytest.mark.parametrize("sender", long_but(["process"], ["process", "none"]))
def test_disk_is_bounded_and_traces_are_whole(tmp_path, own_spool, run_program, sender):
    server = MlflowServer(tmp_path)
    code = FILLS.format(uri=server.uri, experiment="bounded", traces=1500)
    process = run_program(code, **settings(MLFLOW_FASTTRACE_SENDER=sender))
    assert process.returncode == 0, process.err
    recorded, refused_records, refused_traces = json.loads(process.out)
    assert refused_records == 0
    assert refused_traces == 1500 - recorded > 0
    assert recorded > 50
    assert on_disk(own_spool) <= SPOOL_BYTES + (64 << 10), "the bound, and the sender's log"
    assert process.err.count("New traces are not recorded for now") == 1, process.err
    with server:
        run_program(program_text(server.uri, "starts the sender", 1))
        found = delivered_later(server, "bounded", recorded)
        assert len(found) == recorded
        assert {len(trace.data.spans) for trace in found} == {2}
        wait_until(lambda: not list(own_spool.glob("*/*.seg")), 30, "the segments' end")


NO_SHARED_MEMORY = shared_memory_in("/nowhere")


def test_without_a_folder_to_write_to_all_arrives_and_one_line_says_so(
    server, own_spool, run_program, tmp_path
):
    (tmp_path / "file").write_text("not a folder")
    process = run_program(
        program_text(server.uri, "no folder", 100),
        MLFLOW_FASTTRACE_SPOOL_DIR=str(tmp_path / "file"),
    )
    try:
        assert process.returncode == 0, process.err
        assert process.err.count("The spool folder cannot be used") == 1, process.err
        assert "MLFLOW_FASTTRACE_SPOOL_DIR" in process.err
        assert_all_there(server.uri, "no folder", 100)
    finally:
        clean_up(tmp_path / "file")


def test_without_shared_memory_all_arrives(server, own_spool, run_program):
    code = program_text(server.uri, "no shared memory", 100)
    process = run_program(NO_SHARED_MEMORY + code)
    assert process.returncode == 0, process.err
    assert process.err == ""
    assert_all_there(server.uri, "no shared memory", 100)


def test_with_neither_folder_nor_shared_memory_all_arrives(
    server, own_spool, run_program, tmp_path
):
    (tmp_path / "file").write_text("not a folder")
    code = program_text(server.uri, "nothing at all", 100)
    process = run_program(
        NO_SHARED_MEMORY + code,
        MLFLOW_FASTTRACE_SPOOL_DIR=str(tmp_path / "file"),
    )
    assert process.returncode == 0, process.err
    assert process.err.count("The spool folder cannot be used") == 1, process.err
    assert_all_there(server.uri, "nothing at all", 100)


@pytest.mark.long
def test_nothing_is_written_to_disk_where_that_is_forbidden(tmp_path, own_spool, run_program):
    server = MlflowServer(tmp_path)
    code = program_text(server.uri, "off", 200)
    process = run_program(
        code,
        MLFLOW_FASTTRACE_SPOOL="off",
        MLFLOW_FASTTRACE_RING_BYTES=str(64 << 10),
        MLFLOW_FASTTRACE_EXIT_TIMEOUT="2",
    )
    assert process.returncode == 0, process.err
    assert not list(own_spool.rglob("*"))
    with server:
        assert_all_there(server.uri, "off", 200)
    assert not list(own_spool.rglob("*"))


def files_up_to(size: int) -> str:
    """Lines at the beginning of a program whose files may not become larger."""
    return f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"


def test_all_arrives_of_a_program_whose_files_are_smaller_than_a_ring(
    server, own_spool, run_program
):
    """Its ring is memory that is no file. MLflow itself writes none, and delivers."""
    code = program_text(server.uri, "small files", 100)
    process = run_program(files_up_to(8 << 10) + code)
    assert process.returncode == 0, process.err
    assert process.err.count("\n") == 1, process.err
    assert "The spool folder cannot be used" in process.err
    assert_all_there(server.uri, "small files", 100)


@pytest.mark.long
def test_segments_end_at_the_limit_on_the_size_of_files(server, own_spool, run_program):
    """The limit is below what the server's absence lets the program spill."""
    code = FILLS.format(uri=server.uri, experiment="many files", traces=500)
    process = run_program(
        files_up_to(80 << 10) + code,
        **settings(MLFLOW_FASTTRACE_SENDER="none", MLFLOW_FASTTRACE_SPOOL_MAX_BYTES=str(1 << 30)),
    )
    assert process.returncode == 0, process.err
    assert json.loads(process.out) == [500, 0, 0]
    on_disk = list(own_spool.glob("*/spill-*.seg"))
    assert len(on_disk) > 5
    assert max(path.stat().st_size for path in on_disk) <= 80 << 10
    run_program(program_text(server.uri, "starts the sender", 1))
    found = delivered_later(server, "many files", 500)
    assert {len(trace.data.spans) for trace in found} == {2}


def test_on_a_full_disk_traces_stay_whole(tmp_path, own_spool, run_program):
    """Where nothing larger than some KB can be written, the ring holds what it can."""
    server = MlflowServer(tmp_path)
    process = run_program(
        FILLS.format(uri=server.uri, experiment="full disk", traces=2000),
        **settings(MLFLOW_FASTTRACE_SENDER="none", MLFLOW_FASTTRACE_SPOOL_MAX_BYTES=str(1 << 30)),
        LD_PRELOAD=build_shim("full_disk", tmp_path),
    )
    assert process.returncode == 0, process.err
    recorded, refused_records, refused_traces = json.loads(process.out)
    assert refused_records == 0
    assert refused_traces == 2000 - recorded > 0
    assert process.err.count("New traces are not recorded for now") == 1, process.err
    with server:
        run_program(program_text(server.uri, "starts the sender", 1))
        found = delivered_later(server, "full disk", recorded)
        assert {len(trace.data.spans) for trace in found} == {2}


@pytest.mark.long
def test_all_arrives_by_a_spool_folder_whose_name_is_no_text(server, tmp_path, run_program):
    """The small ring lets some of it go by segments."""
    spool = tmp_path / os.fsdecode(b"not utf-8 \xff")
    process = run_program(
        program_text(server.uri, "no text", 300),
        MLFLOW_FASTTRACE_SPOOL_DIR=str(spool),
        MLFLOW_FASTTRACE_RING_BYTES=str(64 << 10),
    )
    try:
        assert process.returncode == 0, process.err
        assert process.err == ""
        assert_all_there(server.uri, "no text", 300)
    finally:
        clean_up(spool)


def test_all_arrives_though_the_spool_folder_vanishes(server, own_spool, run_program, tmp_path):
    """Somebody removes the spool folder and the ring under a running program, and kills the sender."""
    then = """
import glob, shutil
from mlflow_fasttrace._internal.recording.rings import rings
from mlflow_fasttrace._internal.recording.supervisor import supervisor
from mlflow_fasttrace._internal.spool.lock import sender_of
mlflow.flush_trace_async_logging()
(ring,) = rings.in_use.values()
os.kill(sender_of(ring.spool)[0], 9)
for n in range(50, 60):
    root(n)
shutil.rmtree(ring.spool.folder)
shutil.rmtree(ring.spool.rings)
for n in range(60, 70):
    root(n)
supervisor.restart()
for n in range(70, 99):
    root(n)
began.set_inputs({"n": 99})
began.end()
assert not supervisor._threads
"""
    before = """
began = mlflow.start_span_no_context("root")
mlflow.start_span_no_context("leaf", parent_span=began).end()
"""
    process = run_program(program_text(server.uri, "vanished", 50, then, before))
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "vanished", 100)


def test_a_ring_that_vanishes_beside_its_sender_is_that_sender_s(server, own_spool, run_program):
    """A cleaner of /dev/shm removes it while the sender waits for an answer, so that it gives no heartbeat."""
    away = threading.Event()

    def slow_once(request):
        if not away.is_set():
            away.set()
            time.sleep(5)

    then = f"""
import shutil
from mlflow_fasttrace._internal.recording.rings import rings
from mlflow_fasttrace._internal.recording.supervisor import supervisor
{wait_for_file("asked")}
(ring,) = rings.in_use.values()
shutil.rmtree(ring.spool.rings)
for n in range(50, 60):
    root(n)
until = time.monotonic() + 4
while time.monotonic() < until:
    supervisor.restart()
    time.sleep(0.1)
assert not supervisor._threads
mlflow.flush_trace_async_logging()
assert list(rings) == [ring]
"""
    with FaultProxy(server.uri, slow_once) as proxy:
        process = run_program(program_text(proxy.uri, "beside", 50, then), wait=False)
        assert away.wait(600)
        (process.folder / "asked").touch()
        process.finish()
        assert process.returncode == 0, process.err
        assert_all_there(server.uri, "beside", 60)
    infos = [request for request in proxy.requests if request.path == "/api/3.0/mlflow/traces"]
    assert len(infos) == 60
