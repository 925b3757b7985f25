"""The sender that drains this process's rings: started where none is, started again when it gives
no heartbeat or has credentials that the server does not accept, and where no process can be started
a thread in its place."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable
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
#: A sender looks at its rings between any two requests. One that has not for twice the time that a request may
#: take, and this, is asked to end, and killed when that does not help either.
_SILENT_SECONDS = 30.0
_REQUEST_SECONDS = 60.0  # where MLFLOW_HTTP_REQUEST_TIMEOUT does not say
_LAST_SECONDS = 15.0
#: MLflow's module that a sender to a database imports.
_STORES = "mlflow.tracking"
#: Of the time between two looks at a sender so much counts: this process may have stood still, too.
_COUNTED_SECONDS = 5.0

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


#: A sender to a SQLite database takes a second or two until it has imported MLflow. Where this program has done so
#: itself, none is started before something has waited for so long: who reads its traces at once, as tests do, has a
#: thread deliver them.
_PATIENCE_SECONDS = 1.0
_WATCHED_SECONDS = 60.0  # that a ring is looked at which nothing waits in
_LOOK_SECONDS = 0.25
_HELP_SECONDS = 5.0  # that a thread tries, before a sender is started all the same
_HELPS = 5  # after so many of one ring a sender is started: a program that waits often is better off with one


class _Patience(NamedTuple):
    """A ring that has no sender yet."""

    ring: Ring
    until: float  # ``clock.monotonic``; a sender is started then, if something waits
    idle_since: float


class _Silence(NamedTuple):
    """A heartbeat of a process that does not change."""

    pid: int
    heartbeat: tuple[int, int] | None
    seconds: float  # in which this process has looked, and found it the same
    looked_at: float  # ``clock.monotonic``


class Supervisor:
    """Sees to it that each ring has a sender."""

    def __init__(self) -> None:
        self._starts: dict[str, _Starts] = {}  # by spool
        self._silences: dict[str, _Silence] = {}  # by spool, of senders that run
        self._patient: dict[str, _Patience] = {}  # by spool
        self._helps: dict[str, int] = {}  # by spool
        self._impatient: set[str] = set()  # spools that have waited for too long once
        self._watch: threading.Thread | None = None  # looks after those that have no sender yet
        # By spool, or by the ring's own identity where it has none: the threads that deliver.
        self._threads: dict[str | int, threading.Thread] = {}
        #: Held by the thread that looks after all senders; another one leaves it to that.
        self._restart_lock = locks.Lock()

    def forget(self) -> None:
        """Begins anew in a forked child, which has none of its parent's threads."""
        self._starts.clear()
        self._silences.clear()
        self._patient.clear()
        self._helps.clear()
        self._impatient.clear()
        self._watch = None
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
            self._patient.pop(spool.name, None)
            if running.stays or running.pid in (0, os.getpid()):
                return
            if _is_older(running.version) or has_other_credentials(ring):
                _signal(running.pid, spool, signal.SIGTERM)
            else:
                self._end_if_silent(running.pid, ring, spool)
                return
        elif mode == "process" and (self._is_starting(spool) or self._has_patience(ring, spool)):
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

    def help(self, ring: Ring) -> None:
        """Has a thread deliver what a ring holds that has no sender yet, since somebody waits for it. It gives the
        lock back when that is done.

        Raises:
            Exception: of any kind; there is no thread.
        """
        spool = ring.spool
        if spool is None or sender_of(spool) is not None:
            return
        helps = self._helps.get(spool.name, 0)
        if not helps and spool.name not in self._patient:
            return
        self._helps[spool.name] = helps + 1
        if helps >= _HELPS and spool.name in self._patient:
            self._lose_patience(spool)
            self.ensure_sender(ring)  # takes the lock when the thread is done
        deadline = clock.monotonic() + _HELP_SECONDS

        def is_done() -> bool:
            progress = ring.progress()
            return progress is None or progress.is_delivered or clock.monotonic() >= deadline

        try:
            self._start_thread(ring, is_done)
        except RuntimeError as error:  # the interpreter ends
            let_pass(error)
            self._lose_patience(spool)
            self.ensure_sender(ring)

    def _has_patience(self, ring: Ring, spool: Spool) -> bool:
        """Whether a ring's sender is to be started later, if at all."""
        now = clock.monotonic()
        patient = self._patient.get(spool.name)
        if patient is not None:
            if now < patient.until:
                return True
            self._lose_patience(spool)
            return False
        if (
            not ring.uri.startswith("sqlite:")
            or _STORES not in sys.modules
            or spool.name in self._impatient
        ):
            return False
        self._patient[spool.name] = _Patience(ring, now + _PATIENCE_SECONDS, now)
        try:
            if self._watch is None or not self._watch.is_alive():
                self._watch = threading.Thread(
                    target=self._look_after_patient, name="mlflow-fasttrace-starter", daemon=True
                )
                self._watch.start()
        except RuntimeError as error:  # the interpreter ends, or there can be no more threads
            let_pass(error)
            self._lose_patience(spool)
            return False
        return True

    def _lose_patience(self, spool: Spool) -> None:
        self._patient.pop(spool.name, None)
        self._impatient.add(spool.name)

    def _look_after_patient(self) -> None:
        while self._patient:
            clock.sleep(_LOOK_SECONDS)
            for name, patient in list(self._patient.items()):
                progress = patient.ring.progress()
                now = clock.monotonic()
                if progress is None or now - patient.idle_since >= _WATCHED_SECONDS:
                    self._patient.pop(name, None)
                elif progress.is_delivered:
                    self._patient[name] = patient._replace(until=now + _PATIENCE_SECONDS)
                else:
                    self._patient[name] = patient._replace(idle_since=now)
                    if now >= patient.until:
                        self.try_to_ensure_sender(patient.ring)

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

    def recover(self) -> None:
        """Moves what rings hold whose files somebody has removed (a cleaner of shared memory) into new ones, unless a
        sender has them open: no other one will find them. Traces that have begun go on in the old ones, so this
        is done again at every look."""
        try:
            for name, ring in list(rings.in_use.items()):
                vanished = ring.path is not None and not paths.exists(ring.path)
                if vanished and not _is_served(ring):
                    rings.retire(name)
                    destination.reset()
            for ring in rings.retired:
                ring.move_to(rings.ring_for(ring.uri))
        except Exception as error:
            let_pass(error)
            log.warn(
                f"A ring has vanished, and there can be no other now ({error}). It is tried again."
            )

    def restart(self) -> None:
        """Answers the core where the sender of a ring has given no heartbeat for some seconds, or
        may not sign in."""
        try:
            if not self._restart_lock.acquire(blocking=False):
                return
            self.recover()
            for ring in list(rings.in_use.values()):
                self.try_to_ensure_sender(ring)
        finally:
            try:
                self._restart_lock.release()
            except RuntimeError as error:  # it was not taken
                let_pass(error)

    def is_sender_thread(self) -> bool:
        """Whether this thread delivers, so that it must not wait for delivery."""
        return threading.current_thread() in list(self._threads.values())

    def _end_if_silent(self, pid: int, ring: Ring, spool: Spool) -> None:
        """Ends a sender that holds the lock and does nothing: the next look starts another one."""
        now = clock.monotonic()
        heartbeat = ring.writer.heartbeat()
        if heartbeat is not None and heartbeat[1] not in (0, pid):
            return  # the sender has not come to this ring yet
        before = self._silences.get(spool.name)
        if before is None or before[:2] != (pid, heartbeat):
            self._silences[spool.name] = _Silence(pid, heartbeat, 0.0, now)
            return
        seconds = before.seconds + min(now - before.looked_at, _COUNTED_SECONDS)
        self._silences[spool.name] = _Silence(pid, heartbeat, seconds, now)
        patience = 2 * (environment.request_seconds() or _REQUEST_SECONDS) + _SILENT_SECONDS
        if seconds < patience:
            return
        killed = seconds >= patience + _LAST_SECONDS
        if _signal(pid, spool, signal.SIGKILL if killed else signal.SIGTERM):
            what = f"The sender (process {pid}) has given no sign of life for {seconds:.0f} s"
            if not killed:
                log.warn(f"{what}: it is asked to end, and another one is started.")
        else:
            log.warn(
                f"The sender of {spool.folder} has given no sign of life for {seconds:.0f} s, and is no process "
                "that this one could end: nothing is delivered until it goes on, or ends."
            )

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

    def _start_thread(self, ring: Ring, should_stop: Callable[[], bool] | None = None) -> None:
        """Starts a thread that delivers, as long as the program lives or until it is to stop."""
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
                run_sender(spool.folder, spool.rings, ring.uri, should_stop)
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


