"""One folder of spools and several places: containers with a /dev/shm and process ids of their own, made by
``unshare``, users, and a machine before and after its start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.sender import other_places
from mlflow_fasttrace._internal.sender.other_places import OtherPlaces
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.spool import places
from mlflow_fasttrace._internal.spool.folder import Spool, spool_for, spool_named
from mlflow_fasttrace._internal.spool.lock import Lock, sender_of
from mlflow_fasttrace._internal.spool.status_file import read_status
from support.fault_proxy import FaultProxy, Reply
from support.made_records import span_record, trace_record
from support.shims import build_shim
from support.texts import assert_all_there, program_text, wait_for_file, without_origin
from support.waiting import wait_until

CONTAINER = ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]
OWN_MEMORY = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$0" "$@"'
_tried = subprocess.run([*CONTAINER, OWN_MEMORY, "true"], capture_output=True, text=True)
in_containers = pytest.mark.skipif(
    _tried.returncode != 0, reason=f"no containers may be made here: {_tried.stderr.strip()}"
)
SMALL_RING = {"MLFLOW_FASTTRACE_RING_BYTES": str(64 << 10)}


def container(
    code: str, spool: Path, mounts: str = OWN_MEMORY, **environment: str
) -> subprocess.Popen:
    """A program in a container that shares the spool folder with others."""
    return subprocess.Popen(
        [*CONTAINER, mounts, sys.executable, "-c", code],
        env={**os.environ, "MLFLOW_FASTTRACE_SPOOL_DIR": str(spool), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(program: subprocess.Popen) -> str:
    """Waits for a program, which ends well; what it said."""
    said = program.communicate()[1]
    assert program.returncode == 0, said
    return said


#: The first process of a container, which outlives the program that it runs.
LIVES_ON = """
import os, subprocess, sys, time
ended = subprocess.run([sys.executable, "-c", sys.argv[1]])
while not os.path.exists(sys.argv[2]): time.sleep(0.01)
sys.exit(ended.returncode)
"""


@pytest.mark.long
@in_containers
def test_all_arrives_of_containers_that_share_a_folder(server, own_spool, tmp_path):
    """More than their rings hold, so that they spill to the folder that they share."""
    containers = []
    go = tmp_path / "go"

    def away_until_all_have_spilled(_request):
        wait_until(lambda: len(list(tmp_path.glob("recorded-*"))) == 2, 60, "all containers")

    with FaultProxy(server.uri, away_until_all_have_spilled) as proxy:
        for n in range(2):
            then = f"open({str(tmp_path / f'recorded-{n}')!r}, 'w').close()"
            code = program_text(proxy.uri, f"container {n}", 250, then)
            code = code.replace("leaf(n)\n    return n", "leaf(n)\n    return str(n) * 5000")
            first = f"import sys; sys.argv[1:] = {[code, str(go)]!r}\n{LIVES_ON}"
            containers.append(
                container(first, own_spool, **SMALL_RING, MLFLOW_FASTTRACE_EXIT_TIMEOUT="1")
            )
        try:
            for n in range(2):
                assert_all_there(server.uri, f"container {n}", 250)
        finally:
            go.touch()
            for program in containers:
                finish(program)


@in_containers
def test_all_arrives_once_of_containers_of_a_pod(server, own_spool):
    """They have one /dev/shm, and a folder of spools each, which have the same name."""
    own_home = f'mount -t tmpfs tmpfs {own_spool} && exec "$0" "$@"'
    with FaultProxy(server.uri) as proxy:
        programs = [
            container(program_text(proxy.uri, f"pod {n}", 50), own_spool, own_home)
            for n in range(3)
        ]
        for program in programs:
            assert finish(program) == ""
        for n in range(3):
            assert_all_there(server.uri, f"pod {n}", 50)
    infos = [request for request in proxy.requests if request.path == "/api/3.0/mlflow/traces"]
    assert len(infos) == 150


@in_containers
def test_what_a_container_left_is_delivered_by_another(server, own_spool, tmp_path):
    with FaultProxy(server.uri, lambda request: Reply(503)) as proxy:
        code = program_text(proxy.uri, "left behind", 150)
        said = finish(
            container(
                code,
                own_spool,
                **SMALL_RING,
                MLFLOW_FASTTRACE_EXIT_TIMEOUT="2",
                MLFLOW_FASTTRACE_CONTAINER_EXIT_TIMEOUT="3",
            )
        )
        assert "is kept" in said or "outlives" in said
        assert list(own_spool.glob("*/*.seg"))
        proxy.fault = lambda request: None
        # A container ends its sender; on a busy machine the first takes part of what was left.
        for _ in range(3):
            finish(container(program_text(proxy.uri, "the next", 1), own_spool))
            if not list(own_spool.glob("*/*.seg")):
                break
        assert_all_there(server.uri, "left behind", 150)
    assert not list(own_spool.glob("*/*.seg"))


#: Another user, who finds Python wherever it is installed.
OTHER_USER = "setpriv --reuid 65534 --inh-caps +dac_read_search --ambient-caps +dac_read_search"
_tried_user = subprocess.run([*OTHER_USER.split(), "true"], capture_output=True, text=True)


@pytest.mark.skipif(
    _tried_user.returncode != 0,
    reason=f"nobody can be another user here: {_tried_user.stderr.strip()}",
)
def test_two_users_share_a_folder(server, own_spool):
    own_spool.chmod(0o1777)
    programs = [
        subprocess.Popen(
            [*prefix, sys.executable, "-c", program_text(server.uri, f"user {n}", 20)],
            env={**os.environ, "HOME": "/nonexistent"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for n, prefix in enumerate(([], OTHER_USER.split()))
    ]
    for n, program in enumerate(programs):
        assert finish(program) == ""
        assert_all_there(server.uri, f"user {n}", 20)
    owners = {path.stat().st_uid for path in own_spool.glob("*/sender.lock")}
    assert owners == {os.geteuid(), 65534}


def test_memory_takes_over_where_files_cannot_be_locked(server, own_spool, run_program, tmp_path):
    process = run_program(
        program_text(server.uri, "no locks", 20),
        LD_PRELOAD=str(build_shim("no_locks", tmp_path)),
        NO_LOCKS=str(own_spool),
    )
    assert process.returncode == 0
    (line,) = without_origin(process.err).splitlines()
    assert line.startswith(
        "The spool folder cannot be used ([Errno 37] no files can be locked there:"
    )
    assert_all_there(server.uri, "no locks", 20)


# ---- what is left behind ----


def elsewhere(uri: str) -> Spool:
    """The spool of a destination in another place."""
    here = spool_for(uri)
    return spool_named(os.path.dirname(here.folder), f"{here.credentials}-00000000")


def segment_in(spool: Spool, name: str = "packed-00000000000000000001-000001.seg") -> Path:
    spool.make_folder()
    path = Path(spool.folder, name)
    record = trace_record({"uri": "x", "experiment": {"id": "0"}})
    _core.write_segment(str(path), [record, span_record()], 3)
    return path


def look_around(uri: str) -> OtherPlaces:
    here = spool_for(uri)
    here.make_folder()
    status = Status(here.folder, uri)
    other = OtherPlaces(here, status)
    other.look()
    status.end()
    return other


URI = "http://127.0.0.1:9"


def test_a_place_that_has_ended_is_taken_over(own_spool):
    left = elsewhere(URI)
    segment_in(left)
    segment_in(left, "refused-" + "0" * 32 + ".seg.refused")
    Path(left.folder, "refused-" + "0" * 32 + ".txt").write_text("because")
    Path(left.folder, "sender.log").write_text("what happened there")
    status = Status(left.folder, URI)
    status.traces, status.spans = 3, 7
    status.end()
    look_around(URI)
    here = spool_for(URI)
    assert sorted(os.listdir(here.folder)) == [
        "packed-00000000000000000001-000001.seg",
        "refused-" + "0" * 32 + ".seg.refused",
        "refused-" + "0" * 32 + ".txt",
        "sender.lock",
        "sender.log.1",
        "status.json",
    ]
    assert read_status(here.folder)["delivered"] == {"traces": 3, "spans": 7, "bytes": 0}
    assert not os.path.exists(left.folder)


def test_what_has_the_same_name_here_is_not_written_over(own_spool):
    left, here = elsewhere(URI), spool_for(URI)
    for spool in (left, here):
        segment_in(spool)
        segment_in(spool, "refused-" + "0" * 32 + ".seg.refused")
        Path(spool.folder, "refused-" + "0" * 32 + ".txt").write_text(spool.name)
        segment_in(spool, "open-" + "0" * 32 + ".seg")
    look_around(URI)
    assert len(list(Path(here.folder).glob("packed-*"))) == 2
    assert len(list(Path(here.folder).glob("refused-*.refused"))) == 2
    notes = {path.read_text() for path in Path(here.folder).glob("refused-*.txt")}
    assert notes == {left.name, here.name}
    assert len(list(Path(here.folder).glob("open-*"))) == 1
    assert not os.path.exists(left.folder)


@pytest.mark.parametrize("lives", ["a sender", "a program", "a writer"])
def test_a_place_where_somebody_lives_is_left_alone(own_spool, lives):
    left = elsewhere(URI)
    path = segment_in(left)
    if lives == "a sender":
        lock = Lock(left.lock, stays=False)
        assert lock.take()
    elif lives == "a program":
        places.show_to_live(str(own_spool), left.place)
    else:  # one that could not show that it lives
        writer = _core.RingWriter(
            f"{left.folder}/1-00000000.ring", 64 << 10, left.folder + "/spill"
        )
    look_around(URI)
    if lives == "a writer":
        assert os.listdir(left.folder) == ["sender.lock", "1-00000000.ring"] or not path.exists()
        assert os.path.exists(f"{left.folder}/1-00000000.ring")
        writer.close()
    else:
        assert path.exists()
    if lives == "a sender":
        lock.close()
    elif lives == "a program":
        places.os.close(places._held.pop(places.lock_of_place(str(own_spool), left.place)))
    look_around(URI)
    assert not os.path.exists(left.folder)


def test_no_more_is_taken_over_than_leaves_room_for_programs(own_spool, monkeypatch):
    left = elsewhere(URI)
    for n in range(1, 9):
        path = segment_in(left, f"packed-{n:020d}-000001.seg")
    most = path.stat().st_size * 6
    monkeypatch.setattr(other_places, "spool_max_bytes", lambda _folder: most)
    other = look_around(URI)
    here = Path(spool_for(URI).folder)
    assert 1 <= len(list(here.glob("packed-*"))) <= 4
    assert other.waits()


def test_where_locks_tell_nothing_a_still_folder_is_taken_over(own_spool, monkeypatch):
    """As on a network's file system that keeps locks to each machine."""
    monkeypatch.setattr(places, "_OF_ONE_MACHINE", frozenset())
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    left, here = elsewhere(URI), spool_for(URI)
    path = segment_in(left)
    here.make_folder()
    other = OtherPlaces(here, Status(here.folder, URI))
    other.look()
    assert other.waits()
    clock[0] += 50
    os.utime(left.lock)  # its sender is at work
    other.look()
    assert not other.waits()
    clock[0] += 20
    other.look()
    assert other.waits()
    assert path.exists()
    clock[0] += 50
    other.look()
    assert not path.exists()
    assert not other.waits()


