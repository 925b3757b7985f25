"""Sender processes: how one is started, and told to end."""

from __future__ import annotations

import contextlib
import signal
import sys

from mlflow_fasttrace._internal.base import paths
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.spool.folder import Spool
from mlflow_fasttrace._internal.spool.private_files import open_private

#: The program of a sender process. It finds this package and MLflow where the traced program finds
#: them, but lets nothing of that program's folder stand in for a module of the standard library. It
#: keeps no descriptor that C code of the program has open.
_SENDER = """\
import os, sys
for fd in os.listdir("/proc/self/fd"):
    try:
        int(fd) > 2 and os.close(int(fd))
    except OSError:
        pass
sys.path[:] = [path for path in sys.path if path]
program = os.environ.pop("MLFLOW_FASTTRACE_AGENT_PATH").split(os.pathsep)
sys.path += [path for path in program if path not in sys.path]
from mlflow_fasttrace._internal.sender.__main__ import main
sys.exit(main())
"""


def why_none_can_be() -> str | None:
    """Why this program starts no sender process; None: it does. ``sys.executable`` of a program that embeds Python,
    or is frozen, is that program: it would start anew."""
    name = os.path.basename(sys.executable or "")
    if "python" not in name.lower() or getattr(sys, "frozen", False):
        return f"{name or 'This program'} is no Python that could run a sender"
    if not paths.is_allowed(sys.executable, os.X_OK):
        return f"{sys.executable} cannot be run"
    return None


def start(spool: Spool, uri: str, patience_seconds: float = 0.0) -> None:
    """Starts a sender, which outlives this program.

    Args:
        spool: That it serves.
        uri: Where to, with the credentials of this process's environment.
        patience_seconds: That another sender has at least to give the lock back.

    Raises:
        Exception: of any kind; there is none.
    """
    variables = environment.of_child(
        MLFLOW_TRACKING_URI=uri,
        MLFLOW_FASTTRACE_DISABLE="1",  # the sender itself is never traced
        MLFLOW_FASTTRACE_AGENT_PATIENCE=str(patience_seconds),
        MLFLOW_FASTTRACE_AGENT_PATH=os.pathsep.join(path for path in sys.path if path),
    )
    output = open_private(spool.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sender = [sys.executable, "-c", _SENDER, spool.folder, spool.rings]
    try:
        # The shell ends at once and leaves the sender to init: the program never has a child
        # that it would have to wait for. posix_spawn, which nobody patches, runs none of the
        # program's code: neither what stands in the place of subprocess nor handlers of a fork.
        # A policy of the program that forbids processes holds: it is asked as by subprocess.
        sys.audit("subprocess.Popen", "/bin/sh", sender, None, None)
        shell = os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", '"$@" &', "sh", *sender],
            variables,
            file_actions=[  # 0 is the last: the log may have its number
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            ],
            setsid=True,
        )
        with contextlib.suppress(ChildProcessError):  # the program has waited for all children
            _, status = os.waitpid(shell, 0)
            if status != 0:
                raise OSError(f"/bin/sh ended with status {status:#x}")
    finally:
        os.close(output)


def is_running(spool: Spool) -> bool:
    """Whether a process of this spool's sender is there, be it that it has not come to its lock yet. Looks at every
    process that there is."""
    try:
        names = os.listdir("/proc")
    except OSError as error:
        let_pass(error)
        return False
    return any(name.isdigit() and _is_sender(name, spool) for name in names)


def _is_sender(pid: int | str, spool: Spool) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")
    except OSError as error:  # it has ended, or is no process here
        let_pass(error)
        return False
    return arguments[-3:-1] == [os.fsencode(spool.folder), os.fsencode(spool.rings)]


def signal_sender(pid: int, spool: Spool, number: int) -> bool:
    """Sends a spool's sender a signal. A lock says what process has it where that runs, which may be a container
    with process ids of its own: what has the number here gets it only if it is that sender.

    Returns:
        Whether it is.
    """
    process = _held(pid)
    try:
        if not _is_sender(pid, spool):
            return False
        if process is not None:
            signal.pidfd_send_signal(process, number)
        else:
            os.kill(pid, number)
    except OSError as error:  # it has ended
        let_pass(error)
        return False
    finally:
        if process is not None:
            os.close(process)
    return True


def _held(pid: int) -> int | None:
    """A descriptor of a process, so that no other one that gets its number is taken for it; None where this
    Python or this kernel has none, or there is no such process."""
    if not (hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        let_pass(error)
        return None
