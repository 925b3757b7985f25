"""What a sender says of itself: ``status.json`` in the spool folder.

Written at most once a second, when something has changed, and at the sender's end; 0600, renamed
into place. It holds no secret, and of a trace only ids, names, times and states. Totals
carry on from one sender of a spool to the next. Schema (version 1):

    version         1
    pid, sender_version, started, updated, ended (null while it runs); times in seconds
    destination     the tracking URI without credentials
    server          "unknown", "answers" or "away"
    delivered       {"traces", "spans", "bytes"}: since the spool exists
    refused         traces that the server refused for good, since the spool exists
    dead_letters    how many of them lie in the spool
    kept_out        traces that tail sampling dropped, since the spool exists
    full            whether the spool has reached its bound: programs begin no new traces
    no_room         traces that programs did not begin for that, since the spool exists
    no_room_rings   the part of them that is counted in rings which still exist, by ring
    last_error      {"text", "time"} or null
    recent          the traces delivered last, oldest first: {"trace_id", "name", "start_ns",
                    "duration_ns" (null while open), "state", "spans", "delivered" (a time),
                    "to" (a tracking URI without credentials)}
"""

from __future__ import annotations

import json
import os
import time
from collections import OrderedDict
from typing import Any, NamedTuple

from mlflow_fasttrace._internal.base.version import VERSION
from mlflow_fasttrace._internal.config.uris import without_credentials, without_secrets
from mlflow_fasttrace._internal.sender.assemble import Disposition, TraceBuffer
from mlflow_fasttrace._internal.spool.files import DEAD_LETTER_SUFFIX
from mlflow_fasttrace._internal.spool.private_files import open_private
from mlflow_fasttrace._internal.spool.records import PHASE_OPEN
from mlflow_fasttrace._internal.spool.ring_states import ServerState
from mlflow_fasttrace._internal.spool.status_file import (
    FILE_NAME,
    SCHEMA_VERSION,
    SERVER_STATES,
    TRACE_STATES,
    read_status,
)

_WRITE_SECONDS = 1.0
_RECENT = 50
_MAX_NAME = 200
_MAX_ERROR = 1000


class Figures(NamedTuple):
    """What other parts of the sender know."""

    server: ServerState
    spool_is_full: bool
    refused_by_ring: dict[str, int]  # traces that were not begun, by the stem of each ring


