"""What does not fit into a ring goes to memory that outlives the process, then to the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.sender import bursts as burst_watch
from mlflow_fasttrace._internal.sender import life
from mlflow_fasttrace._internal.spool.files import remove_moved, segment_paths
from support.records import numbers_in, record_number, spans_to_ring
from support.spools import assert_sender_ends, files_up_to, rings_of
from support.texts import (
    KILLS_ITSELF,
    assert_all_there,
    assert_delivered_when_it_is_there,
    program_text,
    says_that_it_waits,
)
from support.waiting import free_port, wait_until

CAPACITY = 64 << 10
MARGIN = 1 << 20  # above or below half of a tmpfs


@pytest.fixture
def ring(tmp_path, memory):
    """A ring that the spans of this test go to: the program's end and the sender's."""
    yield spans_to_ring(tmp_path, CAPACITY, str(memory))
    destination.reset()


def spilled(folder: Path) -> list[Path]:
    return sorted(folder.glob("spill-*.seg"))


def read(path: Path) -> list[int]:
    reader = _core.SegmentReader(str(path))
    found = numbers_in(reader)
    assert not reader.damaged
    assert reader.rest == 0
    return found


def test_what_does_not_fit_goes_to_memory_then_to_disk(ring, memory, tmp_path):
    _writer, reader = ring
    for n in range(3000):
        record_number(n, size=500)
    in_memory, on_disk = spilled(memory), spilled(tmp_path)
    assert sum(path.stat().st_size for path in in_memory) <= 8 * CAPACITY
    assert len(in_memory) == 8
    assert len(on_disk) == 1
    found = numbers_in(reader)
    for path in [*in_memory, *on_disk]:
        found += read(path)
    assert found == list(range(3000)), "one after the other"
    assert reader.spill_sequence == 8, "all but the last are ended"
    for path in in_memory:
        os.unlink(path)

    def spills_again() -> bool:
        for n in range(500):
            record_number(n, size=500)
        reader.drain(1 << 20)
        reader.release(reader.cursor)
        return bool(spilled(memory))

    wait_until(spills_again, 10, "room in memory again")


def test_a_segment_is_read_while_it_is_written(ring, memory):
    """Zeros follow the frames that are there; a frame that a killed program had not finished is not there."""
    _writer, reader = ring
    n = 0
    while not spilled(memory):
        record_number(n, size=500)
        n += 1
    (path,) = spilled(memory)
    segment = _core.SegmentReader(str(path))
    found = numbers_in(reader)
    for more in range(n, n + 50):
        found += numbers_in(segment)
        assert found == list(range(more))
        record_number(more, size=500)
    found += numbers_in(segment)
    assert path.stat().st_size > segment.offset, "zeros"
    with open(path, "r+b") as file:
        file.seek(segment.offset + 8)
        file.write(b"half a frame, its first bytes still missing")
    found += numbers_in(segment)
    assert not segment.damaged
    assert found == list(range(n + 50))
    assert path.stat().st_size <= CAPACITY


def test_a_flush_ends_the_segment(ring, memory):
    """A segment that stays open could not be moved to disk while its program does nothing more."""
    writer, reader = ring
    for n in range(120):
        record_number(n, size=500)
    (path,) = spilled(memory)
    assert reader.spill_sequence == 0
    writer.request_flush()
    assert reader.spill_sequence == 1
    assert path.stat().st_size == _size_of_frames(path)


def _size_of_frames(path: Path) -> int:
    reader = _core.SegmentReader(str(path))
    while reader.read(1 << 30):
        pass
    return reader.offset


def test_a_record_larger_than_a_segment_goes_to_disk(ring, memory, tmp_path):
    record_number(1, size=3 * CAPACITY)
    assert spilled(memory) == []
    (path,) = spilled(tmp_path)
    assert read(path) == [1]


def test_a_segment_that_takes_not_even_its_first_record_is_ended(ring, memory, tmp_path):
    """The limit on the size of files lets the segment in memory be made, and not grow to its next
    portion; the segment on disk has another number."""
    _writer, reader = ring
    with files_up_to(20 << 10):
        for n in range(4):  # the ring has room for three
            record_number(n, size=17 << 10)
    (in_memory,), (on_disk,) = spilled(memory), spilled(tmp_path)
    assert in_memory.name == "spill-1-00000000-000000.seg"
    assert on_disk.name == "spill-1-00000000-000001.seg"
    assert read(in_memory) == []
    assert reader.spill_sequence == 1, "the one in memory is ended"
    assert numbers_in(reader) + read(on_disk) == list(range(4))


def test_a_limit_on_the_size_of_files_that_comes_later_ends_the_segment_on_disk(tmp_path):
    """The record that meets it is the first of another segment."""
    _writer, reader = spans_to_ring(tmp_path, CAPACITY)
    try:
        for n in range(8):  # the ring has room for three
            record_number(n, size=17 << 10)
        with files_up_to(60 << 10):
            for n in range(8, 11):
                record_number(n, size=17 << 10)
    finally:
        destination.reset()
    assert numbers_in(reader) == [0, 1, 2]
    assert [read(path) for path in spilled(tmp_path)] == [[3, 4, 5, 6, 7], [8, 9, 10]]


@pytest.fixture
def own_tmpfs(memory):
    """The folder of segments in memory, on a tmpfs of this test alone: others would find theirs half full."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(memory)]
    tried = subprocess.run(mount, capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"nothing may be mounted here: {tried.stderr.strip()}")
    yield memory
    subprocess.run(["umount", "--lazy", str(memory)], check=True)


