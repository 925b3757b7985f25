"""Log lines of this package in the traced program."""

from __future__ import annotations

import logging
import threading
import time

logger = logging.getLogger("mlflow_fasttrace")
_WARN_EVERY_SECONDS = 60.0
_warned_at: dict[str, float] = {}  # by message (``time.monotonic``)
# The lock is not re-entrant: a signal handler, or a finalizer that a garbage collection runs, that
# warns in a thread that holds it would wait for ever.
_warned_lock = threading.Lock()


def warn(message: str) -> None:
    """Logs a warning, each message once a minute at most."""
    now = time.monotonic()
    with _warned_lock:
        last = _warned_at.get(message)
        if last is not None and now - last < _WARN_EVERY_SECONDS:
            return
        _warned_at[message] = now
    logger.warning(message)
