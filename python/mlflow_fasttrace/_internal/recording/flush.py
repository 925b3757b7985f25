"""Waiting until what this process recorded is delivered: when the program asks for it, and when it
exits."""

from __future__ import annotations

import atexit
from typing import NamedTuple

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import clock, log
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.config.uris import without_credentials
from mlflow_fasttrace._internal.recording.rings import Ring, rings
from mlflow_fasttrace._internal.recording.supervisor import (
    STARTING_SECONDS,
    has_other_credentials,
    supervisor,
)
from mlflow_fasttrace._internal.spool.ring_states import ServerState

FLUSH_SECONDS = 30.0  # that flush() waits unless it is told otherwise


def flush(timeout_seconds: float = FLUSH_SECONDS, *, accept_spooled: bool = False) -> bool:
    """Waits until all that has ended in this process is delivered.

    Args:
        timeout_seconds: How long to wait at most.
        accept_spooled: Also be content when the server does not answer and everything is safe in
            segments on disk (what an exiting process waits for).

    Returns:
        Whether that was reached. Nothing is raised: where it cannot be reached there is a warning.
    """
    try:
        return _flush(timeout_seconds, accept_spooled)
    except Exception as error:
        let_pass(error)
        log.warn(f"Delivery cannot be waited for ({type(error).__name__}: {error}).")
        return False


def _flush(timeout_seconds: float, accept_spooled: bool) -> bool:
    _core.end_abandoned()
    if environment.sender_mode() == "none":
        return True
    deadline = clock.monotonic() + timeout_seconds
    goals = []
    reachable = True
    for ring in rings:
        progress = ring.progress()
        if progress is None or progress.is_delivered:
            continue
        if not supervisor.try_to_ensure_sender(ring):
            reachable = False  # nobody delivers it, however long this waits
            continue
        ring.writer.request_flush()
        # A trace is read back from MLflow; nobody waits for a collector besides.
        accepts = accept_spooled or ring.uri in rings.second_destinations
        goals.append(_Goal(ring, progress.head, progress.spilled, accepts))
    pause = 0.001
    looked = clock.monotonic()
    while goals:
        goals = [goal for goal in goals if not goal.is_reached()]
        now = clock.monotonic()
        if not goals or now >= deadline:
            break
        if now - looked >= STARTING_SECONDS:
            looked = now
            for goal in goals:
                supervisor.try_to_ensure_sender(goal.ring)  # it may have ended meanwhile
        clock.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    return reachable and not goals


class _Goal(NamedTuple):
    """What a flush waits for at one ring."""

    ring: Ring
    head: int  # the position that is to be delivered
    spilled: int  # the number of spilled records that are to be delivered
    accept_spooled: bool

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


#: By what the sender knows of the server: why not everything is delivered, and when it will be.
_NO_ANSWER = ("does not answer yet", "when it does")
_REASONS: dict[int, tuple[str, str]] = {
    ServerState.ANSWERS: ("has not taken everything yet", "afterwards"),
    ServerState.FORBIDS: (
        "refuses the credentials of this process",
        "when a program with other ones runs",
    ),
}


def at_exit() -> None:
    """Waits, when the process exits, for MLFLOW_FASTTRACE_EXIT_TIMEOUT seconds at most, and says
    what becomes of what is not delivered then."""
    if os.getpid() != rings.pid:
        return  # a child that has forked without Python: the rings are its parent's
    flush(environment.exit_timeout_seconds(), accept_spooled=True)
    if environment.sender_mode() == "none":
        return
    for ring in rings:
        progress = ring.progress()
        if progress is None or progress.is_delivered:
            continue
        uri = without_credentials(ring.uri)
        why, then = _REASONS.get(progress.server_state, _NO_ANSWER)
        if ring.spool is None:
            log.warn(f"{uri} {why}: what this process kept in memory is lost.")
        else:
            log.warn(
                f"{uri} {why}. What this process recorded is kept ({ring.spool.folder}) and "
                f"delivered {then}."
            )


atexit.register(at_exit)