def test_what_is_empty_and_unused_for_a_day_goes(own_spool):
    uris = [f"http://127.0.0.1:{port}" for port in (1, 2, 3, 4)]
    old, fresh, full, held = (spool_for(uri) for uri in uris)
    for spool in (old, fresh, full, held):
        spool.make_folder()
        Path(spool.folder, "sender.log").write_text("x")
    segment_in(full)
    database = own_spool / "database-0123456789abcdef-0.lock"
    database.touch()
    lock = Lock(held.lock, stays=False)
    assert lock.take()
    days_ago = time.time() - 2 * 86_400
    for path in [*own_spool.rglob("*")]:
        if Path(fresh.folder) not in path.parents:
            os.utime(path, (days_ago, days_ago))
    look_around(URI)
    lock.close()
    here = spool_for(URI)
    assert {path.name for path in own_spool.iterdir()} == {
        spool.name for spool in (fresh, full, held, here)
    }


# ---- locks and forks ----


def test_a_forked_child_does_not_hold_the_lock_of_its_parents_sender(
    server, own_spool, run_program, tmp_path
):
    """The parent delivers by a thread, and ends before its child does."""
    then = f"""
mlflow.flush_trace_async_logging()  # the sender has its lock
pid = os.fork()
if pid == 0:
    os.closerange(0, 3)
{wait_for_file(str(tmp_path / "go")).replace(chr(10), chr(10) + "    ")}
    os._exit(0)
"""
    code = program_text(server.uri, "forks", 3, then)
    process = run_program(code, MLFLOW_FASTTRACE_SENDER="thread")
    assert process.returncode == 0, process.err
    try:
        assert sender_of(spool_for(server.uri)) is None
        process = run_program(program_text(server.uri, "forks later", 3))
        assert process.returncode == 0, process.err
        assert_all_there(server.uri, "forks later", 3)
    finally:
        (tmp_path / "go").touch()
