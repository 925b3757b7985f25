"""What a program says at its exit of what is not delivered then."""

from __future__ import annotations

import re

import pytest
from mlflow_fasttrace._internal.recording import flush
from mlflow_fasttrace._internal.recording.rings import Progress, Ring, rings
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.spool.folder import Spool
from mlflow_fasttrace._internal.spool.lock import Holder
from mlflow_fasttrace._internal.spool.ring_states import ServerState
from support.processes import run_module

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

    def let_spares_go(self):
        """It has none."""


@pytest.fixture
def said(monkeypatch, caplog):
    """What is logged at an exit whose deadline has passed."""

    def said(ring):
        monkeypatch.setattr(rings, "in_use", {} if ring.spool is None else {"name": ring})
        monkeypatch.setattr(rings, "retired", [ring] if ring.spool is None else [])
        monkeypatch.setattr(flush, "flush", lambda *args, **kwargs: False)
        monkeypatch.setenv("MLFLOW_FASTTRACE_CONTAINER_EXIT_TIMEOUT", "0")
        monkeypatch.setattr(flush.log, "warn", flush.log.logger.warning)
        caplog.clear()
        flush.at_exit()
        return caplog.messages

    return said


NEXT = "delivered by the next program that records for it, or by `mlflow-fasttrace send`."


@pytest.mark.parametrize("progress", [NOT_DELIVERED, SPILLED], ids=["in the ring", "spilled"])
@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (SPOOL, ServerState.UNKNOWN, ["has not been sent anything yet", "is kept (/spool)", NEXT]),
        (SPOOL, ServerState.UNAVAILABLE, ["takes nothing now", "is kept (/spool)", NEXT]),
        (SPOOL, ServerState.ANSWERS, ["has not taken everything yet", NEXT]),
        (SPOOL, ServerState.FORBIDS, ["refuses the credentials", "is kept (/spool)", "other ones"]),
        (None, ServerState.UNAVAILABLE, ["takes nothing now", "in memory is lost"]),
        (None, ServerState.ANSWERS, ["has not taken everything yet", "in memory is lost"]),
        (None, ServerState.FORBIDS, ["refuses the credentials", "in memory is lost"]),
    ],
)
def test_one_line_says_what_becomes_of_it_and_why(progress, found, state, words, said):
    (line,) = said(Stopped(found, state, **progress))
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


@pytest.mark.parametrize("found", [SPOOL, None])
@pytest.mark.parametrize("state", ServerState)
def test_nothing_is_said_where_all_is_delivered(found, state, said):
    assert said(Stopped(found, state, **DELIVERED)) == []


def test_the_line_names_a_sender_that_is_starting(said, monkeypatch):
    monkeypatch.setattr(flush.supervisor, "is_starting", lambda spool: True)
    (line,) = said(Stopped(SPOOL, ServerState.UNKNOWN, **NOT_DELIVERED))
    assert "is kept (/spool) and delivered by the sender that has just been started." in line


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (
            f"{URI} does not answer: X",
            ServerState.UNAVAILABLE,
            ["does not answer yet", "when it does"],
        ),
        (
            "answers 503",
            ServerState.UNAVAILABLE,
            ["takes nothing now (answers 503)", "when it does"],
        ),
        (
            None,
            ServerState.ANSWERS,
            ["has not taken everything yet", "by the sender, which goes on"],
        ),
        (
            None,
            ServerState.UNKNOWN,
            ["has not been sent anything yet", "by the sender, which goes on"],
        ),
    ],
)
def test_the_line_says_what_the_sender_knows(error, state, words, said, tmp_path, monkeypatch):
    status = Status(str(tmp_path), "http://there")
    if error is not None:
        status.error(error)
    status.end()
    monkeypatch.setattr(flush, "sender_of", lambda spool: Holder(1, "1.0"))
    spool = Spool("name", str(tmp_path), "/rings")
    (line,) = said(Stopped(spool, state, **NOT_DELIVERED))
    assert all(word in line for word in words), line


LOGS = """
import logging, mlflow_fasttrace
from mlflow_fasttrace._internal.base import log
log.warn("by itself")
{configured}
log.warn("configured")
"""
OWN_LINE = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d WARNING mlflow_fasttrace: ")


@pytest.mark.parametrize(
    ("configured", "line"),
    [
        ("logging.basicConfig(format='root %(message)s')", "root configured"),
        ("log.logger.addHandler(logging.StreamHandler())", "configured"),
        ("log.logger.addHandler(logging.NullHandler())", None),
        ("log.logger.setLevel(logging.ERROR)", None),
    ],
)
def test_lines_are_as_mlflows_where_nobody_says_otherwise(configured, line, run_program):
    process = run_program(LOGS.format(configured=configured))
    first, *rest = process.err.splitlines()
    assert OWN_LINE.sub("", first) == "by itself" != first
    assert rest == ([] if line is None else [line])


@pytest.mark.long
def test_deprecations_are_those_of_mlflow_on_the_programs_lines(own_spool):
    found = [
        run_module("programs.deprecated", module, MLFLOW_TRACKING_URI=f"sqlite:///{own_spool}/x.db")
        for module in ("mlflow", "mlflow_fasttrace")
    ]
    mlflow, ours = (process.stdout.splitlines() for process in found)
    assert len(mlflow) == 5
    assert ours == mlflow