@pytest.mark.parametrize("full", [True, False], ids=["half full", "with room"])
def test_half_of_the_tmpfs_stays_free(ring, own_tmpfs, tmp_path, full):
    filler = os.open(own_tmpfs / "filler", os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(filler, 0, (8 << 20) + (MARGIN if full else -MARGIN))
        for n in range(300):
            record_number(n, size=500)
    finally:
        os.close(filler)
    assert bool(spilled(own_tmpfs)) != full
    assert len(spilled(tmp_path)) == full


def open_files() -> Counter[str]:
    """The files that this process has open, and how often."""
    return Counter(os.readlink(entry.path) for entry in os.scandir("/proc/self/fd"))


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_forked_child_leaves_the_segment_to_its_parent(memory, tmp_path, place):
    """It has none of its descriptors, and so none of its locks, whatever it keeps of the trace."""
    in_memory = place == "memory"
    _writer, reader = spans_to_ring(tmp_path, CAPACITY, str(memory) if in_memory else None)
    try:
        for n in range(120):
            record_number(n, size=500)
        (path,) = spilled(memory if in_memory else tmp_path)
        before = path.stat().st_size
        parents = open_files()
        pid = os.fork()
        if pid == 0:
            closed = parents - open_files()
            os._exit(not {str(path), str(tmp_path / "1-00000000.ring")} <= set(closed))
        assert os.waitpid(pid, 0)[1] == 0
        assert path.stat().st_size == before
        assert reader.alive()
        assert _core.SegmentReader(path).is_written()
        record_number(120, size=500)
        assert read(path)[-1] == 120
    finally:
        destination.reset()


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_segment_is_locked_for_as_long_as_it_is_written(memory, tmp_path, place):
    in_memory = place == "memory"
    spans_to_ring(tmp_path, CAPACITY, str(memory) if in_memory else None)
    try:
        for n in range(120):
            record_number(n, size=500)
        (path,) = spilled(memory if in_memory else tmp_path)
        segment = _core.SegmentReader(path)
        assert segment.is_written()
    finally:
        destination.reset()
    # A thread closes what lies on a disk.
    wait_until(lambda: not segment.is_written(), 10, "the end of the segment")


def memory_of(spool: Path) -> Path:
    (folder,) = rings_of(spool)
    return folder


def folder_of(spool: Path) -> Path:
    (folder,) = (path for path in spool.iterdir() if path.is_dir())
    return folder


SMALL_RING = {"MLFLOW_FASTTRACE_RING_BYTES": str(CAPACITY)}


def test_the_next_sender_delivers_what_a_killed_program_left_in_memory(
    server, own_spool, run_program
):
    code = program_text(server.uri, "left in memory", 300, KILLS_ITSELF)
    process = run_program(code, MLFLOW_FASTTRACE_SENDER="none", **SMALL_RING)
    assert process.returncode == -signal.SIGKILL, process.err
    assert len(spilled(memory_of(own_spool))) > 1
    process = run_program(program_text(server.uri, "whoever comes", 1))
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "left in memory", 300)
    assert_sender_ends(own_spool)


@pytest.mark.long
def test_all_is_on_disk_after_an_exit_with_the_server_away(tmp_path, own_spool, run_program):
    """A container that ends takes its shared memory along."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    process = run_program(program_text(uri, "to disk", 300), **SMALL_RING)
    assert process.returncode == 0, process.err
    assert says_that_it_waits(process.err)
    packed, on_disk = segment_paths(str(folder_of(own_spool)))
    assert on_disk
    assert packed
    assert spilled(memory_of(own_spool)) == []
    assert_delivered_when_it_is_there(tmp_path, port, own_spool, "to disk", 300)


def test_a_segment_whose_move_was_cut_short_counts_once(memory, tmp_path):
    """A sender that was killed in between left it on disk and in memory."""
    for folder in (memory, tmp_path):
        (folder / "spill-1-00000000-000000.seg").write_bytes(b"the same")
    (memory / "spill-1-00000000-000001.seg").write_bytes(b"only here")
    assert segment_paths(str(tmp_path), str(memory)) == (
        [],
        [
            str(tmp_path / "spill-1-00000000-000000.seg"),
            str(memory / "spill-1-00000000-000001.seg"),
        ],
    )
    remove_moved(str(tmp_path), str(memory))
    assert [path.name for path in spilled(memory)] == ["spill-1-00000000-000001.seg"]


def test_delivery_lets_a_burst_pass(tmp_path, memory, monkeypatch):
    """A program that records as fast as it can has the processor for itself; not for long, and not
    while somebody waits for delivery."""
    writer, reader = spans_to_ring(memory, 1 << 20)
    sender = life.sender_for(str(tmp_path), str(memory), "test")
    try:
        clock = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        sender.intake.scan()
        sender.bursts.under_way()

        def bursts(records: int) -> bool:
            reader.release(reader.drain(8 << 20)[-1][0])
            for n in range(records):
                record_number(n, size=1000)
            clock[0] += 0.02
            return sender.bursts.under_way()

        record_number(0)
        assert not bursts(records=10)
        assert bursts(records=500)
        assert bursts(records=500)
        assert not bursts(records=10), "it is over"
        assert bursts(records=500)
        clock[0] += burst_watch.BURST_SECONDS / 2
        assert bursts(records=20_000)
        clock[0] += burst_watch.BURST_SECONDS / 2
        assert not bursts(records=20_000), "nobody waits longer"
        assert not bursts(records=10)
        assert bursts(records=500)
        writer.request_flush()
        assert not bursts(records=500), "somebody waits"
    finally:
        destination.reset()
