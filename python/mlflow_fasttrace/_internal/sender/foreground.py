"""Delivering a spool in the foreground: ``mlflow-fasttrace send``.

The same sender as in the background, under the same lock, until nothing is left. Where another
sender is at work, it is waited for.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from mlflow_fasttrace._internal.sender.assemble import TraceBuffer
from mlflow_fasttrace._internal.sender.life import (
    POLL_BUSY_SECONDS,
    POLL_IDLE_SECONDS,
    sender_for,
)
from mlflow_fasttrace._internal.sender.loop import Sender
from mlflow_fasttrace._internal.sender.sources import Entry, RingSource, SpillSegment
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.spool import overview
from mlflow_fasttrace._internal.spool.files import dead_letter_paths, new_segment_path, note_of
from mlflow_fasttrace._internal.spool.folder import Spool, remove_if_empty
from mlflow_fasttrace._internal.spool.lock import Lock, sender_of
from mlflow_fasttrace._internal.spool.ring_states import ServerState
from mlflow_fasttrace._internal.spool.status_file import SERVER_STATES, read_status

#: For how long a server that is unavailable is tried, unless a timeout says otherwise.
_PATIENCE_SECONDS = 20.0

_WATCH_SECONDS = 0.1

#: For how long the account of the sender at work may lag behind the spool. It is written once a second
#: where it has changed.
_ACCOUNT_SECONDS = 3.0
_UNAVAILABLE = SERVER_STATES[ServerState.UNAVAILABLE]


class Progress(NamedTuple):
    """What has been delivered since the start."""

    spans: int = 0
    bytes: int = 0
    traces: int = 0
    refused: int = 0


class Outcome(NamedTuple):
    """What a delivery has come to.

    ``complete``: nothing waits that was there; else ``reason`` says why. ``running``: the number of
    traces that are sent when they end.
    """

    progress: Progress
    complete: bool
    reason: str = ""
    running: int = 0


class _Patience:
    """When to give up: at the deadline, or without one when a server has been unavailable for long."""

    def __init__(self, deadline: float | None):
        self._deadline = deadline
        self._last = time.monotonic()
        self._progress: Progress | None = None

    def ended(self, progress: Progress, *, unavailable: bool) -> bool:
        """Whether it is time to give up.

        Args:
            progress: As of now.
            unavailable: Whether the server takes nothing now, or not what is left.
        """
        now = time.monotonic()
        if self._deadline is not None:
            return now >= self._deadline
        if not unavailable or progress != self._progress:
            self._progress, self._last = progress, now
        return now - self._last >= _PATIENCE_SECONDS


def retry_refused(spool: Spool) -> int:
    """Puts dead letters back in line: as segments, which any sender of the spool will find.

    Returns:
        The number of dead letters.
    """
    count = 0
    for path in dead_letter_paths(spool.folder):
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            os.rename(path, new_segment_path(spool.folder))
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
    """Delivers all that waits in a spool now. Programs may add more meanwhile, which is not waited
    for.

    Args:
        spool: The spool.
        uri: Where to, with what credentials.
        report: Is called from time to time with how far the delivery is.
        deadline: When to give up (``time.monotonic``).
        instead_of: The destination that the records name, where ``uri`` is another one.

    Raises:
        OSError: the spool's folder cannot be used.
    """
    spool.make_folder()
    lock = Lock(spool.lock, stays=True)
    patience = _Patience(deadline)
    try:
        before = _numbers(read_status(spool.folder))
        while not lock.take():
            if instead_of is not None:
                holder = sender_of(spool)
                pid = holder.pid if holder else "?"
                reason = f"sender {pid} is delivering it to {instead_of}; stop it first"
                return Outcome(Progress(), False, reason)
            status = read_status(spool.folder)
            progress = _since(before, _numbers(status))
            report(progress)
            if not overview.something_waits(spool):
                return Outcome(_since(before, _numbers(_last_account(spool))), True)
            unavailable = status is not None and status["server"] == _UNAVAILABLE
            if patience.ended(progress, unavailable=unavailable):
                return Outcome(progress, False, _last_error(status))
            time.sleep(_WATCH_SECONDS)
        try:
            return _deliver(spool, uri, report, patience, instead_of, before)
        except MemoryError:
            progress = _since(before, _numbers(read_status(spool.folder)))
            return Outcome(progress, False, "there is no memory to send what is left")
        finally:
            lock.release()
    finally:
        lock.close()


def _last_account(spool: Spool) -> dict[str, Any] | None:
    """The account of the sender at work that tells what became of all that was in a spool.

    Args:
        spool: A spool that has just been seen empty.
    """
    emptied, deadline = time.time(), time.monotonic() + _ACCOUNT_SECONDS
    while True:
        status = read_status(spool.folder)
        if (status and status["updated"] >= emptied) or time.monotonic() >= deadline:
            return status
        time.sleep(_WATCH_SECONDS)


def _deliver(
    spool: Spool,
    uri: str,
    report: Callable[[Progress], None],
    patience: _Patience,
    instead_of: str | None,
    before: Progress,
) -> Outcome:
    sender = sender_for(spool.folder, spool.rings, uri, instead_of=instead_of)
    began = time.time()
    sender.scan()
    goals = {path: ring.reader.head for path, ring in sender.intake.rings.items()}
    pause = POLL_BUSY_SECONDS
    try:
        while True:
            busy = sender.step()
            progress = _since(before, _counted(sender.status))
            report(progress)
            if _reached(sender, goals):
                sender.intake.sweep()
                sender.forget_open_traces()
                return Outcome(progress, True, running=len(_running(sender)))
            unavailable = sender.availability.state is ServerState.UNAVAILABLE
            stuck = unavailable or _some_are_forbidden(sender)
            if patience.ended(progress, unavailable=stuck):
                error = sender.status.last_error
                if error is not None and error["time"] >= began:
                    return Outcome(progress, False, error["text"])
                return Outcome(progress, False, "the time is up")
            if busy:
                pause = POLL_BUSY_SECONDS
                continue
            if not unavailable:
                _send_incomplete(sender)
            time.sleep(pause)
            pause = min(pause * 1.25, POLL_IDLE_SECONDS)
    finally:
        sender.status.end()
        remove_if_empty(spool.rings)


def _send_incomplete(sender: Sender) -> None:
    """Lets traces go as they are when everything is read, and spans without a trace record be set
    aside."""
    sender.intake.flush_wanted = True
    if not sender.intake.has_live_program():
        for trace in sender.assembler.open.values():
            if trace.info is None:
                trace.since = float("-inf")


def _reached(sender: Sender, goals: dict[str, int]) -> bool:
    """Whether everything is delivered that was there, but for traces that are sent when they end."""
    if any(ring.reader.cursor < goals.get(path, 0) for path, ring in sender.intake.rings.items()):
        return False
    for segment in sender.intake.segments.values():
        # The segment that a live program has begun stays until the program begins another one.
        if not segment.loaded and (not isinstance(segment, SpillSegment) or segment.reader.rest):
            return False
    if sender.assembler.has_deferred():
        return False
    running = _running(sender)
    return all(
        trace_id in running or all(_is_later(entry, goals) for entry in trace.entries())
        for trace_id, trace in sender.assembler.open.items()
    )


def _running(sender: Sender) -> set[bytes]:
    """The ids of the traces that are sent when they end."""

    def waits_for_end(trace: TraceBuffer) -> bool:
        schedule = trace.schedule
        waits_for_a_try = schedule.failures or schedule.denials or schedule.shortages
        return not waits_for_a_try and all(entry.postponed for entry in trace.entries())

    return {trace_id for trace_id, trace in sender.assembler.open.items() if waits_for_end(trace)}


def _some_are_forbidden(sender: Sender) -> bool:
    """Whether the server is there, and does not take some of the traces now."""
    return any(trace.schedule.denials for trace in sender.assembler.open.values())


def _is_later(entry: Entry, goals: dict[str, int]) -> bool:
    source = entry.source
    return isinstance(source, RingSource) and entry.position > goals.get(source.path or "", 0)


def _counted(status: Status) -> Progress:
    return Progress(status.spans, status.bytes, status.traces, status.refused)


def _numbers(status: dict[str, Any] | None) -> Progress:
    if status is None:
        return Progress()
    delivered = status["delivered"]
    return Progress(delivered["spans"], delivered["bytes"], delivered["traces"], status["refused"])


def _since(before: Progress, now: Progress) -> Progress:
    return Progress(*(max(0, b - a) for a, b in zip(before, now, strict=True)))


def _last_error(status: dict[str, Any] | None) -> str:
    if status and status["last_error"]:
        return status["last_error"]["text"]
    return "the sender at work has not finished"
