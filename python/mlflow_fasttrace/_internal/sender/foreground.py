"""Delivering a spool in the foreground: ``mlflow-fasttrace send``.

The same sender as in the background, under the same lock, until nothing is left. Where another
sender is at work, it is waited for.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

from mlflow_fasttrace._internal.config import otlp
from mlflow_fasttrace._internal.sender.assemble import Assembler
from mlflow_fasttrace._internal.sender.delivery import INFOS_AT_ONCE
from mlflow_fasttrace._internal.sender.life import sender_for
from mlflow_fasttrace._internal.sender.loop import (
    POLL_BUSY_SECONDS,
    POLL_IDLE_SECONDS,
    SERVER_AWAY,
    Sender,
)
from mlflow_fasttrace._internal.sender.sources import Entry, RingSource, SpillSegment
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.spool import overview
from mlflow_fasttrace._internal.spool.files import dead_letter_paths, new_segment_path, note_of
from mlflow_fasttrace._internal.spool.folder import Spool, remove_if_empty
from mlflow_fasttrace._internal.spool.lock import Lock, sender_of
from mlflow_fasttrace._internal.spool.status_file import read_status

#: A server that is away is tried for so long, unless a timeout says otherwise.
PATIENCE_SECONDS = 20.0

_WATCH_SECONDS = 0.1


class Progress(NamedTuple):
    """What has been delivered since the start."""

    spans: int = 0
    bytes: int = 0
    traces: int = 0
    refused: int = 0


class Outcome(NamedTuple):
    progress: Progress
    complete: bool
    reason: str = ""  # why it is not complete
    running: int = 0  # traces that are sent when they end


class _Afresh(Assembler):
    """For another server than the one that may have acknowledged a trace's info: it needs all."""

    def add(self, entries: list[Entry]) -> None:
        for entry in entries:
            entry.info_sent = False
        super().add(entries)


class _Patience:
    """When to give up: at the deadline, or without one when a server has been away for long."""

    def __init__(self, deadline: float | None):
        self._deadline = deadline
        self._last = time.monotonic()
        self._progress: Progress | None = None

    def ended(self, progress: Progress, away: bool) -> bool:
        now = time.monotonic()
        if self._deadline is not None:
            return now >= self._deadline
        if not away or progress != self._progress:
            self._progress, self._last = progress, now
        return now - self._last >= PATIENCE_SECONDS


def retry_refused(spool: Spool) -> int:
    """Puts dead letters back in line: as segments, which any sender of the spool will find."""
    count = 0
    for path in dead_letter_paths(spool.state):
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            os.rename(path, new_segment_path(spool.state))
            count += 1
            os.unlink(note_of(path))
        except FileNotFoundError:
            pass
    return count


def deliver(
    spool: Spool,
    uri: str,
    report: Callable[[Progress], None],
    *,
    deadline: float | None = None,
    instead_of: str | None = None,
) -> Outcome:
    """Delivers all that waits in a spool, as far as it waits now: what live agents add is not
    waited for.

    Args:
        spool: The spool.
        uri: Where to, with what credentials.
        report: Is told from time to time how far it is.
        deadline: When to give up (``time.monotonic``).
        instead_of: The destination that the records name, where ``uri`` is another one.

    Raises:
        OSError: the spool's folder cannot be used.
    """
    spool.make_state()
    lock = Lock(spool.lock, stays=True)
    patience = _Patience(deadline)
    try:
        before = _numbers(read_status(spool.state))
        while not lock.take():
            if instead_of is not None:
                holder = sender_of(spool)
                reason = f"sender {holder.pid if holder else '?'} is delivering it to {instead_of}; stop it first"
                return Outcome(Progress(), False, reason)
            status = read_status(spool.state)
            progress = _since(before, _numbers(status))
            report(progress)
            if not overview.something_waits(spool):
                return Outcome(progress, True)
            if patience.ended(progress, bool(status) and status["server"] == "away"):
                return Outcome(progress, False, _last_error(status))
            time.sleep(_WATCH_SECONDS)
        try:
            with ThreadPoolExecutor(INFOS_AT_ONCE) as executor:
                return _deliver(spool, uri, executor, report, patience, instead_of)
        finally:
            lock.release()
    finally:
        lock.close()


def _deliver(
    spool: Spool,
    uri: str,
    executor: Executor,
    report: Callable[[Progress], None],
    patience: _Patience,
    instead_of: str | None,
) -> Outcome:
    sender = sender_for(spool.state, spool.rings, uri, executor)
    if instead_of is not None:
        if not otlp.is_collector(uri):
            sender.assembler = _Afresh()
        sender.status.destination = instead_of  # the spool's remains what it was
    before = _counted(sender.status)
    began = time.time()
    sender.scan()
    goals = {path: ring.reader.head for path, ring in sender.rings.items()}
    pause = POLL_BUSY_SECONDS
    try:
        while True:
            busy = sender.step()
            progress = _since(before, _counted(sender.status))
            report(progress)
            if _reached(sender, goals):
                sender.sweep()
                sender.forget_open_traces()
                return Outcome(progress, True, running=len(_held(sender)))
            away = sender.server_state == SERVER_AWAY
            if patience.ended(progress, away):
                error = sender.status.last_error
                fresh = error is not None and error["time"] >= began
                return Outcome(progress, False, error["text"] if fresh else "the time is up")
            if busy:
                pause = POLL_BUSY_SECONDS
                continue
            if not away:
                _all_is_read(sender)
            time.sleep(pause)
            pause = min(pause * 1.25, POLL_IDLE_SECONDS)
    finally:
        sender.status.end()
        remove_if_empty(spool.rings)


def _all_is_read(sender: Sender) -> None:
    """What is still incomplete goes as it is, and what no record belongs to is set aside."""
    sender.flush_wanted = True
    if not any(ring.reader.alive() for ring in sender.rings.values()):
        for trace in sender.assembler.open.values():
            if trace.info is None:
                trace.since = float("-inf")


def _reached(sender: Sender, goals: dict[str, int]) -> bool:
    """Whether everything is delivered that was there, but for traces that are sent when they end."""
    if any(ring.reader.cursor < goals.get(path, 0) for path, ring in sender.rings.items()):
        return False
    for segment in sender.segments.values():
        # The segment that a live agent has begun stays until it begins another one.
        if not segment.loaded and (not isinstance(segment, SpillSegment) or segment.reader.rest):
            return False
    held = _held(sender)
    return all(
        trace_id in held or all(_is_later(entry, goals) for entry in trace.entries())
        for trace_id, trace in sender.assembler.open.items()
    )


def _held(sender: Sender) -> set[bytes]:
    return {
        trace_id
        for trace_id, trace in sender.assembler.open.items()
        if not trace.failures and all(entry.held for entry in trace.entries())
    }


def _is_later(entry: Entry, goals: dict[str, int]) -> bool:
    source = entry.source
    return isinstance(source, RingSource) and entry.position > goals.get(source.path or "", 0)


def _counted(status: Status) -> Progress:
    return Progress(status.spans, status.bytes, status.traces, status.refused)


def _numbers(status: dict | None) -> Progress:
    if status is None:
        return Progress()
    delivered = status["delivered"]
    return Progress(delivered["spans"], delivered["bytes"], delivered["traces"], status["refused"])


def _since(before: Progress, now: Progress) -> Progress:
    return Progress(*(max(0, b - a) for a, b in zip(before, now, strict=True)))


def _last_error(status: dict | None) -> str:
    if status and status["last_error"]:
        return status["last_error"]["text"]
    return "the sender at work has not finished"
