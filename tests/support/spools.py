"""Spool folders and their senders, from outside."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from mlflow_fasttrace._internal.spool.folder import rings_prefix

from support.waiting import wait_until


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Files of this process may not become larger meanwhile.

    Args:
        size: In bytes.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def base_environment(spool: Path) -> dict[str, str]:
    """The environment of every program of the tests."""
    return {
        "MLFLOW_FASTTRACE_SPOOL_DIR": str(spool),
        "MLFLOW_MODEL_CATALOG_URI": "",  # no look-ups of prices on the network
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        # A program's exit waits for delivery, so that a test which reads once afterwards reads all,
        # however slow the machine is.
        "MLFLOW_FASTTRACE_EXIT_TIMEOUT": "600",
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "true",
    }


def rings_of(spool: Path) -> list[Path]:
    """The folders in shared memory of all that is recorded below a spool folder."""
    return list(Path("/dev/shm").glob(f"mlflow-fasttrace-*/{rings_prefix(str(spool))}-*"))


def is_alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def sender_pids(spool: Path) -> list[int]:
    """The processes that hold, or held, the locks below a spool folder."""
    return [
        int(lock.read_text().split()[0]) for lock in spool.glob("*/sender.lock") if lock.read_text()
    ]


def assert_sender_ends(spool: Path) -> None:
    """With nothing left to do a sender ends, and its rings with it."""
    (pid,) = sender_pids(spool)
    wait_until(lambda: not is_alive(pid), 30, "the sender's end")
    assert [list(rings.iterdir()) for rings in rings_of(spool)] == []


def refusals(spool: Path) -> list[str]:
    """The reasons of the dead letters below a spool folder."""
    return [note.read_text() for note in spool.glob("*/refused-*.txt")]


def clean_up(spool: Path) -> None:
    """Ends a spool's senders and removes what they and their programs left in shared memory."""
    for pid in {*sender_pids(spool), *_senders_of(spool)} - {os.getpid()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for rings in rings_of(spool):
        shutil.rmtree(rings, ignore_errors=True)


def _senders_of(spool: Path) -> set[int]:
    """The sender processes of a spool folder by their command lines: one that has just been started has
    not taken its lock yet."""
    found = set()
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            words = command_line.read_bytes().decode(errors="replace").split("\0")
            if any(word.startswith(f"{spool}/") for word in words) and any(
                "mlflow_fasttrace._internal.sender" in word for word in words
            ):
                found.add(int(command_line.parent.name))
    return found
