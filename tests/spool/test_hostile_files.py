"""Files and folders that are not what their names say, by accident or on purpose: nothing is
followed, the program goes on, and all else arrives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import destination as recording_destination
from mlflow_fasttrace._internal.sender import sources
from mlflow_fasttrace._internal.spool import folder as spool_folder
from mlflow_fasttrace._internal.spool.folder import Spool, spool_for
from support.bench import record
from support.fault_proxy import FaultProxy
from support.made_records import TRACE_ID, binary, destination, span_record, trace_record
from support.processes import ROOT, Program
from support.records import items_of
from support.spools import base_environment, clean_up
from support.texts import assert_all_there, program_text, shared_memory_in
from support.traces import traces_of
from support.waiting import wait_until

NOBODY = 65534


# ---- records ----

USABLE = trace_record(destination(id="0"))

#: Records that are whole by their checksum, and that no program writes.
UNUSABLE = {
    "no msgpack": b"\xc1" * 30,
    "nothing": b"",
    "another kind": b"\x9c\x07" + USABLE[2:],
    "an id that is too short": trace_record(destination(id="0"), trace_id=b"short"),
    "a span's id that is too long": span_record(span_id=b"x" * 40),
    "a name that is a number": span_record(name=1),
    "a time that is a text": span_record(start="now"),
    "attributes that are a list": span_record(attributes=[]),
    "a status that there is not": span_record(status=9),
    "more behind the record": USABLE + b"\0",
    "half a record": USABLE[:-8],
    "a destination that is a list": trace_record([1]),
    "no destination": trace_record(None),
    "an info that is a text": trace_record(destination(id="0"), "info"),
    "a phase that is no byte": trace_record(destination(id="0"), phase=b"\xa1x"),
    "a phase that there is not": trace_record(destination(id="0"), phase=b"\xcc\x07"),
    "a state that there is not": trace_record(destination(id="0"), state=77),
    "no experiment": trace_record({"uri": "x"}),
    "an experiment that is a list": trace_record({**destination(), "experiment": ["0"]}),
    "an experiment by nothing": trace_record(destination()),
    "an experiment by a list": trace_record(destination(id=["0"])),
    "an experiment by a number": trace_record(destination(name=5)),
    "a resource that is a text": trace_record({**destination(id="0"), "resource": "x"}),
    "tags that are a list": trace_record(destination(id="0"), {"tags": [1]}),
    "no tags": trace_record(destination(id="0"), {}),
    "an attachment without content": b"\x94\x03" + binary(TRACE_ID) + b"\xa1x\xc0",
}


def test_a_record_that_nobody_wrote_costs_itself(server, bench, experiment):
    """Such records lie before and behind good ones, in a segment and in a spill segment."""
    bench.to(server.uri, experiment)
    record(3)
    bench.sender.intake.scan()
    (ring,) = bench.sender.intake.rings.values()
    good = [entry.record for entry in ring.read()]
    ring.pending.clear()
    ring.reader.release(ring.reader.cursor)
    hostile = list(UNUSABLE.values())
    half = len(hostile) // 2
    records = [*hostile[:half], *good, *hostile[half:]]
    _core.write_segment(str(bench.folder / "packed-1-1.seg"), records, 3)
    _core.write_segment(str(bench.folder / "spill-2-00000000-000000.seg"), records, 3)
    bench.run(lambda: not list(bench.folder.glob("*.seg")) and bench.left() == 0)
    assert len(traces_of(server.uri, experiment)) == 3
    assert not list(bench.folder.glob("*.damaged"))
    set_aside = [
        record
        for path in bench.folder.glob("refused-*.seg.refused")
        for _kind, _trace, record in items_of(_core.SegmentReader(str(path)))
    ]
    assert sorted(set_aside) == sorted(hostile * 2)
    assert all("cannot be used" in note for note in bench.dead_letters())


def test_a_trace_that_only_its_finish_stumbles_over(server, bench, experiment):
    """A trace whose values are of types that its info cannot have is a dead letter; the others arrive."""
    bench.to(server.uri, experiment)
    odd = trace_record(
        {**destination(name=experiment), "cwd": ["/"]}, {"name": 1, "tags": {"a": [1]}}
    )
    _core.write_segment(str(bench.folder / "packed-1-1.seg"), [odd, span_record()], 3)
    record(3)
    bench.run(lambda: bench.dead_letters() and bench.left() == 0)
    assert len(traces_of(server.uri, experiment)) == 3
    assert len(bench.dead_letters()) == 1


def test_a_record_does_not_say_where_the_sender_goes(server, bench, experiment):
    """The spool says where: no file can lead the sender, with its credentials, to another server."""
    with FaultProxy(server.uri) as other:
        bench.to(server.uri, experiment)
        record(1)
        bench.to(other.uri, experiment)
        record(1)
        bench.run()
        assert other.requests == []
    assert len(traces_of(server.uri, experiment)) == 2


# ---- segments and rings ----


def test_files_that_are_no_segments_hold_up_nothing(server, bench, experiment, tmp_path, caplog):
    good = tmp_path / "good.seg"
    _core.write_segment(str(good), [USABLE], 3)
    bad = []
    for name in ("packed-{}-1.seg", "spill-{}-00000000-000000.seg", "rings/{}-00000000.ring"):
        made = [bench.folder / name.format(n) for n in range(1, 5)]
        if name.startswith("rings"):
            made = [tmp_path / name.format(n) for n in range(1, 5)]
        made[0].symlink_to(good)
        made[1].mkdir()
        os.mkfifo(made[2])
        shutil.copy(good, made[3])
        if os.geteuid() == 0:
            os.chown(made[3], NOBODY, NOBODY)
        elif not name.startswith("rings"):
            made.pop().unlink()
        bad += made
    bench.to(server.uri, experiment)
    record(3)
    bench.run()
    before = bench.sender.intake.scanned_at
    bench.run(lambda: bench.sender.intake.scanned_at > before)
    assert len(traces_of(server.uri, experiment)) == 3
    assert all(os.path.lexists(path) for path in bad)
    assert good.exists()
    assert not bench.sender.intake.segments, "nothing keeps the sender"
    for path in bad:
        assert caplog.text.count(f"{path} cannot be read") == 1, path
    assert not bench.dead_letters()


def test_a_file_that_a_broken_disk_does_not_give_back_holds_up_nothing(
    server, bench, experiment, caplog
):
    """Reading this file fails as on a broken disk: EIO."""
    broken = "/proc/self/mem"
    bench.to(server.uri, experiment)
    bench.sender.intake.segments[broken] = sources.PackedSegment(broken)
    record(3)
    bench.run()
    assert len(traces_of(server.uri, experiment)) == 3
    assert caplog.text.count(f"{broken} cannot be read") == 1
    assert broken not in bench.sender.intake.segments


READ_IN_LITTLE_MEMORY = """
import resource, sys
from mlflow_fasttrace._internal.sender.life import sender_for
sender = sender_for(sys.argv[1], None, "http://127.0.0.1:9")
sender.intake.scan()
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (100 << 20),) * 2)
print(sender.intake.read())
"""


def test_a_segment_larger_than_the_memory_holds_up_nothing(tmp_path):
    """One frame claims a gigabyte, another is larger than the memory."""
    claims, large, good = (str(tmp_path / f"packed-{n}-1.seg") for n in (1, 2, 3))
    _core.write_segment(claims, [b"\0" * 1000], 3)
    with open(claims, "r+b") as file:
        file.seek(16)
        file.write((1 << 30).to_bytes(4, "little"))
    _core.write_segment(large, [bytes(200 << 20)], 1)
    _core.write_segment(good, [USABLE], 3)
    result = subprocess.run(
        [sys.executable, "-c", READ_IN_LITTLE_MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "1\n"
    assert f"{claims} is damaged" in result.stderr
    assert f"{large} cannot be read" in result.stderr
    assert os.path.exists(large)


# ---- folders ----


def foreign(path) -> None:
    path.mkdir(parents=True)
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o777)


def link_to(target):
    def make(path) -> None:
        target.mkdir(exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    return make


SPOOL_CANNOT = "The spool folder cannot be used"
RINGS_ELSEWHERE = "Rings lie in"


#: Of so many senders at once, on a slow machine, some take long to begin: no thread takes their place.
PATIENT = """
from mlflow_fasttrace._internal.recording import supervisor as module
module.STARTS_SECONDS = 600.0
"""


def test_nothing_is_written_to_folders_that_are_not_ours(server, tmp_path, monkeypatch):
    """Each case has a program of its own; all run at once."""
    elsewhere = tmp_path / "elsewhere"
    victim = tmp_path / "victim"
    victim.write_text("precious")
    link = link_to(elsewhere)

    def inside(name: str, make):
        def make_in(spool: Spool, _shared) -> None:
            spool.make_folder()
            os.unlink(spool.lock)
            make(os.path.join(spool.folder, name))

        return make_in

    def in_shared(make):
        return lambda _spool, shared: make(shared / f"mlflow-fasttrace-{os.geteuid()}")

    def state(make):
        return lambda spool, _shared: make(Path(spool.folder))

    cases = {
        "a link to the folder": (state(link), SPOOL_CANNOT),
        "the lock a link": (inside("sender.lock", lambda p: os.symlink(victim, p)), SPOOL_CANNOT),
        "the lock a folder": (inside("sender.lock", os.mkdir), SPOOL_CANNOT),
        "the log a link": (inside("sender.log", lambda p: os.symlink(victim, p)), SPOOL_CANNOT),
        "the log a pipe": (inside("sender.log", os.mkfifo), SPOOL_CANNOT),
        "the status a link": (inside("status.json", lambda p: os.symlink(victim, p)), ""),
        "a pipe for the status": (inside("status.json.new", os.mkfifo), ""),
        "a link in shared memory": (in_shared(link), RINGS_ELSEWHERE),
    }
    if os.geteuid() == 0:
        cases["another user's folder"] = state(foreign), SPOOL_CANNOT
        cases["another user's folder in shared memory"] = in_shared(foreign), RINGS_ELSEWHERE
    started = {}
    try:
        for number, (name, (make, says)) in enumerate(cases.items()):
            folder = tmp_path / str(number)
            shared = folder / "shm"
            shared.mkdir(parents=True)
            (folder / "spool").mkdir()
            monkeypatch.setenv("MLFLOW_FASTTRACE_SPOOL_DIR", str(folder / "spool"))
            monkeypatch.setattr(spool_folder, "SHARED_MEMORY", str(shared))
            make(spool_for(server.uri), shared)
            code = shared_memory_in(shared) + PATIENT
            code += program_text(server.uri, f"not ours: {name}", 5)
            process = Program(code, folder, **base_environment(folder / "spool"))
            started[name] = process, says
        for name, (process, says) in started.items():
            process.finish()
            assert process.returncode == 0, (name, process.err)
            # Ten programs at once may be more than the server answers in time; that is another line.
            lines = [line for line in process.err.splitlines() if "takes nothing now" not in line]
            assert len(lines) == (1 if says else 0), (name, process.err)
            assert says in process.err, (name, process.err)
            assert_all_there(server.uri, f"not ours: {name}", 5)
    finally:
        for process, _says in started.values():
            process.kill()
            process.wait()
        for lock in tmp_path.glob("*/*/**/sender.lock"):
            if lock.is_file() and not lock.is_symlink() and (words := lock.read_text().split()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(words[0]), signal.SIGKILL)
    assert victim.read_text() == "precious"
    assert not list(elsewhere.iterdir()), "nothing is written through a link"


def test_a_link_that_the_user_chose_is_followed(server, own_spool, run_program, tmp_path):
    (tmp_path / "link").symlink_to(own_spool)
    process = run_program(
        program_text(server.uri, "by a link", 5), MLFLOW_FASTTRACE_SPOOL_DIR=str(tmp_path / "link")
    )
    assert process.returncode == 0, process.err
    assert process.err == ""
    assert_all_there(server.uri, "by a link", 5)
    clean_up(tmp_path / "link")


# ---- a file that somebody truncates under its users ----

SERVES = """
import sys
from mlflow_fasttrace._internal.sender.life import run_sender
run_sender(*sys.argv[1:])
"""


def has_heartbeat(ring: Path) -> bool:
    return any(ring.read_bytes()[168:176])


def test_a_ring_that_somebody_truncates_costs_its_sender_once(server, experiment, tmp_path):
    """Memory whose file is gone is a SIGBUS, and nobody can keep a user from that. The next sender
    refuses that ring when it opens it, and delivers the others."""
    rings = tmp_path / "rings"
    folder = tmp_path / "state"
    for made in (rings, folder):
        made.mkdir()
    paths = [rings / f"{n}-00000000.ring" for n in (1, 2)]
    writer = _core.RingWriter(paths[1], 64 << 10, folder / "spill-2-00000000")
    shutil.copy(paths[1], paths[0])
    program = open(paths[0], "rb")  # lives, as far as the sender can see
    fcntl.flock(program, fcntl.LOCK_EX)
    command = [sys.executable, "-c", SERVES, str(folder), str(rings), server.uri]
    env = {**os.environ, **base_environment(tmp_path)}
    first = subprocess.Popen(command, env=env)
    try:
        wait_until(lambda: all(map(has_heartbeat, paths)), 60, "a sender of both")
        os.truncate(paths[0], 0)
        assert first.wait() == -signal.SIGBUS
    finally:
        first.kill()
        first.wait()
    _core.set_destination(writer, recording_destination.describe(server.uri, {"name": experiment}))
    try:
        record(3)
    finally:
        recording_destination.reset()
    second = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(
            lambda: len(traces_of(server.uri, experiment)) == 3, 60, "the other ring's traces"
        )
    finally:
        second.terminate()
        _out, err = second.communicate()
        program.close()
    assert f"{paths[0]} cannot be read and is left alone" in err
    assert "its header is damaged" in err


def test_nothing_of_the_package_truncates_a_ring():
    """Only a segment that a program spills is cut off, by that program, or when all of it is delivered
    (files.py), its copy on disk (sources.py), and the sender's lock. compat.h makes files longer."""
    sources = [*ROOT.glob("ext/**/*.c"), *ROOT.glob("ext/**/*.h"), *ROOT.glob("python/**/*.py")]
    assert len(sources) > 100
    # The commands cut texts.
    sources = [path for path in sources if "cli" not in path.parts]
    truncating = {path.name for path in sources if "truncate(" in path.read_text()}
    assert truncating == {
        "compat.h",
        "mapped.c",
        "spill_segments.c",
        "lock.py",
        "files.py",
        "sources.py",
    }
    assert "O_TRUNC" not in "".join(
        path.read_text() for path in sources if path.name.startswith("ring_")
    )
