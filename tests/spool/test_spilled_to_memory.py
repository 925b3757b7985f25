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
from mlflow_fasttrace._internal.sender import intake, life, sources
from mlflow_fasttrace._internal.spool.files import (
    free_spare,
    give_back,
    remove_moved,
    segment_paths,
    spares,
    spill_sequence,
)
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


@pytest.fixture
def delivering(tmp_path, memory):
    """The program's end of a ring in memory, and the sender that reads it."""
    writer, _reader = spans_to_ring(memory, CAPACITY, str(memory))
    yield writer, life.sender_for(str(tmp_path), str(memory), "test")
    destination.reset()


def spilled(folder: Path) -> list[Path]:
    return sorted(folder.glob("spill-*.seg"))


def inodes(folder: Path) -> list[int]:
    return [path.stat().st_ino for path in spilled(folder)]


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
    assert not _core.SegmentReader(str(path)).is_written()


def record_until(count: int, memory: Path, begin: int = 0) -> int:
    """Records numbers until so many segments are there; the next number."""
    while len(spilled(memory)) < count:
        record_number(begin, size=500)
        begin += 1
    return begin


def read_and_give_back(reader: _core.RingReader, memory: Path) -> list[int]:
    """What a sender does that has delivered all that is there; the numbers."""
    found = numbers_in(reader)
    ended = [path for path in spilled(memory) if spill_sequence(path.name) < reader.spill_sequence]
    for path in spilled(memory):
        found += read(path)
    for path in ended:
        give_back(str(path))
    reader.release(reader.cursor)
    return found


def test_memory_is_used_again(ring, memory):
    """The pages of segments that are delivered become those of later ones, under their names; nothing of
    what they held before is found."""
    _writer, reader = ring
    n = record_until(3, memory)
    first = inodes(memory)
    found = read_and_give_back(reader, memory)
    assert len(spares(str(memory))) >= 2
    for _ in range(4):
        n = record_until(len(spilled(memory)) + 2, memory, n)
        assert set(inodes(memory)) & set(first)
        found += [number for number in read_and_give_back(reader, memory) if number not in found]
    assert found == list(range(found[-1] + 1))
    assert len({*inodes(memory), *first}) <= 5, "no new memory for each segment"


def test_a_segment_in_memory_that_is_used_again_is_read_while_it_is_written(ring, memory):
    """Behind each frame there are zeros, and not what the pages held before."""
    _writer, reader = ring
    n = record_until(3, memory)
    first = inodes(memory)[0]
    found = read_and_give_back(reader, memory)
    n = record_until(len(spilled(memory)) + 1, memory, n)
    path = spilled(memory)[-1]
    assert path.stat().st_ino == first
    assert path.stat().st_size > CAPACITY // 2, "what it held before"
    segment = _core.SegmentReader(str(path))
    numbers = numbers_in(segment)
    while len(spilled(memory)) == 2:
        assert segment.rest == 0
        assert numbers == list(range(numbers[0], n))
        record_number(n, size=500)
        n += 1
        numbers += numbers_in(segment)
    assert not segment.damaged
    assert found[-1] < numbers[0]


def test_who_reads_memory_that_is_used_again_is_told(ring, memory):
    _writer, reader = ring
    n = record_until(3, memory)
    behind, whole = (_core.SegmentReader(str(spilled(memory)[0])) for _ in range(2))
    assert behind.read(1), "a part"
    assert numbers_in(whole)
    read_and_give_back(reader, memory)
    record_until(len(spilled(memory)) + 1, memory, n)
    unread = _core.SegmentReader(str(spilled(memory)[-1]))
    for path in spilled(memory):
        give_back(str(path))
    for late in behind, whole, unread:
        assert late.read(1 << 20) == []
        assert late.reused
        assert not late.damaged
        assert late.read(1 << 20) == []


def test_memory_that_a_sender_has_freed_is_left_alone(ring, memory):
    """The program still maps it: to write there would end it."""
    _writer, reader = ring
    n = record_until(4, memory)
    found = read_and_give_back(reader, memory)
    for spare in spares(str(memory)):
        free_spare(spare.path)
    assert [path.name for path in memory.iterdir() if path not in spilled(memory)] == []
    n = record_until(len(spilled(memory)) + 2, memory, n)
    assert sorted({*found, *numbers_in(reader), *read_and_give_back(reader, memory)}) == list(
        range(n)
    )


def test_memory_is_made_while_the_ring_fills_up(ring, memory):
    def made() -> list[Path]:
        return list(memory.glob("*-next.seg.spare"))

    writer, reader = ring
    n = 0
    while not made():
        assert spilled(memory) == []
        record_number(n, size=500)
        n += 1
    assert CAPACITY // 2 - 2000 < reader.head < CAPACITY // 2 + 2000
    (path,) = made()
    inode = path.stat().st_ino
    wait_until(lambda: path.stat().st_size == CAPACITY, 10, "all its pages")
    record_until(1, memory, n)
    assert inodes(memory) == [inode]
    assert made(), "and the next"
    writer.close()
    assert not made(), "the program takes it along when it ends"


