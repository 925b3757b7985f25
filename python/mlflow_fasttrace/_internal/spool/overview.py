"""A look at spools from outside: rings, segments and what senders say of themselves.

Nothing here changes anything: rings of live agents and segments that a sender is reading are only
read. Whatever a file holds, the worst it can do is to be reported as unreadable.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from mlflow_fasttrace._internal.config.uris import without_secrets
from mlflow_fasttrace._internal.spool.files import (
    DEAD_LETTER_SUFFIX,
    dead_letter_paths,
    note_of,
    ring_paths,
    segment_paths,
    spill_stem,
)
from mlflow_fasttrace._internal.spool.folder import Spool, rings_prefix, spool_named, state_root
from mlflow_fasttrace._internal.spool.lock import sender_of
from mlflow_fasttrace._internal.spool.reading import (
    Unreadable,
    decoded,
    open_ring,
    ring_items,
    segment_items,
)
from mlflow_fasttrace._internal.spool.records import SPAN, TRACE
from mlflow_fasttrace._internal.spool.status_file import SERVER_STATES, read_status

#: Of each spool's segments at most so much is read for its figures; the rest is "and more".
COUNTED_BYTES = 64 << 20

_SPOOL_NAME = re.compile(r"^[0-9a-f]{16}(-memory)?$")
_IN_MEMORY = "-memory"  # ends the names of spools that are not on disk
_MAX_REASON = 2000


@dataclass
class Agent:
    """A process that records, or did: one ring."""

    pid: int | None
    alive: bool
    ring: str
    recorded_bytes: int = 0
    waiting_spans: int = 0
    waiting_traces: int = 0
    waiting_bytes: int = 0
    spilled_records: int = 0  # went to segments since its ring was full
    spilled_delivered: int = 0
    no_room: int = 0  # traces that were not begun since the spool is full
    error: str | None = None


@dataclass
class DeadLetter:
    trace_id: str
    span_id: str | None  # where it is one span alone, refused by a collector
    reason: str
    time: float
    path: str


@dataclass
class Waiting:
    """What is not delivered yet."""

    traces: int = 0
    spans: int = 0
    record_bytes: int = 0
    ring_bytes: int = 0
    segment_bytes: int = 0
    segments: int = 0
    all_counted: bool = True  # False: there are more traces and spans than these
    oldest: float | None = None  # when the oldest of it ended

    def __bool__(self) -> bool:
        return bool(self.ring_bytes or self.segments)


@dataclass
class SpoolView:
    name: str
    folder: str
    destination: str | None = None
    workspace: str | None = None
    sender_pid: int | None = None  # of the running sender
    sender_running: bool = False
    status: dict[str, Any] | None = None
    agents: list[Agent] = field(default_factory=list)
    waiting: Waiting = field(default_factory=Waiting)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    origin_read: bool = False  # what a trace's record says of its destination

    @property
    def server(self) -> str:
        return self.status["server"] if self.status else SERVER_STATES[0]

    @property
    def delivered(self) -> dict[str, int]:
        return self.status["delivered"] if self.status else {"traces": 0, "spans": 0, "bytes": 0}

    @property
    def no_room(self) -> int:
        counted = sum(agent.no_room for agent in self.agents)
        return max(counted, self.status["no_room"] if self.status else 0)

    @property
    def last_error(self) -> dict[str, Any] | None:
        return self.status["last_error"] if self.status else None

    def is_empty(self) -> bool:
        """Left-over folders: nothing was recorded, or nothing is known of it any more."""
        found = (self.status, self.agents, self.waiting, self.dead_letters, self.damaged)
        return not (any(found) or self.sender_running or self.notes)

    def needs_attention(self) -> bool:
        """Dead letters, damage, or a backlog that nobody is delivering."""
        return bool(
            self.dead_letters
            or self.damaged
            or any(agent.error for agent in self.agents)
            or (self.waiting and not self.sender_running)
        )

    def to_dict(self) -> dict[str, Any]:
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
            "agents": [asdict(agent) for agent in self.agents],
            "last_error": self.last_error,
            "notes": self.notes,
            "needs_attention": self.needs_attention(),
        }


# ---- finding ----


def all_spools() -> list[Spool]:
    """Every spool below this user's state root, also those of which only rings are left."""
    root = os.path.abspath(state_root())
    prefix = rings_prefix(root) + "-"
    shared = os.path.dirname(spool_named(root, "").rings)
    names = {*_names(root), *_names(shared, prefix)}
    return sorted(filter(None, (_spool(root, name) for name in names)))


