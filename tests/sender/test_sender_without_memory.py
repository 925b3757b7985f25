"""A sender that finds no memory: nothing is set aside for that, nothing counts as delivered."""

from __future__ import annotations

import time

import pytest
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.sender import life
from support.processes import run_module
from support.records import record_number, spans_to_ring


def test_all_arrives_though_any_allocation_of_the_sender_fails(tmp_path):
    """Nothing becomes a dead letter, and nothing is acknowledged that the destination did not get."""
    pytest.importorskip("_testcapi")
    result = run_module("programs.sender_short_of_memory", str(tmp_path))
    assert "infos 2639 spans 5275 recorded 2639" in result.stdout
    # Which of them there are depends on what was allocated before.
    fates = (
        "waits: there is no memory to send it",
        "records are left where they are until there is memory for them",
        "the sender begins again with what is not delivered",
    )
    assert any(fate in result.stdout for fate in fates)


def test_a_spilled_segment_that_waits_for_memory_outlives_its_ring(tmp_path, monkeypatch):
    """The program ends meanwhile, and its ring is removed."""
    rings, folder = tmp_path / "rings", tmp_path / "state"
    for made in (rings, folder):
        made.mkdir()
    writer, _reader = spans_to_ring(rings, 64 << 10)
    for n in range(150):
        record_number(n, size=500)
    (spilled,) = rings.glob("spill-*.seg")
    spilled.rename(folder / spilled.name)
    intake = life.sender_for(str(folder), str(rings), "http://x").intake
    intake.scan()
    (segment,) = intake.segments.values()

    def no_memory() -> list:
        raise MemoryError

    monkeypatch.setattr(segment, "read", no_memory)
    in_ring = intake.read()
    assert in_ring > 0
    assert intake.has_unread_files()
    monkeypatch.undo()
    destination.reset()
    writer.close()
    (ring,) = intake.rings.values()
    for entry in ring.pending:
        entry.acknowledge()
    intake.settle()
    intake.sweep()
    assert not intake.rings
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 3600)
    intake.scan()
    assert in_ring + intake.read() == 300, "a span and a trace each"
    assert not intake.has_unread_files()
