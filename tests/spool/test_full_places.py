"""Where a record goes when the places that it should go to are full, gone or cannot be written: at the ring
itself, without a server. What was accepted is read once and in order, and what was not is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow_fasttrace as mlflow
import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import hooks, log
from mlflow_fasttrace._internal.recording import destination
from support.processes import module_path
from support.records import numbers_in, record_number, spans_in
from support.shims import build_shim
from support.spools import files_up_to
from support.waiting import wait_until

CAPACITY = 64 << 10


@pytest.fixture
def ring_at(tmp_path):
    """Has the spans of this test go to a new ring, whose two ends it returns."""

    def make(prefix: Path | str, spool_max_bytes: int = 1 << 30, memory: Path | str | None = None):
        path = tmp_path / "1-00000000.ring"
        writer = _core.RingWriter(
            path, CAPACITY, prefix, spool_max_bytes, memory and f"{memory}/spill-1-00000000"
        )
        _core.set_destination(writer, {"uri": "test", "experiment": {"id": "0"}})
        return writer, _core.RingReader(path)

    yield make
    destination.reset()


@pytest.fixture
def said():
    """What the core warns of meanwhile."""
    texts: list[str] = []
    hooks.warn.answer(texts.append)
    yield texts
    hooks.warn.answer(log.warn)


def record_spans(count: int) -> None:
    """One trace of so many spans, which are numbered, and a root."""
    with mlflow.start_span("root"):
        for n in range(count):
            with mlflow.start_span("span") as span:
                span.set_inputs({"n": n, "text": "x" * 500})


def refused_of(writer: _core.RingWriter) -> tuple[int, int]:
    """Records and traces."""
    *_, records, traces = writer.progress()
    return records, traces


def assert_the_first_ones_are_there(writer, source, count: int) -> None:
    """Spans in the order of their ends, and as many as were not refused."""
    numbers = [span.inputs["n"] for span in spans_in(source) if span.name == "span"]
    assert 0 < len(numbers) < count
    assert numbers == list(range(len(numbers)))
    records, traces = refused_of(writer)
    assert records >= count - len(numbers) > 0
    assert traces == 0


@pytest.mark.parametrize(
    "prefix", ["no-folder", "/" + "d" * 5000 + "/spill", "/" + "f/" * 2040 + "s" * 20]
)
def test_a_trace_that_finds_no_place_for_all_of_its_spans_keeps_the_first(ring_at, prefix, said):
    """The ring's last eighth is for traces that have begun; behind it there is nothing to spill to."""
    writer, reader = ring_at(prefix)
    record_spans(300)
    assert_the_first_ones_are_there(writer, reader, 300)
    assert any("neither the ring nor the spool folder has room" in text for text in said)
    with mlflow.start_span("too late") as span:
        assert span is None or not isinstance(span, _core.LiveSpan)
    assert refused_of(writer)[1] == 1, "new traces are refused as a whole"


def test_a_ring_that_may_spill_nothing_keeps_what_it_holds(ring_at, tmp_path):
    writer, reader = ring_at(tmp_path / "spill-1-00000000", spool_max_bytes=0)
    record_spans(300)
    assert_the_first_ones_are_there(writer, reader, 300)
    assert not list(tmp_path.glob("*.seg"))


def test_a_folder_that_holds_nearly_its_bound_gets_no_new_traces_until_it_holds_less(
    ring_at, tmp_path
):
    spool = tmp_path / "spool"
    spool.mkdir()
    writer, reader = ring_at(spool / "spill-1-00000000", spool_max_bytes=128 << 10)
    for n in range(600):
        record_number(n, size=500)
    found = numbers_in(reader)
    for path in sorted(spool.glob("*.seg")):
        found += numbers_in(path)
        path.unlink()
    refused, refused_traces = refused_of(writer)
    assert refused == 0
    assert found == list(range(600 - refused_traces)), "the first ones, whole"
    reader.release(reader.cursor)

    def is_admitted() -> bool:
        record_number(600)
        return 600 in numbers_in(reader)

    wait_until(is_admitted, 10, "room in the folder again")


def test_a_folder_that_somebody_removed_is_made_again(ring_at, tmp_path):
    spool = tmp_path / "spool"
    _writer, reader = ring_at(spool / "spill-1-00000000")
    for n in range(300):
        record_number(n, size=500)
    (segment,) = spool.iterdir()
    assert numbers_in(reader) + numbers_in(segment) == list(range(300))
    assert spool.stat().st_mode & 0o777 == 0o700


