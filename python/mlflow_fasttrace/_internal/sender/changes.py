"""Changes to traces that programs have left for when the traces are there (spool/changes.py)."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from mlflow_fasttrace._internal.base.texts import one_line
from mlflow_fasttrace._internal.sender.destinations import Destination
from mlflow_fasttrace._internal.sender.exceptions import (
    DeliveryError,
    Rejected,
    TooLarge,
    Unavailable,
)
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.spool.changes import Change, read_change
from mlflow_fasttrace._internal.spool.files import change_paths, refused_change, remove

logger = logging.getLogger("mlflow_fasttrace.sender")

_LOOK_SECONDS = 0.5  # between two looks for new ones; one follows every batch, too
_FIRST_PAUSE_SECONDS = 0.25  # before the server is asked again whether a trace is there
_LONGEST_PAUSE_SECONDS = 600.0  # a trace that comes by this sender is heard of at once
_ROUND_SECONDS = 0.2  # that all of them together may hold up delivery
_TRIES = 5  # of a change for which a server that has the trace fails

_NEVER_CAME = "its trace never came"


@dataclass
class _Waiting:
    """A change, and when it is tried again."""

    change: Change
    due: float = 0.0  # of time.monotonic()
    pause: float = _FIRST_PAUSE_SECONDS
    failures: int = 0

    def put_off(self) -> None:
        self.due = time.monotonic() + self.pause
        self.pause = min(self.pause * 2, _LONGEST_PAUSE_SECONDS)


class Changes:
    """Makes the changes that wait in a spool.

    Args:
        folder: The spool's folder; None: there is none.
        open_destination: Gives the server of the traces; None: it is a collector, which has none to change.
        status: Hears of changes that cannot be made.
    """

    def __init__(
        self,
        folder: str | None,
        open_destination: Callable[[], Destination] | None,
        status: Status,
    ):
        self._folder = folder if open_destination is not None else None
        self._open_destination = open_destination
        self._status = status
        self._waiting: dict[str, _Waiting] = {}
        self._looked_at = float("-inf")

    def make_due(self) -> None:
        """Makes those whose time has come."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_SECONDS:
            self._look()
        for path in [path for path, waiting in self._waiting.items() if now >= waiting.due]:
            self._make([path])
            if time.monotonic() - now >= _ROUND_SECONDS:
                break

    def traces_came(self, trace_ids: Collection[str]) -> None:
        """Makes those of traces that the server has just taken."""
        self._look()
        if self._waiting:
            ids = set(trace_ids)
            self._make([path for path, one in self._waiting.items() if one.change.trace_id in ids])

    def end(self) -> None:
        """Makes those that can be made, and sets aside the others whose traces are not there: no program is left
        that could bring them."""
        self._look()
        self._make(list(self._waiting), last=True)

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        if self._folder is None:
            return
        paths = change_paths(self._folder)
        if not paths and not self._waiting:
            return
        self._waiting = {path: self._waiting[path] for path in paths if path in self._waiting}
        for path in paths:
            if path in self._waiting:
                continue
            try:
                self._waiting[path] = _Waiting(read_change(path))
            except (OSError, MemoryError):
                continue  # for now: the next look may find it
            except (ValueError, RecursionError) as error:
                self._set_aside(path, f"{path} is no change: {error}")

    def _make(self, paths: list[str], *, last: bool = False) -> None:
        for path in paths:
            waiting = self._waiting[path]
            try:
                assert self._open_destination is not None
                made = _is_made(self._open_destination(), waiting.change)
            except Unavailable:
                waiting.put_off()
                if last:
                    return
            except (Rejected, TooLarge) as reason:
                self._refuse(path, waiting.change, reason)
            except MemoryError:
                waiting.put_off()
            except Exception as reason:
                waiting.failures += 1
                waiting.put_off()
                if waiting.failures >= _TRIES or last:
                    self._refuse(path, waiting.change, f"{type(reason).__name__}: {reason}")
            else:
                if made:
                    del self._waiting[path]
                    remove(path)
                elif last:
                    self._refuse(path, waiting.change, _NEVER_CAME)
                else:
                    waiting.put_off()

    def _refuse(self, path: str, change: Change, reason: object) -> None:
        self._set_aside(
            path, f"{change.what} of {change.trace_id} is set aside: {one_line(str(reason))}"
        )

    def _set_aside(self, path: str, reason: str) -> None:
        self._waiting.pop(path, None)
        logger.error("%s", reason)
        self._status.error(reason)
        try:
            os.rename(path, refused_change(path))
        except OSError as error:
            logger.error("%s cannot be renamed: %s", path, error)


def _is_made(destination: Destination, change: Change) -> bool:
    """Makes a change, once, however often it is tried.

    Returns:
        False where the trace is not there.

    Raises:
        DeliveryError: it cannot be made.
    """
    try:
        destination.make_change(change)
    except Unavailable:
        raise
    except DeliveryError:
        if not destination.has_trace(change.trace_id):
            return False
        made = change.assessment and change.assessment.get("assessment_id")
        if made and destination.has_assessment(change.trace_id, made):
            return True  # by an earlier try, whose answer was lost
        raise
    return True
