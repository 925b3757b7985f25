"""A look at spools from outside: rings, segments and what senders say of themselves.

Nothing here changes anything: rings of live agents and segments that a sender is reading are only
read. Whatever a file holds, the worst it can do is to be reported as unreadable.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from mlflow_fasttrace import _core, _settings
from mlflow_fasttrace.sender.sources import SPAN, TRACE, ring_paths, segment_paths, spill_stem
from mlflow_fasttrace.sender.status import (
    DEAD_LETTER_SUFFIX,
    SERVER_STATES,
    TRACE_STATES,
    read_status,
)

#: Of each spool's segments at most so much is read for its figures; the rest is "and more".
COUNTED_BYTES = 64 << 20

_READ_BYTES = 4 << 20
_PHASE_MASK = 0x0F
_SPOOL_NAME = re.compile(r"^[0-9a-f]{16}(-memory)?$")
_IN_MEMORY = "-memory"  # ends the names of spools that are not on disk
_MAX_REASON = 2000


class Unreadable(Exception):
    """A file that is not what its name says; the message is one line for the user."""


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


def all_spools() -> list[_settings.Spool]:
    """Every spool below this user's state root, also those of which only rings are left."""
    root = os.path.abspath(_settings.state_root())
    prefix = _settings.rings_prefix(root) + "-"
    shared = os.path.dirname(_settings.spool_named(root, "").rings)
    names = {*_names(root), *_names(shared, prefix)}
    return sorted(filter(None, (_spool(root, name) for name in names)))


def _spool(root: str, name: str) -> _settings.Spool | None:
    spool = _settings.spool_named(root, name.removesuffix(_IN_MEMORY))
    return spool.in_memory() if name.endswith(_IN_MEMORY) else spool


def _rings(spool: _settings.Spool) -> list[str]:
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


def spools_named(names: tuple[str, ...]) -> list[_settings.Spool]:
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
            matching = [_settings.spool_named(os.path.dirname(folder), base)]
        if len(matching) != 1:
            what = "is no spool" if not matching else "stands for several spools"
            raise Unreadable(f"{name} {what}; `mlflow-fasttrace status` lists them")
        found += [spool for spool in matching if spool not in found]
    return found


def sender_of(spool: _settings.Spool) -> tuple[bool, int | None]:
    """Whether somebody holds the sender's lock, and who."""
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(spool.lock, flags)
    except OSError:
        return False, None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False, None
    except OSError:
        words = os.pread(fd, 100, 0).split()
        return True, int(words[0]) if words and words[0].isdigit() else None
    finally:
        os.close(fd)


# ---- reading files ----


def _open_ring(path: str) -> _core.RingReader:
    try:
        return _core.RingReader(path)
    except OSError as error:
        raise Unreadable(_why(path, error, "a ring")) from None


def _why(path: str, error: OSError, kind: str) -> str:
    if os.path.islink(path):
        return f"{path} is a symbolic link; give the file itself"
    if os.path.isdir(path):
        return f"{path} is a folder"
    if os.path.exists(path) and not os.path.isfile(path):
        return f"{path} is not a file"
    if error.errno == 22:  # EINVAL: what the core says of a wrong header
        return f"{path} is not {kind}, or its header is damaged"
    return f"{path} cannot be read: {error.strerror or error}"


def ring_items(path: str) -> tuple[list[tuple[int, bytes, bytes]], str | None]:
    """The (kind, trace id, record) that a ring holds undelivered, and what is wrong with it.

    A sender may be giving space back and the agent writing over it meanwhile: what lies before the
    tail afterwards may be torn, was taken care of by the sender, and is left out.

    Raises:
        Unreadable: the file is no ring.
    """
    for _attempt in range(5):
        reader = _open_ring(path)
        try:
            began = reader.cursor
            head = reader.head  # what the agent adds meanwhile is left for another look
            items = []
            while reader.cursor < head and (batch := reader.drain(_READ_BYTES)):
                items += batch
            tail = reader.tail
            if reader.damaged and tail != began:
                continue  # not damage: we were overtaken
            starts = [began, *(item[0] for item in items)]
            whole = [item[1:] for start, item in zip(starts, items, strict=False) if start >= tail]
            note = None
            if reader.damaged:
                left = max(0, reader.head - reader.cursor)
                note = f"damaged behind {len(items):,} records: {left:,} bytes cannot be read"
            return whole, note
        finally:
            reader.close()
    return [], None