def _spool(root: str, name: str) -> Spool | None:
    spool = spool_named(root, name.removesuffix(_IN_MEMORY))
    return spool.in_memory() if name.endswith(_IN_MEMORY) else spool


def rings_of(spool: Spool) -> list[str]:
    return sorted(set(ring_paths(spool.rings, spool.state)))


def _names(folder: str, prefix: str = "") -> list[str]:
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


def spools_named(names: tuple[str, ...]) -> list[Spool]:
    """The spools that names, beginnings of names or folders stand for; all when none is given.

    Raises:
        Unreadable: one of them is no spool of this user.
    """
    spools = all_spools()
    if not names:
        return spools
    found = []
    for name in names:
        folder = os.path.abspath(name)
        base = os.path.basename(folder)
        matching = [spool for spool in spools if folder in (spool.state, spool.rings)]
        matching = matching or [spool for spool in spools if spool.name.startswith(name)]
        if not matching and os.path.isdir(folder) and _SPOOL_NAME.match(base):
            matching = [spool_named(os.path.dirname(folder), base)]
        if len(matching) != 1:
            what = "is no spool" if not matching else "stands for several spools"
            raise Unreadable(f"{name} {what}; `mlflow-fasttrace status` lists them")
        found += [spool for spool in matching if spool not in found]
    return found


# ---- reading files ----


# ---- the state of a spool ----


def look_at(spool: Spool, counted_bytes: int = COUNTED_BYTES) -> SpoolView:
    holder = sender_of(spool)
    pid = (holder.pid or None) if holder else None
    view = SpoolView(spool.name, spool.state, sender_pid=pid, sender_running=holder is not None)
    view.status = read_status(spool.state)
    if view.status is None and os.path.lexists(os.path.join(spool.state, "status.json")):
        view.notes.append("status.json cannot be read: delivered figures are unknown")
    elif view.status:
        view.destination = without_secrets(view.status["destination"])
    traces: set[bytes] = set()
    for path in rings_of(spool):
        if (agent := _look_at_ring(view, path, traces)) is not None:
            view.agents.append(agent)
    _look_at_segments(view, spool, traces, counted_bytes)
    view.waiting.traces = len(traces)
    _look_at_dead_letters(view)
    return view


def _look_at_ring(view: SpoolView, path: str, traces: set[bytes]) -> Agent | None:
    try:
        reader = open_ring(path)
    except Unreadable as reason:
        if not os.path.lexists(path):
            return None  # its sender has just removed it
        return Agent(None, False, path, error=str(reason))
    agent = Agent(reader.pid, reader.alive(), path)
    agent.recorded_bytes = reader.head
    agent.waiting_bytes = max(0, min(reader.head - reader.tail, reader.capacity))
    agent.spilled_records = reader.spilled
    agent.spilled_delivered = reader.spill_delivered
    agent.no_room = reader.refused_traces
    reader.close()
    try:
        items, note = ring_items(path)
    except Unreadable:
        return None
    agent.error = note
    mine = _count(view, items, traces)
    agent.waiting_traces = len(mine)
    agent.waiting_spans = sum(kind == SPAN for kind, _, _ in items)
    view.waiting.ring_bytes += agent.waiting_bytes
    return agent