class Status:
    """A sender's account of its work.

    Args:
        folder: The spool's folder; None: nothing is written.
        uri: Where the sender delivers to.
        destination: What the spool's records name, where that is another URI.
    """

    def __init__(self, folder: str | None, uri: str, destination: str | None = None):
        self._folder = folder
        self._goes_to = without_credentials(uri)
        self.destination = self._goes_to if destination is None else destination
        self._started = time.time()
        before = read_status(folder) if folder is not None else None
        self.traces: int = before["delivered"]["traces"] if before else 0
        self.spans: int = before["delivered"]["spans"] if before else 0
        self.bytes: int = before["delivered"]["bytes"] if before else 0
        self.refused: int = before["refused"] if before else 0
        self.last_error: dict[str, Any] | None = before["last_error"] if before else None
        self._sampled_out: int = before["kept_out"] if before else 0
        self._full = False
        self._no_room: dict[str, int] = before["no_room_rings"] if before else {}
        counted = sum(self._no_room.values())
        self._no_room_before: int = before["no_room"] - counted if before else 0
        self._recent: OrderedDict[str, dict[str, Any]] = OrderedDict(
            (trace["trace_id"], trace) for trace in (before["recent"] if before else ())
        )
        self._server = SERVER_STATES[0]
        self._changed = True
        self._next_write = 0.0

    def add(self, other: dict[str, Any]) -> None:
        """Adds the totals of a spool that this one has taken over.

        Args:
            other: Its status, see ``read_status``.
        """
        self.traces += other["delivered"]["traces"]
        self.spans += other["delivered"]["spans"]
        self.bytes += other["delivered"]["bytes"]
        self.refused += other["refused"]
        self._sampled_out += other["kept_out"]
        self._no_room_before += other["no_room"]
        before = {trace["trace_id"]: trace for trace in other["recent"]}
        self._recent = OrderedDict({**before, **self._recent})
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        self._changed = True

    def spans_done(self, trace: TraceBuffer) -> None:
        """Counts the spans of a trace that is not done."""
        self._changed = True
        self.spans += len(trace.spans)
        self.bytes += sum([len(entry.record) for entry in (*trace.attachments, *trace.spans)])

    def done(self, trace: TraceBuffer, disposition: Disposition) -> None:
        """Counts a trace of which nothing is left to deliver."""
        self._changed = True
        if disposition is Disposition.SAMPLED_OUT:
            self._sampled_out += 1
            return
        if disposition is Disposition.SET_ASIDE:
            self.refused += 1
            # The reason is left out: a server may quote what it was sent.
            self.error(f"{trace.mlflow_id} is refused; a file beside it says why")
            return
        known = self._recent.pop(trace.mlflow_id, None)
        if known is None:
            self.traces += 1
        self.spans += len(trace.spans)
        self.bytes += sum([len(entry.record) for entry in trace.entries()])
        info = trace.info
        self._recent[trace.mlflow_id] = {
            "trace_id": trace.mlflow_id,
            "name": _printable(info.info.get("name"))[:_MAX_NAME] if info else "",
            "start_ns": info.start_ns if info else 0,
            "duration_ns": info.duration_ns if info else None,
            "state": _state(trace),
            "spans": len(trace.seen),
            "delivered": time.time(),
            "to": self._goes_to,
        }
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def refused_records(self, reason: str) -> None:
        """Counts records that were set aside since they cannot be used."""
        self.refused += 1
        self.error(f"{reason}; a file says which")

    def error(self, reason: object) -> None:
        """Remembers what went wrong last."""
        text = _printable(without_secrets(str(reason)))[:_MAX_ERROR]
        self.last_error = {"text": text, "time": time.time()}
        self._changed = True

    def is_due(self) -> bool:
        """Whether the file may be written again."""
        return time.monotonic() >= self._next_write

    def tick(self, figures: Figures) -> None:
        """Writes the file where something has changed. Called when ``is_due``."""
        rings = figures.refused_by_ring
        for stem in self._no_room.keys() - rings.keys():
            self._no_room_before += self._no_room.pop(stem)
        no_room = {stem: count for stem, count in rings.items() if count}
        # The state is that of the server which the records name.
        server = figures.server if self.destination == self._goes_to else ServerState.UNKNOWN
        state = (SERVER_STATES[server], figures.spool_is_full, no_room)
        if self._changed or state != (self._server, self._full, self._no_room):
            self._server, self._full, self._no_room = state
            self._next_write = time.monotonic() + _WRITE_SECONDS
            self._changed = False
            self._write(ended=None)

    def write(self) -> None:
        """Writes the file at once, with the state of the server that it had."""
        self._write(ended=None)

    def end(self) -> None:
        """Writes the file for the last time."""
        self._write(ended=time.time())

    def _write(self, ended: float | None) -> None:
        if self._folder is None:
            return
        try:
            letters = sum(name.endswith(DEAD_LETTER_SUFFIX) for name in os.listdir(self._folder))
            text = json.dumps(
                {
                    "version": SCHEMA_VERSION,
                    "pid": os.getpid(),
                    "sender_version": VERSION,
                    "started": self._started,
                    "updated": time.time(),
                    "ended": ended,
                    "destination": self.destination,
                    "server": self._server,
                    "delivered": {"traces": self.traces, "spans": self.spans, "bytes": self.bytes},
                    "refused": self.refused,
                    "dead_letters": letters,
                    "kept_out": self._sampled_out,
                    "full": self._full,
                    "no_room": self._no_room_before + sum(self._no_room.values()),
                    "no_room_rings": self._no_room,
                    "last_error": self.last_error,
                    "recent": list(self._recent.values()),
                }
            )
            path = os.path.join(self._folder, FILE_NAME)
            fresh = path + ".new"
            with open(fresh, "w", encoding="utf-8", opener=open_private) as file:
                file.write(text)
            os.replace(fresh, path)
        except OSError:
            pass  # a full disk or a folder that is gone: delivery goes on without the file


def _state(trace: TraceBuffer) -> str:
    info = trace.info
    if info is None or info.phase == PHASE_OPEN:
        return "IN_PROGRESS"
    return TRACE_STATES.get(info.state, "")


def _printable(value: object) -> str:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
