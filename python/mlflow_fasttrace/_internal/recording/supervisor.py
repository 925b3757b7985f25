"""The sender that drains this process's rings: started where none is, started again when it gives
no heartbeat or has credentials that the server does not accept, and where no process can be started
a thread in its place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import NamedTuple

from mlflow_fasttrace._internal.base import clock, locks, log, paths
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.base.version import VERSION, release_of
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.recording import destination, sender_process
from mlflow_fasttrace._internal.recording.deferred_starts import DeferredStarts
from mlflow_fasttrace._internal.recording.rings import Ring, rings
from mlflow_fasttrace._internal.recording.silence import Silences
from mlflow_fasttrace._internal.spool.folder import Spool, spool_for
from mlflow_fasttrace._internal.spool.lock import named_in, sender_of

#: A sender takes its lock within a second: until then no other one is started.
STARTING_SECONDS = 1.0
#: After so many starts, and so long after the first, without a sender seen none is started any more.
_STARTS_IN_VAIN = 3
STARTS_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 20.0  # between two starts
#: For which a sender that runs may be on its way to its lock, on a machine that has much else to do.
BEGINS_SECONDS = 60.0
#: That a program may take to end when its exit has left its thread's delivery to a sender.
_LAST_SECONDS = 60.0
_HELP_SECONDS = 5.0  # that a thread tries to deliver in a sender's place


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
        self._silences = Silences()
        self._deferred = DeferredStarts(self.try_to_ensure_sender)
        # By spool, or by the ring's own identity where it has none: the threads that deliver.
        self._threads: dict[str | int, threading.Thread] = {}
        #: Spools whose helping threads leave the rest to a sender process.
        self._handed_over: set[str] = set()
        #: Held by the thread that looks after all senders; another one leaves it to that.
        self._restart_lock = locks.Lock()

    def forget(self) -> None:
        """Begins anew in a forked child, which has none of its parent's threads."""
        self._starts.clear()
        self._silences.forget()
        self._deferred.forget()
        self._threads.clear()
        self._handed_over.clear()

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
            self._deferred.sender_is_there(spool)
            if running.stays or running.pid in (0, os.getpid()):
                return
            if _is_older(running.version) or has_other_credentials(ring):
                sender_process.signal_sender(running.pid, spool, signal.SIGTERM)
            else:
                self._silences.end_if_silent(running.pid, ring, spool)
                return
        elif mode == "process" and (
            self.is_starting(spool) or self._deferred.defers(ring, spool) or self._begins(spool)
        ):
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
        if not self._deferred.note_help(spool):
            return
        if self._deferred.was_helped_enough(spool):
            self._deferred.end(spool)
            self.ensure_sender(ring)  # takes the lock when the thread is done
        deadline = clock.monotonic() + _HELP_SECONDS

        def is_done() -> bool:
            progress = ring.progress()
            if progress is None or progress.is_delivered or spool.name in self._handed_over:
                return True
            return clock.monotonic() >= deadline

        try:
            self._start_thread(ring, is_done)
        except RuntimeError as error:  # the interpreter ends
            let_pass(error)
            self._deferred.end(spool)
            self.ensure_sender(ring)

    def hand_over(self, ring: Ring) -> None:
        """Starts a sender process for what has not been delivered when the program exits, where none was needed so
        far: a thread that helps ends with the program."""
        spool = ring.spool
        if spool is None or environment.sender_mode() != "process":
            return
        if not self._deferred.was_helped(spool):
            return
        holder = sender_of(spool)
        if holder is None:
            self._deferred.end(spool)
            self.try_to_ensure_sender(ring)
        elif holder.pid == os.getpid() and not holder.stays and self._cannot_spawn(spool) is None:
            self._handed_over.add(spool.name)
            try:
                self._spawn(spool, ring, _LAST_SECONDS)
            except Exception as error:
                let_pass(error)

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

    def is_starting(self, spool: Spool) -> bool:
        """Whether this process has started a sender just now that may not have its lock yet. After one that is
        gone before it was seen, the next comes later: where the system ends it for its memory, say, it would
        end every one."""
        starts = self._starts.get(spool.name)
        if starts is None:
            return False
        pause = min(STARTING_SECONDS * starts.number, _LONGEST_PAUSE_SECONDS)
        return clock.monotonic() - starts.last < pause

    def _cannot_spawn(self, spool: Spool) -> str | None:
        """Why this program starts no sender process; None: it does."""
        if (reason := sender_process.why_none_can_be()) is not None:
            return reason
        if not self._starts_in_vain(spool):
            return None
        if sender_process.is_running(spool):
            return f"No sender process has begun within {BEGINS_SECONDS:.0f} s ({spool.log} may say why)"
        return f"Sender processes end as soon as they begin ({spool.log} says why)"

    def _starts_in_vain(self, spool: Spool) -> bool:
        """Whether several were started and none has had its lock; else they do begin, and something ends them."""
        starts = self._starts.get(spool.name)
        return (
            starts is not None
            and starts.number >= _STARTS_IN_VAIN
            and clock.monotonic() - starts.first >= STARTS_SECONDS
            and named_in(spool) == starts.named
        )

    def _begins(self, spool: Spool) -> bool:
        """Whether, of several that were started and have not come to the lock, one still may."""
        if not self._starts_in_vain(spool):
            return False
        waited = clock.monotonic() - self._starts[spool.name].first
        return waited < BEGINS_SECONDS and sender_process.is_running(spool)

    def _spawn(self, spool: Spool, ring: Ring, patience_seconds: float = 0.0) -> None:
        ring.credentials_of_sender = spool_for(ring.uri).credentials
        now = clock.monotonic()
        before = self._starts.get(spool.name)
        if before is None:
            before = _Starts(0, now, now, named_in(spool))
        self._starts[spool.name] = before._replace(number=before.number + 1, last=now)
        spool.make_folder()  # it may have been empty for long, and removed
        sender_process.start(spool, ring.uri, patience_seconds)

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


def _is_older(version: str) -> bool:
    """Whether a sender's release is older than this one."""
    theirs, ours = release_of(version), release_of(VERSION)
    return theirs is not None and ours is not None and theirs < ours


supervisor = Supervisor()
