"""Log lines of the program's side."""

from __future__ import annotations

import logging
import threading
import time

logger = logging.getLogger("mlflow_fasttrace")
_WARN_EVERY_SECONDS = 60.0
_warned_at: dict[str, float] = {}
_warned_lock = threading.Lock()


def warn(message: str) -> None:
    """Log a line, each message at most once a minute."""
    now = time.monotonic()
    with _warned_lock:
        last = _warned_at.get(message)
        if last is not None and now - last < _WARN_EVERY_SECONDS:
            return
        _warned_at[message] = now
    logger.warning(message)