def test_a_segment_ends_where_the_limit_on_files_was_lowered(ring_at, tmp_path):
    _writer, reader = ring_at(tmp_path / "spill-1-00000000")
    for n in range(200):
        record_number(n, size=500)
    (first,) = tmp_path.glob("*.seg")
    with files_up_to(first.stat().st_size):
        for n in range(200, 250):
            record_number(n, size=500)
    first, *more = sorted(tmp_path.glob("*.seg"))
    assert len(more) >= 1
    found = numbers_in(reader) + numbers_in(first)
    for path in more:
        found += numbers_in(path)
    assert found == list(range(250))
    with files_up_to(8):  # not even the head of another segment
        for n in range(250, 300):
            record_number(n, size=500)
    assert sorted(tmp_path.glob("*.seg")) == [first, *more]


@pytest.mark.parametrize("size", [8, 4 << 10], ids=["its head", "its first pages"])
def test_a_segment_in_memory_that_cannot_be_made_leaves_nothing_there(
    ring_at, tmp_path, memory, size
):
    """The disk takes what files of that size can hold."""
    writer, reader = ring_at(tmp_path / "spill-1-00000000", memory=memory)
    with files_up_to(size):
        for n in range(120):
            record_number(n, size=500)
    assert not list(memory.iterdir())
    on_disk = sorted(tmp_path.glob("*.seg"))
    assert bool(on_disk) == (size > 8)
    found = numbers_in(reader)
    for path in on_disk:
        found += numbers_in(path)
    refused, refused_traces = refused_of(writer)
    assert refused == 0
    assert found == list(range(120 - refused_traces))


@pytest.mark.parametrize("in_the_way", ["a file", "no folder", "a name too long"])
def test_memory_that_takes_no_segment_is_passed_over(ring_at, tmp_path, memory, in_the_way):
    if in_the_way == "a file":
        (memory / "spill-1-00000000-000000.seg").write_bytes(b"another program's")
    place = {"a file": memory, "no folder": memory / "none"}.get(in_the_way, "/" + "d" * 5000)
    _writer, reader = ring_at(tmp_path / "spill-1-00000000", memory=place)
    for n in range(300):
        record_number(n, size=500)
    (segment,) = tmp_path.glob("*.seg")
    assert numbers_in(reader) + numbers_in(segment) == list(range(300))
    for path in memory.glob("*.seg"):
        assert path.read_bytes() == b"another program's"


#: Records a thousand traces, and prints what is to be read of it.
RECORDS = """
import json, os, sys
from pathlib import Path
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import destination
from support.records import numbers_in, record_number

folder = Path(sys.argv[1])
writer = _core.RingWriter(folder / "1.ring", 64 << 10, folder / "spill-1")
reader = _core.RingReader(writer)
_core.set_destination(writer, {{"uri": "test", "experiment": {{"id": "0"}}}})
{then}
for n in range(1000):
    record_number(n, size=700)
found = numbers_in(reader)
segments = sorted(folder.glob("*.seg"))
for segment in segments:
    found += numbers_in(segment)
refused, refused_traces = writer.progress()[6:]
destination.reset()
print(json.dumps([found, refused, refused_traces, [path.stat().st_size for path in segments]]))
"""


def run_under(shim: str, folder: Path, then: str = "") -> tuple[list[int], list[int]]:
    """The numbers that are there, which are all that were accepted, and the segments' sizes."""
    result = subprocess.run(
        [sys.executable, "-c", RECORDS.format(then=then), str(folder)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": module_path(),
            "LD_PRELOAD": build_shim(shim, folder),
        },
    )
    assert result.returncode == 0, result.stderr
    found, refused, refused_traces, sizes = json.loads(result.stdout)
    assert refused == 0
    assert len(set(found)) == len(found) == 1000 - refused_traces
    return found, sizes


def test_a_frame_that_a_full_disk_took_in_part_is_cut_off(tmp_path):
    """What precedes it can be read, and what the ring takes instead."""
    found, (size,) = run_under("full_disk", tmp_path)
    assert 98 << 10 < size < 100 << 10
    assert len(found) < 1000


def test_a_segment_whose_head_finds_no_room_is_removed(tmp_path):
    then = "os.environ['FULL_DISK_BYTES'] = '8'"
    found, sizes = run_under("full_disk", tmp_path, then)
    assert 0 < len(found) < 100
    assert sizes == []


def test_a_program_that_may_have_no_more_threads_spills_all_the_same(tmp_path):
    then = """
import threading
try:
    threading.Thread(target=int).start()
except RuntimeError:
    pass
else:
    raise SystemExit("a thread was started")
"""
    found, sizes = run_under("no_threads", tmp_path, then)
    assert found == list(range(1000))
    assert len(sizes) == 1
