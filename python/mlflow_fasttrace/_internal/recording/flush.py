"""Waiting until what this process recorded is delivered: when the program asks for it, and when it
exits."""

from __future__ import annotations

import atexit
from typing import NamedTuple

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import clock, log
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.config import environment, otlp
from mlflow_fasttrace._internal.config.uris import absolute_uri, without_credentials
from mlflow_fasttrace._internal.recording import containers, destination
from mlflow_fasttrace._internal.recording.rings import Progress, Ring, rings
from mlflow_fasttrace._internal.recording.supervisor import (
    STARTING_SECONDS,
    has_other_credentials,
    supervisor,
)
from mlflow_fasttrace._internal.spool.lock import sender_of
from mlflow_fasttrace._internal.spool.ring_states import ServerState

_SAY_EVERY_SECONDS = 10.0  # that an exit goes on waiting
_LOOK_SECONDS = 1.0
_NO_ANSWER = "does not answer"  # as senders say it (sender/connection.py, collectors.py)
_REASON_CHARACTERS = 200

#: That flush() waits without anything being delivered, unless it is told otherwise.
FLUSH_SECONDS = 30.0


def flush(
    timeout_seconds: float | None = None,
    *,
    accept_spooled: bool = False,
    everything: bool = False,
    only: str | None = None,
) -> bool:
    """Waits until all that has ended in this process is delivered.

    Args:
        timeout_seconds: How long to wait at most. None: as long as it takes, as MLflow does, unless nothing
            at all is delivered for ``FLUSH_SECONDS``.
        accept_spooled: Also be content when the server does not answer and everything is safe in
            segments on disk (what an exiting process waits for).
        everything: Wait for all destinations alike. Otherwise, of those that traces do not go to any more, or
            go to besides, one that does not answer is not waited for.
        only: The tracking URI of the one destination to wait for; None: all.

    Returns:
        Whether that was reached. Nothing is raised: where it cannot be reached there is a warning.
    """
    try:
        return _flush(timeout_seconds, accept_spooled, everything, only)
    except Exception as error:
        let_pass(error)
        log.warn(f"Delivery cannot be waited for ({type(error).__name__}: {error}).")
        return False


def what_waits() -> str:
    """What this process recorded that is not delivered, in words: why it waits, by destination."""
    waiting = []
    for ring in rings:
        progress = ring.progress()
        if progress is not None and not progress.is_delivered:
            uri = without_credentials(ring.uri)
            waiting.append(f"{uri} {_why_it_waits(ring, progress)}")
    return "; ".join(waiting)


def before_reading(uri: str | None = None) -> None:
    """Waits until what this process recorded can be read; not where the server is known not to answer.

    Args:
        uri: The tracking URI that is read from; None: the one in force.
    """
    try:
        place = _place_of(uri)
    except Exception as error:
        let_pass(error)
        place = None  # the read itself says what is wrong
    flush(accept_spooled=True, only=place)


def _place_of(uri: str | None) -> str | None:
    """The URI by which the rings have what is read from a tracking URI."""
    in_force = destination.tracking_uri()
    if destination.chosen.in_force and uri in (None, in_force):
        first = rings.first_uri
        if first is not None and not otlp.is_collector(first):
            return first
    return absolute_uri(uri or in_force)


def _flush(
    timeout_seconds: float | None, accept_spooled: bool, everything: bool, only: str | None
) -> bool:
    _core.end_abandoned()
    if environment.sender_mode() == "none":
        return True
    wait_seconds = FLUSH_SECONDS if timeout_seconds is None else timeout_seconds
    deadline = clock.monotonic() + wait_seconds
    supervisor.recover()
    goals = []
    reachable = True
    for ring in rings:
        progress = ring.progress()
        if progress is None or progress.is_delivered or only not in (None, ring.uri):
            continue
        if not supervisor.try_to_ensure_sender(ring):
            reachable = False  # nobody delivers it, however long this waits
            continue
        ring.writer.request_flush()
        # A trace is read back from where traces go now.
        supervisor.help(ring)
        accepts = accept_spooled or (ring.uri != rings.first_uri and not everything)
        goals.append(_Goal(ring, progress.head, progress.spilled, accepts))
    pause = 0.001
    looked = clock.monotonic()
    delivered = [goal.delivered() for goal in goals]
    while goals:
        goals = [goal for goal in goals if not goal.is_reached()]
        now = clock.monotonic()
        before, delivered = delivered, [goal.delivered() for goal in goals]
        if timeout_seconds is None and delivered != before:
            deadline = now + wait_seconds
        if not goals or now >= deadline:
            break
        if now - looked >= STARTING_SECONDS:
            looked = now
            supervisor.recover()
            for goal in goals:
                supervisor.try_to_ensure_sender(goal.ring)  # it may have ended meanwhile
                supervisor.help(goal.ring)
        clock.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    return reachable and not goals


class _Goal(NamedTuple):
    """What a flush waits for at one ring."""

    ring: Ring
    head: int  # the position that is to be delivered
    spilled: int  # the number of spilled records that are to be delivered
    accept_spooled: bool

    def delivered(self) -> tuple[int, int]:
        """How far delivery is: a position of the ring, and a number of spilled records."""
        progress = self.ring.progress()
        return (0, 0) if progress is None else (progress.delivered, progress.spill_delivered)

    def is_reached(self) -> bool:
        progress = self.ring.progress()
        if progress is None:
            return True
        if progress.delivered >= self.head and progress.spill_delivered >= self.spilled:
            return True
        return (
            self.accept_spooled
            and progress.server_state >= ServerState.UNAVAILABLE
            and progress.tail >= self.head
            and not self.ring.spilled_to_memory()  # the sender is moving that to disk
            and self._sender_has_had_its_say(progress.server_state)
        )

    def _sender_has_had_its_say(self, server_state: int) -> bool:
        """False while a sender with other credentials has yet to find out whether the server lets it
        in; it is started here where it is needed."""
        ring = self.ring
        if server_state != ServerState.FORBIDS or ring.spool is None:
            return True
        if has_other_credentials(ring):
            supervisor.try_to_ensure_sender(ring)
        return ring.credentials_of_sender == ring.credentials


