"""A look at spools from outside: rings, segments and what senders say of themselves.

Nothing here changes anything: the rings of live programs and segments that a sender is reading are
only read. Whatever a file holds, the worst it can do is to be reported as unreadable.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.config.uris import without_secrets
from mlflow_fasttrace._internal.spool.files import (
    Unreadable,
    change_paths,
    damaged_paths,
    dead_letter_paths,
    ids_of,
    note_of,
    refused_change_paths,
    ring_paths,
    ring_stem,
    segment_paths,
    spill_stem,
)
from mlflow_fasttrace._internal.spool.folder import (
    IN_MEMORY,
    Spool,
    rings_prefix,
    spool_named,
    spools_root,
)
from mlflow_fasttrace._internal.spool.lock import sender_of
from mlflow_fasttrace._internal.spool.private_files import open_private
from mlflow_fasttrace._internal.spool.reading import Item, open_ring, ring_items, segment_items
from mlflow_fasttrace._internal.spool.records import SPAN, TRACE, SpanRecord, TraceRecord
from mlflow_fasttrace._internal.spool.status_file import (
    FILE_NAME,
    SERVER_STATES,
    read_status,
    status_exists,
)

#: The bytes of each spool's segments that are read for its figures; of the rest only the size is.
COUNTED_BYTES = 64 << 20

_SPOOL_NAME = re.compile(rf"^[0-9a-f]{{16}}(-[0-9a-f]{{8}})?({IN_MEMORY})?$")
_MAX_REASON = 2000  # characters of a dead letter's reason that are read


# ---- what a look finds ----


@dataclass
class Program:
    """A process that records, or did: one ring. Its fields are keys of ``status --json``."""

    pid: int | None  # None: the ring cannot be read
    alive: bool
    ring: str
    recorded_bytes: int = 0
    waiting_spans: int = 0
    waiting_traces: int = 0
    waiting_bytes: int = 0
    spilled_records: int = 0  # that went to segments because the ring was full
    spilled_delivered: int = 0
    no_room: int = 0  # traces that were not begun because the spool was full
    error: str | None = None

    @classmethod
    def of(cls, reader: _core.RingReader, path: str) -> Program:
        """A ring's program, as far as the ring's header tells."""
        return cls(
            reader.pid,
            reader.alive(),
            path,
            recorded_bytes=reader.head,
            waiting_bytes=max(0, min(reader.head - reader.tail, reader.capacity)),
            spilled_records=reader.spilled,
            spilled_delivered=reader.spill_delivered,
            no_room=reader.refused_traces,
        )

    @property
    def stem(self) -> str:
        """The part of the ring's name that spilled segments share."""
        return ring_stem(self.ring)


@dataclass
class DeadLetter:
    """What a server refused for good. Its fields are keys of ``status --json``."""

    trace_id: str
    span_id: str | None  # hex, where a collector refused one span alone
    reason: str
    time: float  # seconds since the epoch
    path: str


@dataclass
class Waiting:
    """What is not delivered yet. Its fields are keys of ``status --json``."""

    traces: int = 0
    spans: int = 0
    record_bytes: int = 0
    ring_bytes: int = 0
    segment_bytes: int = 0
    segments: int = 0
    all_counted: bool = True  # False: there are more traces and spans than these
    oldest: float | None = None  # when the oldest span ended, in seconds since the epoch

    def __bool__(self) -> bool:
        return bool(self.ring_bytes or self.segments)


@dataclass
class SpoolView:
    """All that is known of a spool."""

    name: str
    folder: str
    destination: str | None = None  # a URI without credentials
    workspace: str | None = None
    sender_pid: int | None = None  # of the running sender
    sender_running: bool = False
    status: dict[str, Any] | None = None  # what the last sender wrote about itself
    programs: list[Program] = field(default_factory=list)
    waiting: Waiting = field(default_factory=Waiting)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def server(self) -> str:
        return self.status["server"] if self.status else SERVER_STATES[0]

    @property
    def delivered(self) -> dict[str, int]:
        return self.status["delivered"] if self.status else {"traces": 0, "spans": 0, "bytes": 0}

    @property
    def no_room(self) -> int:
        """Traces that were not begun because the spool was full."""
        counted = sum(program.no_room for program in self.programs)
        return max(counted, self.status["no_room"] if self.status else 0)

    @property
    def last_error(self) -> dict[str, Any] | None:
        return self.status["last_error"] if self.status else None

    def is_empty(self) -> bool:
        """Whether only folders are left: nothing was recorded, or nothing is known of it any more."""
        found = (self.status, self.programs, self.waiting, self.dead_letters, self.damaged)
        return not (any(found) or self.sender_running or self.notes)

    def needs_attention(self) -> bool:
        """Whether there are dead letters, damage, or a backlog that nobody is delivering."""
        return bool(
            self.dead_letters
            or self.damaged
            or any(program.error for program in self.programs)
            or (self.waiting and not self.sender_running)
        )

    def to_dict(self) -> dict[str, Any]:
        """The view as ``status --json`` prints it. Monitors rely on the keys, "agents" among them."""
        status = self.status
        running = self.sender_running
        ours = status if status and running and status["pid"] == self.sender_pid else None
        waiting = asdict(self.waiting)
        oldest = waiting.pop("oldest")
        refused = max(status["refused"] if status else 0, len(self.dead_letters))
        return {
            "name": self.name,
            "folder": self.folder,
            "destination": self.destination,
            "sender": {
                "running": running,
                "pid": self.sender_pid,
                "since": ours["started"] if ours else None,
                "version": ours["sender_version"] if ours else None,
            },
            "server": self.server,
            "recorded": {
                "traces": self.delivered["traces"] + self.waiting.traces + refused,
                "spans": self.delivered["spans"] + self.waiting.spans,
            },
            "delivered": self.delivered,
            "waiting": {**waiting, "lag_seconds": oldest and max(0.0, time.time() - oldest)},
            "refused": refused,
            "dead_letters": [asdict(letter) for letter in self.dead_letters],
            "kept_out": status["kept_out"] if status else 0,
            "full": bool(status and status["full"]),
            "no_room": self.no_room,
            "damaged": self.damaged,
            "agents": [asdict(program) for program in self.programs],
            "last_error": self.last_error,
            "notes": self.notes,
            "needs_attention": self.needs_attention(),
        }


