"""Ring and segments: what was appended is read, and damage costs what is damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow_fasttrace.fluent as mlflow
import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.spool.records import SPAN, TRACE
from support.records import items_of, numbers_in, record_number, spans_to_ring
from support.shims import build_shim

CAPACITY = 64 << 10


@pytest.fixture
def ring(tmp_path):
    """A ring that the spans of this test go to, and its reader."""
    yield *spans_to_ring(tmp_path, CAPACITY), tmp_path
    destination.reset()


def test_the_ring_is_used_round_and_round(ring):
    _writer, reader, _ = ring
    for n in range(2000):  # many times the capacity
        record_number(n, size=n % 700)
        items = reader.drain(1 << 20)
        assert numbers_in(item[1:] for item in items) == [n]
        reader.release(items[-1][0])
    assert reader.head > 5 * CAPACITY
    assert reader.head == reader.tail


def test_a_span_appears_together_with_its_traces_record(ring):
    """Without the trace's record it would not be known where the span goes; a program that is killed
    between the two leaves neither."""
    _writer, reader, _ = ring
    heads = []

    class Looks:
        def __str__(self) -> str:
            heads.append(reader.head)
            return "x"

    with mlflow.start_span("one span") as span:
        _core.live_trace(span.trace_id).tags["looks"] = Looks()
    assert heads == [0], "while the trace's record is made"
    assert sorted(kind for kind, _, _ in items_of(reader)) == [SPAN, TRACE]


def test_a_full_ring_spills_and_is_used_again(ring):
    writer, reader, folder = ring
    for n in range(300):
        record_number(n, size=500)
    assert reader.head <= CAPACITY
    (spill,) = folder.glob("spill-*.seg")
    in_ring = numbers_in(reader)
    spilled = numbers_in(spill)
    assert sorted(in_ring + spilled) == list(range(300))
    assert reader.spill_sequence == 0
    reader.release(reader.cursor)
    record_number(300)
    assert reader.spill_sequence == 1, "the segment is ended"
    assert numbers_in(reader) == [300]
    assert writer.progress()[3] > 0


def test_a_record_larger_than_the_ring_is_spilled(ring):
    _writer, reader, folder = ring
    record_number(1, size=10 * CAPACITY)
    record_number(2)
    (spill,) = folder.glob("spill-*.seg")
    assert numbers_in(spill) == [1]
    assert numbers_in(reader) == [2]


def test_damage_in_a_ring_costs_what_is_behind_it(ring):
    _writer, reader, folder = ring
    for n in range(20):
        record_number(n)
    with open(folder / "1-00000000.ring", "r+b") as file:
        file.seek(4096 + reader.head // 2)
        file.write(b"\xff" * 64)
    before = numbers_in(reader)
    assert before == list(range(len(before)))
    assert len(before) < 20
    assert reader.damaged
    assert reader.skip_damage() > 0
    record_number(20)
    assert numbers_in(reader) == [20]


def test_a_reader_sees_the_program_live_and_die(ring):
    writer, reader, _ = ring
    assert reader.alive()
    destination.reset()
    writer.close()
    assert not reader.alive()


@pytest.mark.parametrize(
    "content", [b"", b"MFTRING1", b"\0" * 8192, b"MFTRING1" + b"\xff" * 100_000]
)
def test_what_is_no_ring_is_not_opened(tmp_path, content):
    path = tmp_path / "hostile.ring"
    path.write_bytes(content)
    with pytest.raises(OSError):
        _core.RingReader(str(path))


def test_links_are_not_followed(tmp_path, ring):
    _writer, _reader, folder = ring
    link = tmp_path / "link.ring"
    link.symlink_to(folder / "1-00000000.ring")
    with pytest.raises(OSError):
        _core.RingReader(str(link))
    with pytest.raises(OSError):
        _core.SegmentReader(str(link))


@pytest.fixture
def segment(ring):
    _writer, reader, folder = ring
    for n in range(3):
        record_number(n)
    records = [record for _, _, record in items_of(reader)]
    path = folder / "packed-1-1.seg"
    assert _core.write_segment(str(path), records, 3) == path.stat().st_size
    return path, records


def read_all(path) -> tuple[list[bytes], bool]:
    reader = _core.SegmentReader(str(path))
    items = reader.read(1 << 30)
    return [data for _, _, _, data in items], reader.damaged or bool(reader.rest)


def test_a_segment_holds_what_was_written(segment):
    path, records = segment
    assert read_all(path) == (records, False)
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_any_flipped_byte_of_a_segment_is_found(segment):
    path, records = segment
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        found, damaged = read_all(path)
        assert found == records or (damaged and found == records[: len(found)]), at


def test_a_segment_cut_off_anywhere_gives_what_precedes(segment):
    path, records = segment
    good = path.read_bytes()
    for size in range(len(good)):
        path.write_bytes(good[:size])
        found, damaged = read_all(path)
        assert found == records[: len(found)]
        assert len(found) < len(records)
        assert damaged or size in (0, 16), size


def test_a_ring_of_a_bad_size_is_not_made(tmp_path):
    for capacity in (0, 1, 4096, (64 << 10) + 1, 2 << 30):
        with pytest.raises(ValueError, match="a ring holds"):
            _core.RingWriter(str(tmp_path / "r.ring"), capacity, "x")


def test_a_length_beyond_the_head_is_damage(ring):
    """The ring would wait for ever for the rest of that record."""
    _writer, reader, folder = ring
    for n in range(20):
        record_number(n)
    before_last = reader.drain(1 << 20)[-2][0]
    reader.rewind(reader.tail)
    with open(folder / "1-00000000.ring", "r+b") as file:
        file.seek(4096 + before_last)
        file.write((1 << 20).to_bytes(4, "little"))
    assert numbers_in(reader) == list(range(20)), "the last record is that of the last trace"
    assert reader.damaged
    assert reader.skip_damage() > 0
    record_number(20)
    assert numbers_in(reader) == [20]


MAKES_A_RING = """
import os, sys
from mlflow_fasttrace import _core
path = sys.argv[1] + "/1-00000000.ring"
_core.RingWriter(path, 8 << 20, sys.argv[1] + "/spill")
print(os.stat(path).st_blocks * 512)
"""


def test_a_ring_is_made_under_a_timer_that_always_interrupts(tmp_path):
    """Large allocations are made in portions, small enough to come through; none is tried for ever."""
    result = subprocess.run(
        [sys.executable, "-c", MAKES_A_RING, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "LD_PRELOAD": build_shim("interrupted_fallocate", tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 8 << 20


@pytest.mark.parametrize("form", [os.fsdecode, os.fsencode, Path])
def test_a_folder_may_have_any_name(tmp_path, form):
    """The operating system's names are bytes, and these are no UTF-8."""
    folder = os.path.join(tmp_path, os.fsdecode(b"not utf-8 \xff"))
    os.mkdir(folder)
    ring, segment = (form(os.path.join(folder, name)) for name in ("1-00000000.ring", "x.seg"))
    writer = _core.RingWriter(ring, CAPACITY, form(folder + "/a"), 1 << 20, form(folder + "/b"))
    assert _core.RingReader(ring).pid == os.getpid()
    _core.write_segment(segment, [b"x"], 3)
    assert len(_core.SegmentReader(segment).read(1 << 20)) == 1
    with pytest.raises(FileNotFoundError) as caught:
        _core.SegmentReader(form(folder + "/none"))
    assert caught.value.filename == folder + "/none"
    writer.close()