def test_a_sender_gives_memory_back_and_frees_it_later(memory, monkeypatch, delivering):
    writer, sender = delivering
    n = record_until(3, memory)
    sender.intake.scan()
    sender.intake.read()
    for segment in sender.intake.segments.values():
        segment.left = 0  # all of it is delivered
    sender.intake.settle()
    assert len(spilled(memory)) == 1, "the one that is being written"
    used = [spare for spare in spares(str(memory)) if "next" not in spare.path]
    assert len(used) == 2
    inode = used[0].inode
    n = record_until(2, memory, n)
    assert inode in inodes(memory)
    monkeypatch.setattr(intake, "SPARE_SECONDS", -1.0)
    monkeypatch.setattr(intake, "_SPARES_LOOKED_AT_SECONDS", 0.0)
    sender.intake.scan()
    assert spares(str(memory)) == []
    record_until(3, memory, n)
    assert spares(str(memory))
    (memory / "spill-1-00000000-000099.seg.taken").write_bytes(b"a program is making it its own")
    (memory / "spill-1-00000000-000098.seg.freed").write_bytes(b"a sender was killed here")
    sender.intake.scan()
    assert [spare.path[-9:] for spare in spares(str(memory))] == ["099.seg.taken"[-9:]]
    writer.close()
    sender.intake.scan()
    assert spares(str(memory)) == []


@pytest.mark.parametrize("place", ["a ring in the spool folder", "all of it in memory"])
def test_a_sender_removes_segments_that_are_not_memory_of_a_burst(tmp_path, place):
    """Nobody would take them."""
    _writer, _reader = spans_to_ring(tmp_path, CAPACITY)
    rings = tmp_path if place == "all of it in memory" else tmp_path / "rings"
    sender = life.sender_for(str(tmp_path), str(rings), "test")
    try:
        for n in range(300):
            record_number(n, size=500)
        assert len(spilled(tmp_path)) == 1
        destination.reset()
        sender.intake.scan()
        sender.intake.read()
        for segment in sender.intake.segments.values():
            segment.left, segment.loaded = 0, True
        sender.intake.settle()
        assert list(tmp_path.glob("spill-*")) == []
    finally:
        destination.reset()


def test_the_copy_of_a_damaged_segment_stays_as_it_is(memory, delivering):
    _writer, sender = delivering
    record_until(3, memory)
    damaged = spilled(memory)[0]
    with open(damaged, "r+b") as file:
        file.seek(CAPACITY // 2)
        file.write(b"damage" * 100)
    before = damaged.read_bytes()
    sender.intake.scan()
    sender.intake.read()
    for segment in sender.intake.segments.values():
        segment.left = 0
    sender.intake.settle()
    assert len([spare for spare in spares(str(memory)) if "next" not in spare.path]) == 1
    (copy,) = memory.glob("*.damaged")
    assert copy.read_bytes() == before


def test_a_segment_that_somebody_renames_is_not_taken_for_an_empty_one(memory, delivering):
    """Nor is one that cannot be looked at: what was not delivered is not removed."""
    _writer, sender = delivering
    record_until(3, memory)
    sender.intake.scan()
    path = spilled(memory)[0]
    segment = sender.intake.segments[str(path)]
    path.rename(memory / "elsewhere")
    with pytest.raises(FileNotFoundError):
        segment.read()
    assert not segment.loaded
    (memory / "elsewhere").rename(path)


def test_a_move_to_disk_that_fails_leaves_the_segment_in_memory_alone(
    tmp_path, memory, monkeypatch, delivering
):
    _writer, sender = delivering
    record_until(3, memory)
    sender.intake.scan()
    path = spilled(memory)[0]
    segment = sender.intake.segments[str(path)]
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(sources.os, "utime", lambda *args, **kwargs: (tmp_path / "x").rmdir())
        with pytest.raises(OSError):
            segment.move(str(tmp_path))
    assert (path.read_bytes(), spilled(tmp_path)) == (before, [])
    real = os.rename

    def rename(source: str, target: str) -> None:
        real(source, target + ".away")
        os.symlink(target + ".away", target)  # which the reader does not follow

    with monkeypatch.context() as patch:
        patch.setattr(sources.os, "rename", rename)
        with pytest.raises(OSError):
            segment.move(str(tmp_path))
    assert (path.read_bytes(), spilled(tmp_path)) == (before, [])
    assert segment.in_memory


def test_memory_that_is_moved_to_disk_is_freed(tmp_path, memory, delivering):
    """The program still maps it, until it looks for memory again."""
    _writer, sender = delivering
    n = record_until(3, memory)
    in_memory = spilled(memory)
    follower = _core.SegmentReader(str(in_memory[0]))
    held = [os.open(path, os.O_RDONLY) for path in in_memory[:2]]
    sender.intake.scan()
    sender.packing.pack(unavailable=True)
    assert [path.name for path in spilled(tmp_path)] == [path.name for path in in_memory[:2]]
    assert [os.fstat(fd).st_size for fd in held] == [0, 0]
    for fd in held:
        os.close(fd)
    assert follower.read(1 << 20) == []
    follower.move(str(spilled(tmp_path)[0]))
    first = numbers_in(follower)
    assert first[0] > 0
    sender.intake.read()
    assert not list(memory.glob("*.damaged")) + list(tmp_path.glob("*.damaged"))
    assert read(spilled(tmp_path)[0]) == first
    record_until(3, memory, n)


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
        before = read(path)
        parents = open_files()
        folder = str(memory if in_memory else tmp_path)
        names = {name for name in parents if name.startswith(f"{folder}/spill-")}
        names.add(str(tmp_path / "1-00000000.ring"))
        assert len(names) == 2 + in_memory, "the ring, a segment, and memory for another"
        pid = os.fork()
        if pid == 0:
            os._exit(not names <= set(parents - open_files()))
        assert os.waitpid(pid, 0)[1] == 0
        assert read(path) == before
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
