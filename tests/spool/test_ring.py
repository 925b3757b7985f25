"""Ring and segments: what was appended is read, and damage costs what is damaged."""

from __future__ import annotations

import os

import mlflow_fasttrace.fluent as mlflow
import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import runtime
from support.traces import spans_to_ring

CAPACITY = 64 << 10


@pytest.fixture
def ring(tmp_path):
    """A ring that the spans of this test go to, and its reader."""
    yield *spans_to_ring(tmp_path, CAPACITY), tmp_path
    runtime.reset()


def record(n: int, size: int = 10) -> None:
    with mlflow.start_span("span") as span:
        span.set_inputs({"n": n, "text": "x" * size})


def numbers(items) -> list[int]:
    return [
        _core.decode(data)[9]["mlflow.spanInputs"]["n"]
        for _position, kind, _trace, data in items
        if kind == 1
    ]


def test_round_and_round(ring):
    _writer, reader, _ = ring
    for n in range(2000):  # many times the capacity
        record(n, size=n % 700)
        items = reader.drain(1 << 20)
        assert numbers(items) == [n]
        reader.release(items[-1][0])
    assert reader.head > 5 * CAPACITY
    assert reader.head == reader.tail


def test_a_span_appears_together_with_its_record(ring):
    """An agent that is killed between the two leaves neither: nobody would know where it goes."""
    _writer, reader, _ = ring
    heads = []

    class Looks:
        def __str__(self) -> str:
            heads.append(reader.head)
            return "x"

    with mlflow.start_span("one span") as span:
        _core.live_trace(span.trace_id).tags["looks"] = Looks()
    assert heads == [0], "while the trace's record is made"
    assert sorted(kind for _, kind, _, _ in reader.drain(1 << 20)) == [1, 2]


def test_full_ring_spills_and_recovers(ring):
    writer, reader, folder = ring
    for n in range(300):
        record(n, size=500)
    assert reader.head <= CAPACITY
    (spill,) = folder.glob("spill-*.seg")
    in_ring = numbers(reader.drain(1 << 20))
    segment = _core.SegmentReader(str(spill))
    spilled = numbers(segment.read(1 << 30))
    assert sorted(in_ring + spilled) == list(range(300))
    assert reader.spill_sequence == 0
    reader.release(reader.cursor)
    record(300)
    assert reader.spill_sequence == 1, "the segment is ended"
    assert numbers(reader.drain(1 << 20)) == [300]
    assert writer.progress()[3] > 0


def test_record_larger_than_the_ring(ring):
    _writer, reader, folder = ring
    record(1, size=10 * CAPACITY)
    record(2)
    (spill,) = folder.glob("spill-*.seg")
    assert numbers(_core.SegmentReader(str(spill)).read(1 << 30)) == [1]
    assert numbers(reader.drain(1 << 20)) == [2]


def test_damage_in_the_ring(ring):
    _writer, reader, folder = ring
    for n in range(20):
        record(n)
    with open(folder / "1-00000000.ring", "r+b") as file:
        file.seek(4096 + reader.head // 2)
        file.write(b"\xff" * 64)
    before = numbers(reader.drain(1 << 20))
    assert before == list(range(len(before)))
    assert len(before) < 20
    assert reader.damaged
    assert reader.skip_damage() > 0
    record(20)
    assert numbers(reader.drain(1 << 20)) == [20]


def test_agent_is_seen_to_live_and_die(ring):
    writer, reader, _ = ring
    assert reader.alive()
    runtime.reset()
    writer.close()
    assert not reader.alive()


@pytest.mark.parametrize(
    "content", [b"", b"MFTRING1", b"\0" * 8192, b"MFTRING1" + b"\xff" * 100_000]
)
def test_hostile_ring(tmp_path, content):
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
        record(n)
    records = [data for _, _, _, data in reader.drain(1 << 20)]
    path = folder / "packed-1-1.seg"
    assert _core.write_segment(str(path), records, 3) == path.stat().st_size
    return path, records


def read_all(path) -> tuple[list[bytes], bool]:
    reader = _core.SegmentReader(str(path))
    items = reader.read(1 << 30)
    return [data for _, _, _, data in items], reader.damaged or bool(reader.rest)


def test_segment_holds_what_was_written(segment):
    path, records = segment
    assert read_all(path) == (records, False)
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_segment_with_any_byte_flipped(segment):
    path, records = segment
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        found, damaged = read_all(path)
        assert found == records or (damaged and found == records[: len(found)]), at


def test_segment_cut_off_anywhere(segment):
    path, records = segment
    good = path.read_bytes()
    for size in range(len(good)):
        path.write_bytes(good[:size])
        found, _ = read_all(path)
        assert found == records[: len(found)]


def test_bad_ring_sizes(tmp_path):
    for capacity in (0, 1, 4096, (64 << 10) + 1, 2 << 30):
        with pytest.raises(ValueError, match="a ring holds"):
            _core.RingWriter(str(tmp_path / "r.ring"), capacity, "x")