def test_what_cannot_be_opened_says_what_is_wrong(tmp_path):
    pipe, text, folder = tmp_path / "pipe", tmp_path / "text", tmp_path / "folder"
    os.mkfifo(pipe)
    text.write_text("x" * 100_000)
    folder.mkdir()
    for path, reader, reason in (
        (pipe, _core.RingReader, "it is not a file"),
        (pipe, _core.SegmentReader, "it is not a file"),
        (folder, _core.SegmentReader, "it is not a file"),
        (text, _core.RingReader, "it is not a ring, or its header is damaged"),
    ):
        with pytest.raises(OSError, match=reason) as caught:
            reader(path)
        assert caught.value.filename == str(path)


def test_positions_that_cannot_be_are_named(ring):
    _writer, reader, _ = ring
    record_number(1)
    with pytest.raises(ValueError, match="position 8 has not been read yet: the reader is at 0"):
        reader.release(8)
    end = reader.drain(1 << 20)[-1][0]
    reader.release(end)
    with pytest.raises(ValueError, match=f"position 0 is given back: the tail is at {end}"):
        reader.rewind(0)


def test_a_ring_of_this_process_is_read_without_a_file():
    writer = _core.RingWriter(None, CAPACITY, "/")
    _core.set_destination(writer, {"uri": "test", "experiment": {"id": "0"}})
    try:
        record_number(1)
        reader = _core.RingReader(writer)
        assert numbers_in(reader) == [1]
        assert reader.alive()
        reader.release(reader.cursor)
        assert writer.progress()[1] == reader.head
        record_number(2)
    finally:
        destination.reset()
    writer.close()
    assert not reader.alive()
    assert numbers_in(reader) == [2], "the reader's memory outlives the writer's"
    with pytest.raises(ValueError, match="the ring is closed"):
        _core.RingReader(writer)
