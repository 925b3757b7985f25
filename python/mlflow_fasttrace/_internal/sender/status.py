"""What a sender says of itself: ``status.json`` in its spool's state folder.

Written at most once a second, when something has changed, and at the sender's end; 0600, renamed
into place. It holds no secret and nothing of a trace but ids, names, times and states. Totals
carry on from one sender of a spool to the next. Schema (version 1):

    version         1
    pid, sender_version, started, updated, ended (null while it runs); times in seconds
    destination     the tracking URI without credentials
    server          "unknown", "answers" or "away"
    delivered       {"traces", "spans", "bytes"}: since the spool exists
    refused         traces that the server refused for good, since the spool exists
    dead_letters    how many of them lie in the spool
    kept_out        traces that tail sampling dropped, since the spool exists
    full            whether the spool has reached its bound: agents begin no new traces
    no_room         traces that agents did not begin for that, since the spool exists
    no_room_rings   those of them that rings count which still exist, by ring
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
from typing import TYPE_CHECKING, Any

from mlflow_fasttrace._internal.base.version import VERSION
from mlflow_fasttrace._internal.config.uris import without_credentials, without_secrets
from mlflow_fasttrace._internal.spool.files import DEAD_LETTER_SUFFIX
from mlflow_fasttrace._internal.spool.status_file import (
    FILE_NAME,
    SCHEMA_VERSION,
    SERVER_STATES,
    TRACE_STATES,
    read_status,
)

if TYPE_CHECKING:
    from mlflow_fasttrace._internal.sender.assemble import TraceBuffer
    from mlflow_fasttrace._internal.sender.loop import Sender


_WRITE_SECONDS = 1.0
_RECENT = 50
_MAX_NAME = 200
_MAX_ERROR = 1000


class Status:
    """A sender's account of its work."""

    def __init__(self, folder: str | None, uri: str):
        self._folder = folder  # None: nothing is written
        self._goes_to = without_credentials(uri)
        self.destination = self._goes_to  # what the spool's records name; may be another one
        self._started = time.time()
        before = read_status(folder) if folder is not None else None
        self.traces: int = before["delivered"]["traces"] if before else 0
        self.spans: int = before["delivered"]["spans"] if before else 0
        self.bytes: int = before["delivered"]["bytes"] if before else 0
        self.refused: int = before["refused"] if before else 0
        self.last_error: dict[str, Any] | None = before["last_error"] if before else None
        self._kept_out_before: int = before["kept_out"] if before else 0
        self._kept_out = 0
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

    def done(self, trace: TraceBuffer, refusal: Exception | None) -> None:
        """Nothing of the trace is left to deliver. ``refusal``: it was set aside."""
        self._changed = True
        if trace.kept is False:
            return  # by tail sampling, which counts by itself
        if refusal is not None:
            self.refused += 1
            # Not the reason: a server may quote what it was sent.
            self.error(f"{trace.mlflow_id} is refused; a file beside it says why")
            return
        known = self._recent.pop(trace.mlflow_id, None)
        if known is None:
            self.traces += 1
        self.spans += len(trace.spans)
        self.bytes += sum(len(entry.record) for entry in trace.entries())
        info = trace.info
        self._recent[trace.mlflow_id] = {
            "trace_id": trace.mlflow_id,
            "name": _printable(info.info.get("name"))[:_MAX_NAME] if info else "",
            "start_ns": info.start_ns if info else 0,
            "duration_ns": info.duration_ns if info else None,
            "state": TRACE_STATES.get(info.state, "") if info and info.phase else "IN_PROGRESS",
            "spans": len(trace.seen),
            "delivered": time.time(),
            "to": self._goes_to,
        }
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def refused_records(self, reason: str) -> None:
        """Records were set aside that cannot be used."""
        self.refused += 1
        self.error(f"{reason}; a file says which")

    def error(self, reason: object) -> None:
        text = _printable(without_secrets(str(reason)))[:_MAX_ERROR]
        self.last_error = {"text": text, "time": time.time()}
        self._changed = True

    def tick(self, sender: Sender) -> None:
        """Called in every round of the sender."""
        now = time.monotonic()
        if now < self._next_write:
            return
        rings = {ring.stem: ring.reader.refused_traces for ring in sender.rings.values()}
        for stem in self._no_room.keys() - rings.keys():
            self._no_room_before += self._no_room.pop(stem)
        no_room = {stem: count for stem, count in rings.items() if count}
        # What another server says is not what is asked here.
        server = sender.server_state if self.destination == self._goes_to else 0
        state = (SERVER_STATES[server], sender.kept_out, sender.spool_is_full, no_room)
        known = (self._server, self._kept_out, self._full, self._no_room)
        if self._changed or state != known:
            self._server, self._kept_out, self._full, self._no_room = state
            self._next_write = now + _WRITE_SECONDS
            self._changed = False
            self._write(ended=None)

    def end(self) -> None:
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
                    "kept_out": self._kept_out_before + self._kept_out,
                    "full": self._full,
                    "no_room": self._no_room_before + sum(self._no_room.values()),
                    "no_room_rings": self._no_room,
                    "last_error": self.last_error,
                    "recent": list(self._recent.values()),
                }
            )
            path = os.path.join(self._folder, FILE_NAME)
            fresh = path + ".new"
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            flags |= os.O_NONBLOCK  # a pipe is an error, not waited for
            with open(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(fresh, path)
        except OSError:
            pass  # a full disk or a folder that is gone: delivery goes on without


def _printable(value: object) -> str:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
