"""Log lines of this package in the traced program."""

from __future__ import annotations

import logging

from mlflow_fasttrace._internal.base import clock, locks

logger = logging.getLogger("mlflow_fasttrace")
_WARN_EVERY_SECONDS = 60.0
#: Messages that are remembered at most; some of them hold an id, so that there may be any number.
_REMEMBERED = 1000


class _Warned:
    """The warnings of the last minute."""

    def __init__(self) -> None:
        #: Held while ``at`` is looked at and changed, not while a line is logged.
        self.lock = locks.Lock()
        #: When each message was logged (``clock.monotonic``), the oldest first.
        self.at: dict[str, float] = {}

    def is_due(self, message: str) -> bool:
        """Whether a message has not been logged within the last minute; it counts as logged now."""
        now = clock.monotonic()
        with self.lock:
            last = self.at.pop(message, None)
            due = last is None or now - last >= _WARN_EVERY_SECONDS
            self.at[message] = now if due or last is None else last
            if len(self.at) > _REMEMBERED:
                # A copy: a signal handler that warns changes it meanwhile.
                for old in list(self.at)[: _REMEMBERED // 2]:
                    self.at.pop(old, None)
            return due


_warned = _Warned()


def warn(message: str) -> None:
    """Logs a warning, each message once a minute at most."""
    if _warned.is_due(message):
        logger.warning(message)
