"""Log lines of this package in the traced program."""

from __future__ import annotations

import logging
import sys

from mlflow_fasttrace._internal.base import clock
from mlflow_fasttrace._internal.base.interruptions import let_pass

logger = logging.getLogger("mlflow_fasttrace")
_WARN_EVERY_SECONDS = 60.0
#: Messages that are remembered at most; some of them hold an id, so that there may be any number.
_REMEMBERED = 1000


class _Lines(logging.Handler):
    """Writes lines as MLflow's own are, with time, level and origin, where nobody has said what becomes of the log
    of this package: neither the program, by a handler of its own, nor a test."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(
            logging.Formatter(
                "%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y/%m/%d %H:%M:%S"
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        others = [*logger.handlers, *(logger.parent.handlers if logger.parent is not None else ())]
        stream = sys.stderr
        if stream is None or any(handler is not self for handler in others):
            return
        try:
            stream.write(self.format(record) + "\n")
            stream.flush()
        except Exception as error:
            let_pass(error)
            self.handleError(record)


logger.addHandler(_Lines())


class _Warned:
    """The warnings of the last minute. No lock: a finalizer that warns, in the middle of this package's code or
    of a log handler, must wait for nobody."""

    def __init__(self) -> None:
        #: When each message was logged (``clock.monotonic``), the oldest first.
        self.at: dict[str, float] = {}

    def is_due(self, message: str) -> bool:
        """Whether a message has not been logged within the last minute; it counts as logged now. Of threads that
        ask at once, one is told so."""
        now = clock.monotonic()
        last = self.at.get(message)
        if last is not None:
            if now - last < _WARN_EVERY_SECONDS:
                return False
            taken = self.at.pop(message, None)
            if taken is not last:  # another thread was first, and puts it back, or has done so
                self.at.setdefault(message, now if taken is None else taken)
                return False
        if self.at.setdefault(message, now) is not now:
            return False
        if len(self.at) > _REMEMBERED:
            self._forget_the_oldest()
        return True

    def _forget_the_oldest(self) -> None:
        try:
            oldest = list(self.at)[: _REMEMBERED // 2]
        except RuntimeError as error:  # a finalizer that warned came in the middle: the next time
            let_pass(error)
            return
        for message in oldest:
            self.at.pop(message, None)


_warned = _Warned()


def warn(message: str) -> None:
    """Logs a warning, each message once a minute at most."""
    if _warned.is_due(message):
        logger.warning(message)
