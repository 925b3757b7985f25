"""What a program says at its exit of what is not delivered then."""

from __future__ import annotations

import pytest
from mlflow_fasttrace._internal.recording import flush
from mlflow_fasttrace._internal.recording.rings import Progress, Ring, rings
from mlflow_fasttrace._internal.spool.folder import Spool
from mlflow_fasttrace._internal.spool.ring_states import ServerState

URI = "http://user:secret@there"
SPOOL = Spool("name", "/spool", "/rings")
DELIVERED = {"delivered": 100, "spilled": 2, "spill_delivered": 2}
NOT_DELIVERED = {**DELIVERED, "delivered": 99}
SPILLED = {**DELIVERED, "spill_delivered": 1}


class Stopped(Ring):
    """A ring as its sender has left it."""

    def __init__(self, spool, state, *, delivered, spilled, spill_delivered):
        super().__init__(spool, URI, None, None, "")
        self._progress = Progress(100, 100, delivered, spilled, spill_delivered, state, 0, 0)

    def progress(self):
        return self._progress


@pytest.fixture
def said(monkeypatch, caplog):
    """What is logged at an exit whose deadline has passed."""

    def said(ring):
        monkeypatch.setattr(rings, "in_use", {} if ring.spool is None else {"name": ring})
        monkeypatch.setattr(rings, "orphaned", [ring] if ring.spool is None else [])
        monkeypatch.setattr(flush, "flush", lambda *args, **kwargs: False)
        monkeypatch.setenv("MLFLOW_FASTTRACE_CONTAINER_EXIT_TIMEOUT", "0")
        monkeypatch.setattr(flush.log, "warn", flush.log.logger.warning)
        caplog.clear()
        flush.at_exit()
        return caplog.messages

    return said


@pytest.mark.parametrize("progress", [NOT_DELIVERED, SPILLED], ids=["in the ring", "spilled"])
@pytest.mark.parametrize(
    ("spool", "state", "words"),
    [
        (SPOOL, ServerState.UNKNOWN, ["does not answer yet", "is kept (/spool)", "when it does"]),
        (SPOOL, ServerState.UNAVAILABLE, ["does not answer yet", "is kept (/spool)"]),
        (SPOOL, ServerState.ANSWERS, ["has not taken everything yet", "delivered afterwards"]),
        (SPOOL, ServerState.FORBIDS, ["refuses the credentials", "is kept (/spool)", "other ones"]),
        (None, ServerState.UNAVAILABLE, ["does not answer", "in memory is lost"]),
        (None, ServerState.ANSWERS, ["has not taken everything yet", "in memory is lost"]),
        (None, ServerState.FORBIDS, ["refuses the credentials", "in memory is lost"]),
    ],
)
def test_one_line_says_what_becomes_of_it_and_why(progress, spool, state, words, said):
    (line,) = said(Stopped(spool, state, **progress))
    for word in ["http://there ", *words]:
        assert word in line


@pytest.mark.parametrize("in_a_volume", [True, False])
def test_what_ends_with_a_container_is_said_to_be_lost(in_a_volume, said, monkeypatch):
    monkeypatch.setattr(flush.containers, "ends_with_this_process", lambda: True)
    monkeypatch.setattr(flush.containers, "outlives", lambda folder: in_a_volume)
    (line,) = said(Stopped(SPOOL, ServerState.UNAVAILABLE, **NOT_DELIVERED))
    assert ("is kept (/spool)" in line) == in_a_volume
    assert ("ends with its container. Raise" in line) != in_a_volume


def test_a_folder_outlives_a_container_in_a_volume_alone():
    with open("/proc/self/mountinfo") as file:
        kinds = {line.split()[4]: line.partition(" - ")[2].split()[0] for line in file}
    assert not flush.containers.outlives("/")
    assert not flush.containers.outlives("/no/such/folder")
    for point, kind in kinds.items():
        passes = point == "/" or kind in ("overlay", "tmpfs", "ramfs")
        assert flush.containers.outlives(point) != passes, (point, kind)


@pytest.mark.parametrize("spool", [SPOOL, None])
@pytest.mark.parametrize("state", ServerState)
def test_nothing_is_said_where_all_is_delivered(spool, state, said):
    assert said(Stopped(spool, state, **DELIVERED)) == []
