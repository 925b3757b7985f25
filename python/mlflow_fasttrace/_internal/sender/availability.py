"""Whether the server takes anything, when it is asked again, and who hears of that."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from mlflow_fasttrace._internal.sender.exceptions import Forbidden, Unavailable
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.spool.ring_states import ServerState

logger = logging.getLogger("mlflow_fasttrace.sender")

_RETRY_AFTER_MAX_SECONDS = 300.0
_LATELY_SECONDS = 60.0


class Backoff:
    """When to try again: after 0.25 s, doubling up to 15 s, give or take a quarter; or when the
    destination says. One that took something within the last minute is likely to be back soon, and is
    asked every second."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._until = 0.0
        self._succeeded_at = float("-inf")

    def failed(self, retry_after: float | None = None) -> None:
        """Begins a pause.

        Args:
            retry_after: Seconds until the destination wants to be asked again, where it said so.
        """
        lately = time.monotonic() - self._succeeded_at < _LATELY_SECONDS
        self._delay = min(self._delay * 2 or 0.25, 1.0 if lately else 15.0)
        wait = self._delay * random.uniform(0.75, 1.25)
        if retry_after:
            # Senders do not come before that, and not all at the same moment.
            asked_for = min(retry_after, _RETRY_AFTER_MAX_SECONDS)
            wait = max(wait, asked_for * random.uniform(1.0, 1.1))
        self._until = time.monotonic() + wait

    def succeeded(self) -> None:
        """Ends the pauses."""
        self._delay = 0.0
        self._until = 0.0
        self._succeeded_at = time.monotonic()

    def waiting(self) -> bool:
        """Whether a pause is under way."""
        return time.monotonic() < self._until


class Availability:
    """What is known of the server as a whole.

    Args:
        status: Hears why the server takes nothing.
        report: Tells the programs, by their rings, what state the server is in.
    """

    def __init__(self, status: Status, report: Callable[[ServerState], None]):
        self.state = ServerState.UNKNOWN
        self.backoff = Backoff()
        self._status = status
        self._report = report
        self._since = 0.0  # when it became unavailable
        # The kinds of reasons why delivery waits that the log has: of everything, since the server
        # answered last, and of some traces only.
        self._logged: set[object] = set()
        self._logged_of_some: set[object] = set()

    def is_left_alone(self) -> bool:
        """Whether the server is unavailable and not to be asked yet."""
        return self.state is ServerState.UNAVAILABLE and self.backoff.waiting()

    def unavailable_seconds(self) -> float:
        """For how long the server has been unavailable; 0 where it is not."""
        if self.state is not ServerState.UNAVAILABLE:
            return 0.0
        return time.monotonic() - self._since

    def took_a_batch(self) -> None:
        """A batch is through, and nothing showed that the server is unavailable."""
        self.backoff.succeeded()
        self._logged.clear()
        self._set(ServerState.ANSWERS, ServerState.ANSWERS)

    def takes_nothing(self, reason: Unavailable, *, took_some: bool) -> None:
        """The server is left alone for a while.

        Args:
            reason: Why.
            took_some: The server took a part of the batch before.
        """
        self.log(reason)
        if took_some:
            # A server that comes and goes takes not little in between: the pauses stay short.
            self.backoff.succeeded()
        self.backoff.failed(reason.retry_after)
        if self.state is not ServerState.UNAVAILABLE:
            self._since = time.monotonic()
            # Before programs hear of it by their rings, since they look there for the reason.
            self._status.write()
        reported = ServerState.FORBIDS if reason.unauthenticated else ServerState.UNAVAILABLE
        self._set(ServerState.UNAVAILABLE, reported)

    def has_logged(self, kind: object) -> bool:
        """Whether the log has a reason of this kind since the server answered last."""
        return kind in self._logged

    def log(self, reason: Unavailable) -> None:
        """Says why delivery waits, of everything or of some traces: in the log once for each kind of
        reason, in the status always."""
        self._status.error(reason)
        logged = self._logged_of_some if isinstance(reason, Forbidden) else self._logged
        if reason.kind not in logged:
            logger.warning("delivery waits: %s", reason)
            logged.add(reason.kind)

    def _set(self, state: ServerState, reported: ServerState) -> None:
        self.state = state
        self._report(reported)