def segment_items(path: str, limit: int = 1 << 62) -> Iterator[list[tuple[int, bytes, bytes]]]:
    """What a segment holds, in portions of some MB.

    Raises:
        Unreadable: it is no segment, or damaged from here on.
        FileNotFoundError: a sender has delivered it.
    """
    try:
        reader = _core.SegmentReader(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(_why(path, error, "a segment")) from None
    records = 0
    try:
        while reader.offset < limit and (batch := reader.read(_READ_BYTES)):
            records += len(batch)
            yield [item[1:] for item in batch]
        if reader.damaged or (reader.rest and reader.offset < limit):
            if not reader.offset:
                raise Unreadable(f"{path} is not a segment, or its header is damaged")
            raise Unreadable(
                f"{path} is damaged behind {records:,} records: "
                f"{reader.rest:,} bytes cannot be read"
            )
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}") from None


def file_items(path: str) -> tuple[list[tuple[int, bytes, bytes]], list[str]]:
    """All that a ring or segment file holds, whatever its name, and what is wrong with it.

    Raises:
        Unreadable: it is neither.
    """
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(path, flags)
        try:
            magic = os.pread(fd, 8, 0)
        finally:
            os.close(fd)
    except OSError as error:
        raise Unreadable(_why(path, error, "a ring or segment")) from None
    if magic == b"MFTRING1":
        items, note = ring_items(path)
        return items, [f"{path} is {note}"] if note else []
    if magic != b"MFTSEG1\0":
        raise Unreadable(f"{path} is neither a ring nor a segment, or its header is damaged")
    items, notes = [], []
    try:
        for batch in segment_items(path):
            items += batch
    except Unreadable as reason:
        notes.append(str(reason))
    except FileNotFoundError:
        raise Unreadable(f"{path} has just been delivered") from None
    return items, notes


def decoded(record: bytes) -> list[Any] | None:
    """A record's fields; None where it is none after all."""
    try:
        fields = _core.decode(record)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError):
        return None
    return fields if isinstance(fields, list) else None


def span_json(record: bytes) -> str:
    """MLflow's dictionary of a span, as JSON.

    Raises:
        ValueError: the record is damaged.
    """
    return _core.span_json(record)


# ---- the state of a spool ----


def look_at(spool: _settings.Spool, counted_bytes: int = COUNTED_BYTES) -> SpoolView:
    running, pid = sender_of(spool)
    view = SpoolView(spool.name, spool.state, sender_pid=pid, sender_running=running)
    view.status = read_status(spool.state)
    if view.status is None and os.path.lexists(os.path.join(spool.state, "status.json")):
        view.notes.append("status.json cannot be read: delivered figures are unknown")
    elif view.status:
        view.destination = _settings.without_secrets(view.status["destination"])
    traces: set[bytes] = set()
    for path in _rings(spool):
        if (agent := _look_at_ring(view, path, traces)) is not None:
            view.agents.append(agent)
    _look_at_segments(view, spool, traces, counted_bytes)
    view.waiting.traces = len(traces)
    _look_at_dead_letters(view)
    return view


def _look_at_ring(view: SpoolView, path: str, traces: set[bytes]) -> Agent | None:
    try:
        reader = _open_ring(path)
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


def _segments_waiting(spool: _settings.Spool, agents: list[Agent]) -> tuple[list[str], list[str]]:
    """Without the one that an agent has begun and whose records are all delivered: it stays until
    the agent has begun another."""
    packed, spilled = segment_paths(spool.state, spool.rings)
    emptied = {
        os.path.basename(agent.ring).removesuffix(".ring")
        for agent in agents
        if agent.alive and agent.spilled_records <= agent.spilled_delivered
    }
    return packed, [path for path in spilled if spill_stem(path) not in emptied]


