"""Ring and segments: what was appended is read, and damage costs what is damaged."""

from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import mlflow_fasttrace.fluent as mlflow
import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import hooks
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.spool.records import SPAN, TRACE
from support.records import (
    items_of,
    numbers_in,
    record_number,
    spans_in,
    spans_to_ring,
    traces_in,
)
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


def test_a_child_that_keeps_an_open_trace_does_not_keep_the_ring_alive(ring):
    """It has what leads to its parent's ring, the span, for as long as it lives."""
    writer, reader, _ = ring
    span = mlflow.start_span_no_context("the parent's")
    ours, childs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        childs.send(b"x")
        childs.recv(1)
        os._exit(span is None)
    childs.close()
    with ours:
        ours.recv(1)
        span.end()
        destination.reset()
        writer.close()
        assert not reader.alive()
    assert os.waitpid(pid, 0)[1] == 0


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


def test_large_records_are_packed_as_small_ones_are(segment):
    path, small = segment
    for more in range(8):
        records = [
            b"x" * ((1 << 20) + more),
            *small,
            os.urandom((2 << 20) + more),
            b"word" * (1 << 20),
        ]
        assert _core.write_segment(str(path), records, 3) == path.stat().st_size < 3 << 20
        assert read_all(path) == (records, False)


@pytest.mark.parametrize("more", range(8))
def test_a_large_record_is_spilled_whole_and_its_damage_found(ring, more):
    _writer, _reader, folder = ring
    record_number(1, size=(2 << 20) + more)
    (path,) = folder.glob("spill-*")
    (span,), damaged = read_all(path)
    assert not damaged
    assert spans_in([(SPAN, b"", span)])[0].inputs == {"n": 1, "text": "x" * ((2 << 20) + more)}
    good = path.read_bytes()
    end = 16 + 24 + 8 + len(span) + -len(span) % 8
    for at in (*range(16 + 48), 1 << 20, *range(end - 9, end)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        found, damaged = read_all(path)
        # How many records a frame holds is not covered by its checksum, and means nothing to readers.
        assert found == [] if not 28 <= at < 32 else found[0] == span, at
        assert damaged or 28 <= at < 32, at
    for size in (17, 40, 47, 1 << 20, end - 9, end - 1):
        path.write_bytes(good[:size])
        assert read_all(path) == ([], True), size


def test_values_of_every_size_around_that_of_large_ones_are_recorded(ring):
    _writer, _reader, folder = ring
    for size in (*range((1 << 20) - 200, (1 << 20) + 40, 16), 3 << 20):
        for file in folder.glob("spill-*"):
            file.unlink()
        with mlflow.start_span("span") as span:
            span.set_attribute("first", "a" * 300)
            span.set_attribute("large", "old")
            span.set_attribute("large", "x" * size)
            span.set_inputs("y" * (size // 2))
            span.set_attribute("last", 1)
        attributes = {
            "first": "a" * 300,
            "large": "x" * size,
            "mlflow.spanInputs": "y" * (size // 2),
            "last": 1,
        }
        assert {key: span.attributes[key] for key in attributes} == attributes
        found = [one for path in folder.glob("spill-*") for one in spans_in(path)]
        recorded = found[0].attributes
        assert [key for key in recorded if key in attributes] == list(attributes)
        assert {key: recorded[key] for key in attributes} == attributes
        _writer.request_flush()


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


def test_who_looks_back_reads_what_is_delivered_until_it_is_written_over(ring):
    _writer, reader, folder = ring
    for n in range(3):
        record_number(n)
    reader.drain(1 << 20)
    reader.release(reader.cursor)
    (path,) = folder.glob("**/*.ring")
    onlooker = _core.RingReader(path)
    assert numbers_in(onlooker) == []
    assert onlooker.look_back() is True
    assert numbers_in(onlooker) == [0, 1, 2]
    n = 3
    while reader.head <= reader.capacity:
        record_number(n)
        n += 1
        reader.drain(1 << 20)
        reader.release(reader.cursor)
    assert onlooker.look_back() is False
    assert numbers_in(onlooker)[-1] == n - 1, "it goes on where it was, as far as that is there"


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


def test_a_record_larger_than_the_limit_is_read_all_the_same(ring):
    """One at a time, wherever in the ring its head lies: at its end the head is in two pieces."""
    _writer, reader, _ = ring
    for n in range(600):
        record_number(n, size=n % 700)
        found = []
        while items := reader.drain(1):
            assert len(items) == 1
            found += items
        assert numbers_in(item[1:] for item in found) == [n]
        reader.release(reader.cursor)
    assert reader.head > 4 * CAPACITY


@pytest.mark.parametrize("head", [8, 3 * CAPACITY], ids=["behind the reader", "beyond the ring"])
def test_a_head_that_cannot_be_is_damage(ring, head):
    _writer, reader, folder = ring
    record_number(1)
    assert numbers_in(reader) == [1]
    right = reader.head
    with open(folder / "1-00000000.ring", "r+b") as file:
        file.seek(64)
        file.write(head.to_bytes(8, "little"))
    assert reader.drain(1 << 20) == []
    assert reader.damaged
    assert reader.skip_damage() == max(head - right, 0)
    assert not reader.damaged


def test_a_length_that_no_record_has_is_damage(ring):
    _writer, reader, folder = ring
    record_number(1)
    with open(folder / "1-00000000.ring", "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4)
    assert reader.drain(1 << 20) == []
    assert reader.damaged


class Undecided:
    """Neither true nor false."""

    def __bool__(self) -> bool:
        raise ArithmeticError("undecided")


NUMBERS = ("drain", "rewind", "release", "set_delivered", "add_spill_delivered", "set_server_state")


def test_a_reader_takes_numbers_and_stays_as_it_is_for_anything_else(ring):
    _writer, reader, _ = ring
    record_number(1)
    for name in NUMBERS:
        for wrong, error in (("1", TypeError), (-1, OverflowError), (1 << 64, OverflowError)):
            with pytest.raises(error):
                getattr(reader, name)(wrong)
    with pytest.raises(ArithmeticError, match="undecided"):
        reader.heartbeat(Undecided())
    with pytest.raises(TypeError):
        _core.RingReader(5)
    with pytest.raises(TypeError):
        _core.RingReader()
    assert (reader.cursor, reader.delivered, reader.spill_delivered, reader.server_state) == (
        0,
    ) * 4
    assert numbers_in(reader) == [1]


def test_a_reader_that_is_closed_says_so(ring):
    _writer, reader, _ = ring
    reader.close()
    reader.close()
    calls = [lambda name=name: getattr(reader, name)(0) for name in NUMBERS]
    calls += [reader.skip_damage, reader.take_flush, reader.alive, lambda: reader.heartbeat(False)]
    calls += [lambda: reader.head, lambda: reader.refused, lambda: reader.server_state]
    for call in calls:
        with pytest.raises(ValueError, match="the ring is closed"):
            call()


def test_program_and_sender_tell_each_other_what_they_count(ring):
    writer, reader, _ = ring
    record_number(1)
    position = reader.drain(1 << 20)[-1][0]
    reader.release(position)
    reader.set_delivered(position)
    reader.set_delivered(0)  # it does not go back
    reader.add_spill_delivered(2)
    reader.add_spill_delivered(3)
    reader.set_server_state(2)
    assert writer.progress() == (position, position, position, 0, 5, 2, 0, 0)
    assert (reader.delivered, reader.spill_delivered, reader.server_state) == (position, 5, 2)
    assert (reader.refused, reader.refused_traces, reader.spilled) == (0, 0, 0)
    assert not reader.take_flush()
    assert writer.request_flush() == 1
    assert reader.take_flush()
    assert not reader.take_flush()


def test_a_ring_that_is_closed_takes_nothing_and_holds_up_nothing(ring):
    writer, reader, _ = ring
    record_number(1)
    with mlflow.start_span("open"):
        writer.close()
        writer.close()
    assert numbers_in(item for item in items_of(reader) if item[0] == SPAN) == [1]
    assert writer.progress() is None
    assert writer.request_flush() == 0


def test_a_second_ring_that_is_closed_costs_the_first_one_nothing(ring):
    writer, reader, folder = ring
    second = _core.RingWriter(folder / "2.ring", CAPACITY, folder / "spill-2")
    _core.set_destination(writer, {"uri": "test", "experiment": {"id": "0"}}, second)
    record_number(1)
    second.close()
    record_number(2)
    assert numbers_in(reader) == [1, 2]
    assert numbers_in(folder / "2.ring") == [1]


def test_a_ring_without_room_leaves_the_trace_to_the_other(ring):
    """As where one of two destinations is away for long: dual export waits for neither."""
    writer, reader, folder = ring
    second = _core.RingWriter(None, CAPACITY, "/")  # spills nothing
    of_second = _core.RingReader(second)
    _core.set_destination(writer, {"uri": "test", "experiment": {"id": "0"}}, second)
    for n in range(200):
        record_number(n, size=500)
    kept = numbers_in(of_second)
    assert kept == list(range(len(kept)))
    assert second.progress()[7] == 200 - len(kept) > 0
    (spill,) = folder.glob("spill-*.seg")
    assert numbers_in(reader) + numbers_in(spill) == list(range(200))


@pytest.mark.parametrize("in_the_way", ["a long name", "a half made ring", "a folder", "no room"])
def test_a_ring_that_cannot_be_made_leaves_nothing_there(tmp_path, in_the_way):
    path = tmp_path / ("r" * 5000 if in_the_way == "a long name" else "r.ring")
    if in_the_way == "a half made ring":
        (tmp_path / "r.ring.new").write_bytes(b"another program's")
    if in_the_way == "a folder":
        path.mkdir()
    before = sorted(tmp_path.iterdir())
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    if in_the_way == "no room":
        resource.setrlimit(resource.RLIMIT_FSIZE, (CAPACITY, limit[1]))
    try:
        with pytest.raises(OSError) as caught:
            _core.RingWriter(path, CAPACITY, tmp_path / "spill")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    codes = {"a long name": errno.ENAMETOOLONG, "a half made ring": errno.EEXIST}
    codes |= {"a folder": errno.EISDIR, "no room": errno.EFBIG}
    assert caught.value.errno == codes[in_the_way]
    assert caught.value.filename == str(path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_ring_takes_paths_and_numbers(tmp_path):
    for wrong in ((), (1, CAPACITY, "x"), ("r", "large", "x"), ("r", CAPACITY, None)):
        with pytest.raises(TypeError):
            _core.RingWriter(*wrong)
    with pytest.raises(TypeError):
        _core.RingWriter("r", CAPACITY, "x", memory_prefix=5)


def test_a_segment_that_cannot_be_written_leaves_nothing_there(tmp_path):
    for path, records, error in (
        (tmp_path / ("s" * 5000), [b"x"], OSError),
        (tmp_path / "none" / "s.seg", [b"x"], FileNotFoundError),
        (tmp_path / "s.seg", [b"x", "no bytes"], TypeError),
        (tmp_path, [b"x"], OSError),
    ):
        with pytest.raises(error):
            _core.write_segment(path, records, 3)
        assert not list(tmp_path.iterdir())
        assert not tmp_path.with_name(f"{tmp_path.name}.new").exists()


def test_a_segment_is_read_again_from_where_reading_began(segment):
    path, records = segment
    reader = _core.SegmentReader(path)
    first = reader.read(1)
    end = reader.offset
    with pytest.raises(ValueError, match=f"offset {end + 1} has not been read yet"):
        reader.rewind(end + 1)
    for wrong in ("1", None):
        with pytest.raises(TypeError):
            reader.rewind(wrong)
        with pytest.raises(TypeError):
            reader.read(wrong)
    assert reader.offset == end
    reader.rewind(0)
    assert reader.read(1) == first
    assert [record for *_, record in first] == records
    with pytest.raises(TypeError):
        _core.SegmentReader()


# ---- forks ----


def test_a_forked_child_carries_its_trace_on_in_a_ring_of_its_own(ring):
    """There the trace is said of anew; what the parent goes on with is in the parent's ring alone."""
    _writer, reader, folder = ring

    def start_recording() -> None:
        writer = _core.RingWriter(folder / "child.ring", CAPACITY, folder / "spill-child")
        _core.set_destination(writer, {"uri": "test", "experiment": {"id": "0"}})

    with mlflow.start_span("root") as root:
        with mlflow.start_span("before"):
            pass
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                hooks.start_recording.answer(start_recording)
                with mlflow.start_span("in the child"):
                    pass
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
    of_child = items_of(folder / "child.ring")
    (span,) = spans_in(of_child)
    assert (span.name, span.parent_id) == ("in the child", root.span_id)
    assert [trace_id for trace_id, _ in traces_in(of_child)] == [root.trace_id.removeprefix("tr-")]
    assert [span.name for span in spans_in(reader)] == ["before", "root"]


def test_ids_of_a_forked_child_are_others():
    """Parent and child would go on with the same numbers."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, "".join(new_span_ids()).encode())
        finally:
            os._exit(0)
    ids = new_span_ids()
    assert os.waitpid(pid, 0)[1] == 0
    of_child = os.read(read, 1000).decode()
    os.close(read)
    os.close(write)
    assert len(of_child) == sum(map(len, ids))
    assert not any(one in of_child for one in ids)


def new_span_ids() -> list[str]:
    _core.set_destination(_core.RingWriter(None, CAPACITY, "/"), {"uri": "test"})
    try:
        return [mlflow.start_span_no_context("span").span_id for _ in range(3)]
    finally:
        destination.reset()
