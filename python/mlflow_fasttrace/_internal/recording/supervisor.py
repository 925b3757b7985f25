"""The sender that drains this process's rings: started where none is, started again when it gives
no heartbeat or has credentials that the server does not accept, and where no process can be started
a thread in its place."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from typing import NamedTuple

from mlflow_fasttrace._internal.base import clock, locks, log, paths
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.base.version import VERSION, release_of
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.recording.rings import Ring, rings
from mlflow_fasttrace._internal.spool.folder import Spool, spool_for
from mlflow_fasttrace._internal.spool.lock import named_in, sender_of
from mlflow_fasttrace._internal.spool.private_files import open_private

#: A sender takes its lock within a second: until then no other one is started.
STARTING_SECONDS = 1.0
#: After so many starts, and so long after the first, without a sender seen none is started any more.
_STARTS_IN_VAIN = 3
STARTS_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 20.0  # between two starts

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


class _Starts(NamedTuple):
    """The senders of a spool that were started since one was seen: how many, and when (``clock.monotonic``);
    and the process that its lock named before."""

    number: int
    first: float
    last: float
    named: int


class Supervisor:
    """Sees to it that each ring has a sender."""

    def __init__(self) -> None:
        self._starts: dict[str, _Starts] = {}  # by spool
        # By spool, or by the ring's own identity where it has none: the threads that deliver.
        self._threads: dict[str | int, threading.Thread] = {}
        #: Held by the thread that looks after all senders; another one leaves it to that.
        self._restart_lock = locks.Lock()

    def forget(self) -> None:
        """Begins anew in a forked child, which has none of its parent's threads."""
        self._starts.clear()
        self._threads.clear()

    def ensure_sender(self, ring: Ring) -> None:
        """Starts a sender unless one is there that can stay. Never waits for it.

        Raises:
            Exception: of any kind; there is no sender, and none can be started now.
        """
        mode = environment.sender_mode()
        spool = ring.spool
        if mode == "none":
            return
        if spool is None:
            self._start_thread(ring)
            return
        running = sender_of(spool)
        if running is not None:
            self._starts.pop(spool.name, None)
            if running.stays or running.pid in (0, os.getpid()):
                return
            if not (_is_older(running.version) or has_other_credentials(ring)):
                return
            _ask_to_end(running.pid, spool)
        elif mode == "process" and self._is_starting(spool):
            return
        if mode == "process" and (why_not := self._cannot_spawn(spool)) is None:
            try:
                self._spawn(spool, ring)
                return
            except Exception as error:
                let_pass(error)
                why_not = f"No sender process could be started ({error})"
        if mode == "process":
            log.warn(f"{why_not}: a thread of this program delivers.")
        self._start_thread(ring)

    def try_to_ensure_sender(self, ring: Ring) -> bool:
        """Starts a sender where one is needed. Where none can be started now there is a warning; the core
        asks again when a later trace has ended, see ``restart``.

        Returns:
            Whether there is one, or will be.
        """
        try:
            self.ensure_sender(ring)
        except Exception as error:
            let_pass(error)
            what = f"{type(error).__name__}: {error}"
            log.warn(f"Nothing is delivered now, since no sender can be started ({what}).")
            return False
        return True

    def restart(self) -> None:
        """Answers the core where the sender of a ring has given no heartbeat for some seconds, or
        may not sign in."""
        try:
            if not self._restart_lock.acquire(blocking=False):
                return
            for name, ring in list(rings.in_use.items()):
                if ring.path is not None and not paths.exists(ring.path):
                    # No sender to come will find it, so this process sends what it holds.
                    orphan = rings.orphan(name)
                    destination.reset()
                    self.try_to_ensure_sender(orphan)
                else:
                    self.try_to_ensure_sender(ring)
        finally:
            try:
                self._restart_lock.release()
            except RuntimeError as error:  # it was not taken
                let_pass(error)

    def is_sender_thread(self) -> bool:
        """Whether this thread delivers, so that it must not wait for delivery."""
        return threading.current_thread() in list(self._threads.values())

    def _is_starting(self, spool: Spool) -> bool:
        """Whether this process has started a sender just now that may not have its lock yet. After one that is
        gone before it was seen, the next comes later: where the system ends it for its memory, say, it would
        end every one."""
        starts = self._starts.get(spool.name)
        if starts is None:
            return False
        pause = min(STARTING_SECONDS * starts.number, _LONGEST_PAUSE_SECONDS)
        return clock.monotonic() - starts.last < pause

    def _cannot_spawn(self, spool: Spool) -> str | None:
        """Why this program starts no sender process; None: it does. ``sys.executable`` of a program
        that embeds Python, or is frozen, is that program: it would start anew."""
        name = os.path.basename(sys.executable or "")
        if "python" not in name.lower() or getattr(sys, "frozen", False):
            return f"{name or 'This program'} is no Python that could run a sender"
        if not paths.is_allowed(sys.executable, os.X_OK):
            return f"{sys.executable} cannot be run"
        starts = self._starts.get(spool.name)
        if (
            starts is not None
            and starts.number >= _STARTS_IN_VAIN
            and clock.monotonic() - starts.first >= STARTS_SECONDS
            and named_in(spool) == starts.named  # else they do begin, and something ends them
        ):
            return f"Sender processes end as soon as they begin ({spool.log} says why)"
        return None

    def _spawn(self, spool: Spool, ring: Ring) -> None:
        ring.credentials_of_sender = spool_for(ring.uri).credentials
        now = clock.monotonic()
        before = self._starts.get(spool.name)
        if before is None:
            before = _Starts(0, now, now, named_in(spool))
        self._starts[spool.name] = before._replace(number=before.number + 1, last=now)
        variables = environment.of_child(
            MLFLOW_TRACKING_URI=ring.uri,
            MLFLOW_FASTTRACE_DISABLE="1",  # the sender itself is never traced
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

    def _start_thread(self, ring: Ring) -> None:
        spool = ring.spool
        key = spool.name if spool else id(ring.writer)
        # A store's code, MLflow's, imports this, and it cannot be imported any more once the main thread has
        # ended, while the thread may still have everything to deliver. A server is sent to without.
        try:
            import concurrent.futures.thread  # noqa: F401
        except RuntimeError as error:
            let_pass(error)

        def run() -> None:
            from mlflow_fasttrace._internal.sender.life import run_sender, run_sender_in_memory

            if spool is not None:
                run_sender(spool.folder, spool.rings, ring.uri)
            else:
                run_sender_in_memory(ring.writer, ring.uri)

        thread = threading.Thread(target=run, name="mlflow-fasttrace-sender", daemon=True)
        with locks.brief:
            other = self._threads.get(key)
            if other is not None and (other.ident is None or other.is_alive()):
                return  # one delivers, or is about to
            self._threads[key] = thread
        try:
            thread.start()
        except BaseException:
            self._threads.pop(key, None)
            raise


def has_other_credentials(ring: Ring) -> bool:
    """Whether the server does not let the sender in and this process's environment has changed since
    the sender got it: a token that was refreshed, say."""
    if ring.spool is None or not ring.server_forbids():
        return False
    return spool_for(ring.uri).credentials != ring.credentials_of_sender


def _ask_to_end(pid: int, spool: Spool) -> None:
    """Asks a spool's sender to end. A lock says what process has it where that runs, which may be a container
    with process ids of its own: what has the number here is asked only if it is that sender."""
    process = _held(pid)
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")
        if arguments[-3:-1] == [os.fsencode(spool.folder), os.fsencode(spool.rings)]:
            if process is not None:
                signal.pidfd_send_signal(process, signal.SIGTERM)
            else:
                os.kill(pid, signal.SIGTERM)
    except OSError as error:  # it has ended, or is no process here
        let_pass(error)
    finally:
        if process is not None:
            os.close(process)


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


def _is_older(version: str) -> bool:
    """Whether a sender's release is older than this one."""
    theirs, ours = release_of(version), release_of(VERSION)
    return theirs is not None and ours is not None and theirs < ours


supervisor = Supervisor()