def something_waits(spool: _settings.Spool) -> bool:
    """The short answer, without reading records."""
    agents = []
    for path in _rings(spool):
        try:
            reader = _open_ring(path)
        except Unreadable:
            continue
        agent = Agent(reader.pid, reader.alive(), path)
        agent.spilled_records, agent.spilled_delivered = reader.spilled, reader.spill_delivered
        agents.append(agent)
        if reader.tail < reader.head:
            return True
    return any(_segments_waiting(spool, agents))


def _look_at_segments(
    view: SpoolView, spool: _settings.Spool, traces: set[bytes], budget: int
) -> None:
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
    return _settings.without_secrets(uri) if isinstance(uri, str) else None


def dead_letter_paths(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names if name.endswith(DEAD_LETTER_SUFFIX)]


def note_of(dead_letter: str) -> str:
    """The file with a dead letter's reason."""
    return dead_letter.removesuffix(DEAD_LETTER_SUFFIX) + ".txt"


def _look_at_dead_letters(view: SpoolView) -> None:
    for path in dead_letter_paths(view.folder):
        reason = "no reason is known"
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            with open(os.open(note_of(path), flags), encoding="utf-8", errors="replace") as note:
                reason = _settings.without_secrets(note.read(_MAX_REASON).strip())
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


@dataclass
class SpanView:
    span_id: bytes
    parent_id: bytes | None
    name: str
    type: str
    start_ns: int
    end_ns: int
    status: str
    message: str
    record: bytes | None  # kept only where asked for


class TraceView:
    """A trace as far as its records lie here."""

    def __init__(self, trace_id: bytes, source: str):
        self.trace_id = "tr-" + trace_id.hex()
        self.source = source
        self.spans: dict[bytes, SpanView] = {}
        self.state = "IN_PROGRESS"
        self.name = ""
        self.duration_ns: int | None = None
        self.destination: str | None = None
        self.last_ns = 0
        self._progress = (-1, -1)

    def add(self, kind: int, record: bytes, keep: bool) -> bool:
        fields = decoded(record)
        try:
            if fields is None:
                return False
            if kind == SPAN:
                self._add_span(fields, record if keep else None)
            elif kind == TRACE:
                self._add_info(fields)
            return bool(kind)  # 0: no record
        except (IndexError, TypeError, ValueError, AttributeError):
            return False

    def _add_span(self, fields: list[Any], record: bytes | None) -> None:
        kind = fields[9].get("mlflow.spanType")
        span = SpanView(
            bytes(fields[2]),
            bytes(fields[3]) if fields[3] is not None else None,
            str(fields[4]),
            kind if isinstance(kind, str) else "",
            int(fields[5]),
            int(fields[6]),
            ("UNSET", "OK", "ERROR")[fields[7]],
            str(fields[8] or ""),
            record,
        )
        self.spans[span.span_id] = span
        self.last_ns = max(self.last_ns, span.end_ns)

    def _add_info(self, fields: list[Any]) -> None:
        phase = fields[2] & _PHASE_MASK
        if (phase, fields[3]) < self._progress:
            return
        self._progress = (phase, fields[3])
        self.state = TRACE_STATES.get(fields[6], "") if phase else "IN_PROGRESS"
        self.duration_ns = fields[5] if phase else None
        self.name = str(fields[8].get("name") or "")
        self.destination = destination_of(fields)
        self.last_ns = max(self.last_ns, fields[4] + (fields[5] or 0))

    @property
    def missing(self) -> int:
        """Spans that the trace's record counts and that are not here."""
        return max(0, self._progress[1] - len(self.spans))

    def children(self) -> dict[bytes | None, list[SpanView]]:
        """Spans by parent, in the order of their start; those whose parent is not here, and one of
        every circle, stand at the top."""
        result: dict[bytes | None, list[SpanView]] = {}
        for span in sorted(self.spans.values(), key=lambda span: span.start_ns):
            parent = span.parent_id if span.parent_id in self.spans else None
            result.setdefault(parent, []).append(span)
        reached: set[bytes] = set()

        def reach(tops: list[SpanView]) -> None:
            while tops:
                span = tops.pop()
                if span.span_id not in reached:
                    reached.add(span.span_id)
                    tops += result.get(span.span_id, [])

        reach(list(result.get(None, [])))
        for span in self.spans.values():
            if span.span_id not in reached:
                siblings = result[span.parent_id]
                siblings.remove(span)
                result.setdefault(None, []).append(span)
                reach([span])
        return result

    def to_dict(self) -> dict[str, Any]:
        return {
            "trace_id": self.trace_id,
            "name": self.name,
            "state": self.state,
            "duration_ns": self.duration_ns,
            "destination": self.destination,
            "where": self.source,
            "spans_missing": self.missing,
            "spans": [
                {
                    "span_id": span.span_id.hex(),
                    "parent_id": span.parent_id and span.parent_id.hex(),
                    "name": span.name,
                    "type": span.type,
                    "start_ns": span.start_ns,
                    "end_ns": span.end_ns,
                    "status": span.status,
                }
                for span in sorted(self.spans.values(), key=lambda span: span.start_ns)
            ],
        }

    def to_json(self) -> str:
        """With MLflow's span dictionaries, as the core writes them: no value is read and written
        again on the way."""
        head = self.to_dict()
        del head["spans"]
        texts = []
        for span in sorted(self.spans.values(), key=lambda span: span.start_ns):
            try:
                texts.append(span_json(span.record))
            except ValueError as error:
                texts.append(json.dumps({"span_id": span.span_id.hex(), "unreadable": str(error)}))
        return f'{json.dumps(head)[:-1]}, "spans": [{", ".join(texts)}]}}'