def _why_it_waits(ring: Ring, progress: Progress) -> str:
    """Why not everything of a ring is delivered, in words that follow the name of its destination."""
    if progress.server_state == ServerState.ANSWERS:
        return "has not taken everything yet"
    if progress.server_state == ServerState.FORBIDS:
        return "refuses the credentials of this process"
    if progress.server_state == ServerState.UNKNOWN:
        return "has not been sent anything yet"
    from mlflow_fasttrace._internal.spool.status_file import read_status

    status = read_status(ring.spool.folder) if ring.spool is not None else None
    last = status["last_error"] if status is not None else None
    if last is None:
        return "takes nothing now"
    if _NO_ANSWER in last["text"]:
        return f"{_NO_ANSWER} yet"
    return f"takes nothing now ({last['text'][:_REASON_CHARACTERS]})"


def _when_it_goes_on(ring: Ring, progress: Progress) -> str:
    """When what is kept will be delivered."""
    if progress.server_state == ServerState.FORBIDS:
        return "by `mlflow-fasttrace send` with other ones in its environment"
    sender = sender_of(ring.spool) if ring.spool is not None else None
    if sender is None or sender.pid in (0, os.getpid()):
        if ring.spool is not None and supervisor.is_starting(ring.spool):
            return "by the sender that has just been started"
        return "by the next program that records for it, or by `mlflow-fasttrace send`"
    if progress.server_state == ServerState.UNAVAILABLE:
        return "when it does"
    return "by the sender, which goes on"


def at_exit() -> None:
    """Waits, when the process exits, for MLFLOW_FASTTRACE_EXIT_TIMEOUT seconds at most, or, where nothing that it
    leaves would be there afterwards, MLFLOW_FASTTRACE_CONTAINER_EXIT_TIMEOUT; and says what becomes of what is
    not delivered then."""
    if os.getpid() != rings.pid:
        return  # a child that has forked without Python: the rings are its parent's
    flush(environment.exit_timeout_seconds(), accept_spooled=True)
    for ring in rings:
        ring.let_spares_go()
    if environment.sender_mode() == "none":
        return
    first = containers.ends_with_this_process()
    if passing := [ring for ring in rings if _passes_with_this_process(ring, first)]:
        _wait_as_long_as_it_takes(passing)
    for ring in rings:
        progress = ring.progress()
        if progress is None or progress.is_delivered:
            continue
        if not first:
            supervisor.hand_over(ring)
        uri = without_credentials(ring.uri)
        why = _why_it_waits(ring, progress)
        if ring.spool is None:
            log.warn(f"{uri} {why}: what this process kept in memory is lost.")
        elif _passes_with_this_process(ring, first):
            log.warn(
                f"{uri} {why}: what this process recorded ends with its container. Raise "
                "MLFLOW_FASTTRACE_CONTAINER_EXIT_TIMEOUT, or set MLFLOW_FASTTRACE_SPOOL_DIR to a folder "
                "in a volume."
            )
        else:
            log.warn(
                f"{uri} {why}. What this process recorded is kept ({ring.spool.folder}) and "
                f"delivered {_when_it_goes_on(ring, progress)}."
            )


def _passes_with_this_process(ring: Ring, first: bool) -> bool:
    """Whether something that a ring's process recorded is neither delivered nor anywhere where it would be
    afterwards.

    Args:
        ring: Of this process.
        first: All other processes end with this one.
    """
    progress = ring.progress()
    if progress is None or progress.is_delivered:
        return False
    if ring.spool is None:
        return True
    if not first:
        return False
    on_disk = progress.tail >= progress.head and not ring.spilled_to_memory()
    return not (on_disk and containers.outlives(ring.spool.folder))


def _wait_as_long_as_it_takes(passing: list[Ring]) -> None:
    """Waits for the delivery of what would be lost, as MLflow does, and says so again and again."""
    end = clock.monotonic() + environment.container_exit_timeout_seconds()
    say_at = 0.0
    while passing and (left := end - (began := clock.monotonic())) > 0:
        if began >= say_at:
            say_at = began + _SAY_EVERY_SECONDS
            for ring in passing:
                log.warn(
                    f"Nothing that this process leaves outlives it, so it waits until {_waiting(ring)} are "
                    f"delivered to {without_credentials(ring.uri)}, for {left:.0f} seconds at most "
                    "(MLFLOW_FASTTRACE_CONTAINER_EXIT_TIMEOUT)."
                )
        flush(min(_LOOK_SECONDS, left), everything=True)
        passing = [ring for ring in passing if not _is_delivered(ring)]
        if clock.monotonic() - began < _LOOK_SECONDS / 2:
            return  # nobody delivers the rest, however long this waits


def _is_delivered(ring: Ring) -> bool:
    progress = ring.progress()
    return progress is None or progress.is_delivered


def _waiting(ring: Ring) -> str:
    progress = ring.progress()
    if progress is None:
        return "0 KB"
    kilobytes = f"{(progress.head - progress.delivered) / 1000:.0f} KB"
    spilled = progress.spilled - progress.spill_delivered
    return f"{kilobytes} and {spilled} records more" if spilled > 0 else kilobytes


atexit.register(at_exit)