def _is_served(ring: Ring) -> bool:
    """Whether a sender that runs has looked at a ring: it has it open, whatever becomes of the ring's name."""
    heartbeat = ring.writer.heartbeat()
    sender = sender_of(ring.spool) if ring.spool is not None else None
    return heartbeat is not None and sender is not None and sender.pid == heartbeat[1]


def has_other_credentials(ring: Ring) -> bool:
    """Whether the server does not let the sender in and this process's environment has changed since
    the sender got it: a token that was refreshed, say."""
    if ring.spool is None or not ring.server_forbids():
        return False
    return spool_for(ring.uri).credentials != ring.credentials_of_sender


def _signal(pid: int, spool: Spool, number: int) -> bool:
    """Sends a spool's sender a signal. A lock says what process has it where that runs, which may be a container
    with process ids of its own: what has the number here gets it only if it is that sender.

    Returns:
        Whether it is.
    """
    process = _held(pid)
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")
        if arguments[-3:-1] != [os.fsencode(spool.folder), os.fsencode(spool.rings)]:
            return False
        if process is not None:
            signal.pidfd_send_signal(process, number)
        else:
            os.kill(pid, number)
    except OSError as error:  # it has ended, or is no process here
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


def _is_older(version: str) -> bool:
    """Whether a sender's release is older than this one."""
    theirs, ours = release_of(version), release_of(VERSION)
    return theirs is not None and ours is not None and theirs < ours


supervisor = Supervisor()