class Traces:
    """Traces put together from the files they lie in."""

    def __init__(self, keep_records: bool = False, wanted: str = ""):
        self.found: dict[tuple[str, bytes], TraceView] = {}
        self.notes: list[str] = []
        self._keep = keep_records
        self._wanted = wanted  # the beginning of the ids, hex

    def add(self, items: list[tuple[int, bytes, bytes]], key: str, source: str) -> None:
        bad = 0
        for kind, trace_id, record in items:
            if self._wanted and not trace_id.hex().startswith(self._wanted):
                continue
            trace = self.found.get((key, trace_id))
            if trace is None:
                trace = self.found[key, trace_id] = TraceView(trace_id, source)
            bad += not trace.add(kind, record, self._keep)
        if bad:
            self.notes.append(f"{bad:,} records in {source} cannot be read")

    def add_file(self, path: str) -> None:
        items, notes = file_items(path)
        self.add(items, "", path)
        self.notes += notes

    def add_spool(self, spool: _settings.Spool, *, refused: bool, budget: int = 1 << 62) -> None:
        """Everything that waits in a spool; newest files first, as far as the budget goes."""
        for path in _rings(spool):
            try:
                items, note = ring_items(path)
            except Unreadable as reason:
                if os.path.lexists(path):
                    self.notes.append(str(reason))
                continue
            self.add(items, spool.name, "waiting")
            if note:
                self.notes.append(f"{path} is {note}")
        packed, spilled = segment_paths(spool.state, spool.rings)
        letters = dead_letter_paths(spool.state) if refused else []
        for path in [*letters, *reversed(spilled), *reversed(packed)]:
            if budget <= 0:
                self.notes.append(f"older segments of {spool.state} are not shown")
                break
            try:
                budget -= os.lstat(path).st_size
                for batch in segment_items(path):
                    self.add(batch, spool.name, "refused" if path in letters else "waiting")
            except FileNotFoundError:
                continue
            except Unreadable as reason:
                if path not in spilled:
                    self.notes.append(str(reason))

    def newest(self) -> list[TraceView]:
        """The one that did something last comes first."""
        traces = [trace for trace in self.found.values() if trace.spans or trace.last_ns]
        return sorted(traces, key=lambda trace: trace.last_ns, reverse=True)