# ---- finding spools ----


def all_spools() -> list[Spool]:
    """Every spool below this user's root folder, also those of which only rings are left."""
    root = os.path.abspath(spools_root())
    prefix = rings_prefix(root) + "-"
    shared = os.path.dirname(spool_named(root, "").rings)
    names = {*_spool_names(root), *_spool_names(shared, prefix)}
    return sorted(filter(None, (_spool(root, name) for name in names)))


def _spool(root: str, name: str) -> Spool | None:
    """The spool of a folder's name; None where it would lie in a shared memory that is not there."""
    spool = spool_named(root, name.removesuffix(IN_MEMORY))
    return spool.in_memory() if name.endswith(IN_MEMORY) else spool


def _spool_names(folder: str, prefix: str = "") -> list[str]:
    """The names of this user's spools in a folder, without the prefix that they begin with there."""
    try:
        with os.scandir(folder) as entries:
            return [
                entry.name[len(prefix) :]
                for entry in entries
                if entry.name.startswith(prefix)
                and _SPOOL_NAME.match(entry.name[len(prefix) :])
                and entry.is_dir(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            ]
    except OSError:
        return []


def spools_named(names: Iterable[str]) -> list[Spool]:
    """The spools that names, beginnings of names or folders stand for; all when none is given.

    Raises:
        Unreadable: One of them is no spool of this user.
    """
    spools = all_spools()
    names = list(names)
    if not names:
        return spools
    found: list[Spool] = []
    for name in names:
        matching = _spools_like(name, spools)
        if len(matching) != 1:
            reason = "is no spool" if not matching else "stands for several spools"
            raise Unreadable(f"{name} {reason}; `mlflow-fasttrace status` lists them")
        found += [spool for spool in matching if spool not in found]
    return found


def _spools_like(name: str, spools: list[Spool]) -> list[Spool]:
    """The spools whose folder, or the beginning of whose name, this is; and a spool folder that lies
    elsewhere."""
    folder = os.path.abspath(name)
    base = os.path.basename(folder)
    if matching := [spool for spool in spools if folder in (spool.folder, spool.rings)]:
        return matching
    if matching := [spool for spool in spools if spool.name.startswith(name)]:
        return matching
    if os.path.isdir(folder) and _SPOOL_NAME.match(base):
        return [spool_named(os.path.dirname(folder), base)]
    return []


def rings_of(spool: Spool) -> list[str]:
    """The rings of a spool, wherever they lie."""
    return sorted(set(ring_paths(spool.rings, spool.folder)))


# ---- looking at a spool ----


class _Tally:
    """What waits, counted over the files of a spool."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self.origin: TraceRecord | None = None  # the first trace record that can be decoded
        self._traces: set[bytes] = set()

    def add(self, items: list[Item]) -> set[bytes]:
        """Count a run of records, of which the first span is the oldest to have ended.

        Returns:
            The ids of their traces.
        """
        waiting = self.waiting
        traces = {item.trace_id for item in items}
        self._traces |= traces
        waiting.traces = len(self._traces)
        first = True
        for kind, _trace_id, record in items:
            waiting.record_bytes += len(record)
            if kind == SPAN:
                waiting.spans += 1
                if first and (span := _decoded_span(record)) is not None:
                    first = False
                    ended = span.end_ns / 1e9
                    waiting.oldest = min(ended, waiting.oldest or ended)
            elif kind == TRACE and self.origin is None:
                self.origin = _decoded_trace(record)
        return traces


def _decoded_span(record: bytes) -> SpanRecord | None:
    try:
        return SpanRecord.of(record)
    except (ValueError, MemoryError):
        return None


def _decoded_trace(record: bytes) -> TraceRecord | None:
    try:
        return TraceRecord.of(record)
    except (ValueError, MemoryError):
        return None


def look_at(spool: Spool, counted_bytes: int = COUNTED_BYTES) -> SpoolView:
    """All that is known of a spool.

    Args:
        spool: The spool.
        counted_bytes: The bytes of its segments whose records are counted.
    """
    holder = sender_of(spool)
    pid = (holder.pid or None) if holder else None
    view = SpoolView(spool.name, spool.folder, sender_pid=pid, sender_running=holder is not None)
    tally = _Tally()
    _look_at_status(view)
    _look_at_rings(view, spool, tally)
    _look_at_segments(view, spool, tally, counted_bytes)
    view.waiting = tally.waiting
    if tally.origin is not None:
        view.destination = view.destination or destination_of(tally.origin)
        workspace = tally.origin.destination.get("workspace")
        view.workspace = workspace if isinstance(workspace, str) else None
    view.dead_letters = _dead_letters(view.folder)
    view.damaged += [
        f"{path} is what is left of a damaged segment; what precedes the damage was delivered"
        for path in damaged_paths(view.folder)
    ]
    waiting, refused = change_paths(view.folder), refused_change_paths(view.folder)
    if waiting:
        view.notes.append(
            f"{_changes(len(waiting))} waiting for traces that are not at the server yet"
        )
    if refused:
        view.notes.append(f"{_changes(len(refused))} set aside: {', '.join(refused)}")
    return view


def _changes(number: int) -> str:
    """A number of assessments and tags that were left for the sender, and the verb behind it."""
    return "1 assessment or tag is" if number == 1 else f"{number} assessments and tags are"


def _look_at_status(view: SpoolView) -> None:
    view.status = read_status(view.folder)
    if view.status is not None:
        view.destination = without_secrets(view.status["destination"])
    elif status_exists(view.folder):
        view.notes.append(f"{FILE_NAME} cannot be read: delivered figures are unknown")


def _look_at_rings(view: SpoolView, spool: Spool, tally: _Tally) -> None:
    for path in rings_of(spool):
        try:
            view.programs.append(_look_at_ring(path, tally))
        except Unreadable as reason:
            view.programs.append(Program(None, False, path, error=str(reason)))
        except FileNotFoundError:
            continue  # its sender has just removed it


def _look_at_ring(path: str, tally: _Tally) -> Program:
    """The program of a ring.

    Raises:
        Unreadable: The file is no ring.
        FileNotFoundError: A sender has removed it.
    """
    reader = open_ring(path)
    program = Program.of(reader, path)
    reader.close()
    items, program.error = ring_items(path)
    program.waiting_traces = len(tally.add(items))
    program.waiting_spans = sum(item.kind == SPAN for item in items)
    tally.waiting.ring_bytes += program.waiting_bytes
    return program


def _look_at_segments(view: SpoolView, spool: Spool, tally: _Tally, budget: int) -> None:
    waiting = tally.waiting
    packed, spilled = _segments_waiting(spool, view.programs)
    for path in [*packed, *spilled]:
        try:
            size = os.lstat(path).st_size
            waiting.segments += 1
            waiting.segment_bytes += size
            if budget <= 0:
                waiting.all_counted = False
                continue
            for batch in segment_items(path, budget):
                tally.add(batch)
            if size > budget:
                waiting.all_counted = False
            budget -= size
        except FileNotFoundError:
            continue
        except Unreadable as reason:
            if path in spilled:  # a frame may be half written
                continue
            view.damaged.append(str(reason))


def _segments_waiting(spool: Spool, programs: list[Program]) -> tuple[list[str], list[str]]:
    """The packed and the spilled segments with records to deliver. The segment that a live program
    has begun stays when all its records are delivered, until the program begins another."""
    packed, spilled = segment_paths(spool.folder, spool.rings)
    emptied = {
        program.stem
        for program in programs
        if program.alive and program.spilled_records <= program.spilled_delivered
    }
    return packed, [path for path in spilled if spill_stem(path) not in emptied]


def something_waits(spool: Spool) -> bool:
    """Whether anything in a spool is to be delivered. Reads no records."""
    programs = []
    for path in rings_of(spool):
        try:
            reader = open_ring(path)
        except (Unreadable, FileNotFoundError):
            continue
        program = Program.of(reader, path)
        reader.close()
        if program.waiting_bytes:
            return True
        programs.append(program)
    return any(_segments_waiting(spool, programs))


def destination_of(record: TraceRecord) -> str | None:
    """Where a trace goes, as its record says: a URI without credentials."""
    uri = record.destination.get("uri")
    return without_secrets(uri) if isinstance(uri, str) else None


def _dead_letters(folder: str) -> list[DeadLetter]:
    letters = []
    for path in dead_letter_paths(folder):
        reason = _reason_of(path)
        trace_id, span_id = ids_of(path)
        try:
            refused_at = os.lstat(path).st_mtime
        except OSError:
            continue
        letters.append(DeadLetter("tr-" + trace_id, span_id, reason, refused_at, path))
    return letters


def _reason_of(dead_letter: str) -> str:
    try:
        fd = open_private(note_of(dead_letter), os.O_RDONLY)
        with open(fd, encoding="utf-8", errors="replace") as note:
            return without_secrets(note.read(_MAX_REASON).strip())
    except OSError:
        return "no reason is known"
