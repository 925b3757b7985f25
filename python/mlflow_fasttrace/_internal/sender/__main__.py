"""``python -m mlflow_fasttrace._internal.sender SPOOL_FOLDER RINGS_FOLDER``; a program starts it."""

import gc
import logging
import logging.handlers
import os
import signal
import sys
from io import TextIOWrapper

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.config.uris import without_credentials, without_secrets
from mlflow_fasttrace._internal.sender.life import run_sender
from mlflow_fasttrace._internal.sender.transport import bound_every_answer
from mlflow_fasttrace._internal.spool.private_files import open_private

LOG_BYTES = 1 << 20  # and as much again in sender.log.1
#: That a sender has to end when it is told to. Then the alarm ends it in the middle of whatever keeps it, which
#: costs nothing: what is not acknowledged is sent again.
_LAST_SECONDS = 10
_OOM_SCORE = 500  # of 1000; a program has 0 unless somebody says otherwise
#: New objects after which the collector looks at the youngest: again and again it would find none of the records that
#: wait here to be garbage. It looks at all of them behind a delivery that has failed.
_NEW_OBJECTS = 50_000
_NICENESS = 5  # where processors are scarce the program comes first


class _Formatter(logging.Formatter):
    def __init__(self, uri: str):
        super().__init__("%(asctime)s %(process)d %(levelname)s %(message)s")
        self._uri, self._plain = uri, without_credentials(uri)

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record).replace(self._uri, self._plain))


class _BoundedLog(logging.handlers.RotatingFileHandler):
    """The file that the program gave this process as its output. What is printed past logging (a
    warning, a traceback) follows to the new file when the log is rotated."""

    def __init__(self, path: str):
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        fd = open_private(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for output in (1, 2):
            os.dup2(fd, output)
        return open(fd, "a", encoding="utf-8", errors="backslashreplace")


def _handler(path: str) -> logging.Handler:
    """Of the log file where this process prints to that; a sender that was started by hand goes on
    printing."""
    try:
        if os.path.samestat(os.fstat(2), os.lstat(path)):
            return _BoundedLog(path)
    except OSError:
        pass
    return logging.StreamHandler()


def _go_first_when_memory_ends() -> None:
    """Has the kernel end this process before its program: what is not delivered is safe without it, and the
    program starts another one."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            score = max(int(file.read()), _OOM_SCORE)
            file.seek(0)
            file.write(str(score))
    except (OSError, ValueError):  # no Linux, or not allowed here
        pass


def _rest(failed: bool) -> None:
    """Gives back what a burst took, and what failed requests have left behind, whose exceptions and frames keep one
    another: a container's limit counts it."""
    if failed:
        gc.collect()
    _core.give_memory_back()


def main() -> int:
    """Serves the spool of the command line until it is stopped or not needed; the exit code."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    handler = _handler(os.path.join(sys.argv[1], "sender.log"))
    uri = environment.tracking_uri()
    if uri is None:
        print(
            "MLFLOW_TRACKING_URI is not set: set it to the URI that the spool is for.",
            file=sys.stderr,
        )
        return 2
    handler.setFormatter(_Formatter(uri))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("mlflow_fasttrace").setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    os.nice(_NICENESS)
    _go_first_when_memory_ends()
    # A terminal's Ctrl-C is meant for the program.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    environment.stop_retries_of_mlflow()
    bound_every_answer()
    gc.set_threshold(_NEW_OBJECTS)
    gc.freeze()
    stop: list[int] = []

    def end(number: int, frame: object) -> None:
        stop.append(number)
        signal.alarm(_LAST_SECONDS)

    signal.signal(signal.SIGTERM, end)
    run_sender(
        sys.argv[1],
        sys.argv[2],
        uri,
        lambda: bool(stop),
        at_rest=_rest,
        patience_seconds=environment.lock_patience_seconds(),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
