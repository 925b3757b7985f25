"""Senders that are started when they are needed, and not before.

A sender to a SQLite file takes a second or two until it has imported MLflow. Where this program has done so itself,
none is started before something has waited for a second: who reads its traces at once, as tests do, each from a file
of its own, has a thread deliver them, see ``Supervisor.help``. What is not delivered when the program exits is
left to a sender, see ``Supervisor.hand_over``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

from mlflow_fasttrace._internal.base import clock
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.recording.rings import Ring
from mlflow_fasttrace._internal.spool.folder import Spool

DEFERRED_SECONDS = 1.0
_WATCHED_SECONDS = 60.0  # that a ring is looked at in which nothing waits
_LOOK_SECONDS = 0.25
#: After so many helps for one ring a sender is started: a program that waits often is better off with one.
_HELPS = 5
_STORES = "mlflow.tracking"  # what a sender to a database imports


class _Deferred(NamedTuple):
    """A ring whose sender is not started yet."""

    ring: Ring
    due: float  # ``clock.monotonic``: it is started then, if something waits
    idle_since: float


class DeferredStarts:
    """The rings that have no sender yet.

    Args:
        start: Starts the sender of a ring that is due.
    """

    def __init__(self, start: Callable[[Ring], object]):
        self._start = start
        self._deferred: dict[str, _Deferred] = {}  # by spool
        self._helps: dict[str, int] = {}  # by spool
        self._ended: set[str] = set()  # spools whose senders are not deferred any more
        self._watch: threading.Thread | None = None

    def forget(self) -> None:
        """Begins anew in a forked child, which has none of its parent's threads."""
        self._deferred.clear()
        self._helps.clear()
        self._ended.clear()
        self._watch = None

    def defers(self, ring: Ring, spool: Spool) -> bool:
        """Whether a ring's sender is to be started later, if at all. From now on somebody looks whether it is."""
        now = clock.monotonic()
        known = self._deferred.get(spool.name)
        if known is not None:
            if now >= known.due:
                self.end(spool)
            return now < known.due
        if (
            not ring.uri.startswith("sqlite:")
            or _STORES not in sys.modules
            or spool.name in self._ended
        ):
            return False
        self._deferred[spool.name] = _Deferred(ring, now + DEFERRED_SECONDS, now)
        try:
            if self._watch is None or not self._watch.is_alive():
                self._watch = threading.Thread(
                    target=self._look_after_all, name="mlflow-fasttrace-starter", daemon=True
                )
                self._watch.start()
        except RuntimeError as error:  # the interpreter ends, or there can be no more threads
            let_pass(error)
            self.end(spool)
            return False
        return True

    def sender_is_there(self, spool: Spool) -> None:
        """There is one: this process's, or another's."""
        self._deferred.pop(spool.name, None)

    def end(self, spool: Spool) -> None:
        """Lets a spool's sender be started at once from now on."""
        self._deferred.pop(spool.name, None)
        self._ended.add(spool.name)

    def note_help(self, spool: Spool) -> bool:
        """Counts the threads that deliver in a sender's place.

        Returns:
            Whether one is wanted: the spool's sender is deferred, or was until it had been helped often.
        """
        deferred = spool.name in self._deferred
        helps = self._helps.get(spool.name, 0)
        if not deferred and not helps:
            return False
        self._helps[spool.name] = helps + 1
        return True

    def was_helped(self, spool: Spool) -> bool:
        """Whether a thread has delivered in the place of a spool's sender."""
        return spool.name in self._helps

    def was_helped_enough(self, spool: Spool) -> bool:
        """Whether a deferred sender is to be started now all the same."""
        return spool.name in self._deferred and self._helps.get(spool.name, 0) > _HELPS

    def _look_after_all(self) -> None:
        while self._deferred:
            clock.sleep(_LOOK_SECONDS)
            for name, known in list(self._deferred.items()):
                progress = known.ring.progress()
                now = clock.monotonic()
                if progress is None or now - known.idle_since >= _WATCHED_SECONDS:
                    self._deferred.pop(name, None)
                elif progress.is_delivered:
                    self._deferred[name] = known._replace(due=now + DEFERRED_SECONDS)
                else:
                    self._deferred[name] = known._replace(idle_since=now)
                    if now >= known.due:
                        self._start(known.ring)