def _segments_waiting(spool: Spool, agents: list[Agent]) -> tuple[list[str], list[str]]:
    """Without the one that an agent has begun and whose records are all delivered: it stays until
    the agent has begun another."""
    packed, spilled = segment_paths(spool.state, spool.rings)
    emptied = {
        os.path.basename(agent.ring).removesuffix(".ring")
        for agent in agents
        if agent.alive and agent.spilled_records <= agent.spilled_delivered
    }
    return packed, [path for path in spilled if spill_stem(path) not in emptied]


def something_waits(spool: Spool) -> bool:
    """The short answer, without reading records."""
    agents = []
    for path in rings_of(spool):
        try:
            reader = open_ring(path)
        except Unreadable:
            continue
        agent = Agent(reader.pid, reader.alive(), path)
        agent.spilled_records, agent.spilled_delivered = reader.spilled, reader.spill_delivered
        agents.append(agent)
        if reader.tail < reader.head:
            return True
    return any(_segments_waiting(spool, agents))


def _look_at_segments(view: SpoolView, spool: Spool, traces: set[bytes], budget: int) -> None:
    packed, spilled = _segments_waiting(spool, view.agents)
    for path in [*packed, *spilled]:
        try:
            size = os.lstat(path).st_size
            view.waiting.segments += 1
            view.waiting.segment_bytes += size
            if budget <= 0:
                view.waiting.all_counted = False
                continue
            for batch in segment_items(path, budget):
                _count(view, batch, traces)
            if size > budget:
                view.waiting.all_counted = False
            budget -= size
        except FileNotFoundError:
            continue
        except Unreadable as reason:
            if path in spilled:  # a frame may be half written
                continue
            view.damaged.append(str(reason))


def _count(view: SpoolView, items: list[tuple[int, bytes, bytes]], traces: set[bytes]) -> set:
    """Adds to what waits. Of a run of records the first span is the oldest to have ended."""
    waiting = view.waiting
    mine = {trace_id for _, trace_id, _ in items}
    traces |= mine
    first = True
    for kind, _, record in items:
        waiting.record_bytes += len(record)
        if kind == SPAN:
            waiting.spans += 1
            if first and (fields := decoded(record)):
                first = False
                ended = fields[6] / 1e9
                waiting.oldest = min(ended, waiting.oldest or ended)
        elif kind == TRACE and not view.origin_read and (fields := decoded(record)):
            view.origin_read = True
            view.destination = view.destination or destination_of(fields)
            view.workspace = _origin(fields).get("workspace")
    return mine


def _origin(trace_record: list[Any]) -> dict[str, Any]:
    origin = trace_record[7] if len(trace_record) > 7 else None
    return origin if isinstance(origin, dict) else {}


def destination_of(trace_record: list[Any]) -> str | None:
    uri = _origin(trace_record).get("uri")
    return without_secrets(uri) if isinstance(uri, str) else None


def _look_at_dead_letters(view: SpoolView) -> None:
    for path in dead_letter_paths(view.folder):
        reason = "no reason is known"
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            with open(os.open(note_of(path), flags), encoding="utf-8", errors="replace") as note:
                reason = without_secrets(note.read(_MAX_REASON).strip())
        except OSError:
            pass
        name = os.path.basename(path).removesuffix(DEAD_LETTER_SUFFIX).partition(".")[0]
        trace_id, _, span_id = name.removeprefix("refused-").partition("-")
        try:
            when = os.lstat(path).st_mtime
        except OSError:
            continue
        view.dead_letters.append(DeadLetter("tr-" + trace_id, span_id or None, reason, when, path))
    try:
        names = sorted(os.listdir(view.folder))
    except OSError:
        return
    view.damaged += [
        f"{os.path.join(view.folder, name)} is what is left of a damaged segment; what precedes "
        "the damage was delivered"
        for name in names
        if name.endswith(".damaged")
    ]


# ---- traces ----
