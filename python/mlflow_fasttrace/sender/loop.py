"""The sender's life: find the lock, drain rings, deliver, pack what cannot be delivered, end."""

from __future__ import annotations

import fcntl
import logging
import os
import time

from mlflow_fasttrace import _core
from mlflow_fasttrace.sender.assemble import Assembler, TraceBuffer
from mlflow_fasttrace.sender.delivery import (
    Artifacts,
    Away,
    Backoff,
    Destination,
    Experiments,
    Inexact,
    Refused,
    open_destination,
)
from mlflow_fasttrace.sender.sources import (
    COMPRESSION_LEVEL,
    PackedSegment,
    RingSource,
    SpillSegment,
    ring_paths,
    segment_paths,
    spill_stem,
)
from mlflow_fasttrace.sender.status import Status

logger = logging.getLogger("mlflow_fasttrace.sender")

POLL_BUSY_SECONDS = 0.003
POLL_IDLE_SECONDS = 0.05
SCAN_SECONDS = 0.05  # for rings of new agents
LINGER_SECONDS = 5.0  # without any agent, before the sender ends
BATCH_SPANS = 2000
BATCH_BYTES = 4 << 20
BATCH_TRACES = 100
MEMORY_BYTES = 32 << 20  # of records read from segments

SERVER_UNKNOWN, SERVER_ANSWERS, SERVER_AWAY = 0, 1, 2


class Sender:
    def __init__(self, state: str, rings: str, uri: str):
        self.state = state
        self.rings_folder = rings
        self.uri = uri
        self.assembler = Assembler()
        self.rings: dict[str, RingSource] = {}
        self.segments: dict[str, PackedSegment | SpillSegment] = {}
        self.server_state = SERVER_UNKNOWN
        self.backoff = Backoff()
        self.status = Status(state, uri)
        self.flush_wanted = False
        self._destination: Destination | None = None
        self._experiments = Experiments(uri)
        self._packed = 0
        self._last_scan = 0.0
        self._bad_rings: set[str] = set()

    # ---- reading ----

    def scan(self) -> None:
        """Finds rings of new agents, segments that wait, and rings whose agents are gone."""
        self._last_scan = time.monotonic()
        for path in ring_paths(self.rings_folder, self.state):
            if path in self.rings or path in self._bad_rings:
                continue
            try:
                ring = RingSource(path)
            except OSError as error:
                logger.error("%s cannot be read and is left alone: %s", path, error)
                self._bad_rings.add(path)
                continue
            ring.reader.set_server_state(self.server_state)
            self.rings[path] = ring
        by_stem = {ring.stem: ring for ring in self.rings.values()}
        packed, spilled = segment_paths(self.state)
        for path in packed:
            if path not in self.segments:
                self.segments[path] = PackedSegment(path)
        for path in spilled:
            if path not in self.segments:
                try:
                    self.segments[path] = SpillSegment(path, by_stem.get(spill_stem(path)))
                except FileNotFoundError:
                    continue

    def read(self) -> int:
        """Takes what the rings and, as memory allows, the segments have. Returns the records."""
        count = 0
        for ring in self.rings.values():
            entries = ring.read()
            self.assembler.add(entries)
            count += len(entries)
            self.flush_wanted |= ring.flush_wanted
        if self.server_state == SERVER_AWAY and self.backoff.waiting():
            return count
        for segment in self.segments.values():
            if self.assembler.bytes >= MEMORY_BYTES:
                break
            if not segment.loaded:
                entries = segment.read()
                self.assembler.add(entries)
                count += len(entries)
        return count

    # ---- delivering ----

    def deliver(self) -> int:
        """Sends what is ready. Returns the number of traces delivered."""
        overfull = self.assembler.bytes >= MEMORY_BYTES
        for trace in self.assembler.orphans():
            self._set_aside(trace, Refused("no record says where this trace goes"))
        ready = self.assembler.ready(everything=self.flush_wanted or overfull)
        if not ready or self.backoff.waiting():
            return 0
        sent = 0
        try:
            for batch in _batches(ready):
                self._deliver_batch(batch)
                sent += len(batch)
        except Away as reason:
            self._away(reason)
        else:
            self._flush_is_done()
        self._settle()
        return sent

    def _flush_is_done(self) -> None:
        self.flush_wanted = False
        for ring in self.rings.values():
            ring.flush_wanted = False

    def _deliver_batch(self, traces: list[TraceBuffer]) -> None:
        if self._destination is None:
            try:
                self._destination = open_destination(self.uri)
            except Exception as error:
                raise Away(f"the destination cannot be opened: {error}") from error
        by_experiment: dict[str, list[TraceBuffer]] = {}
        for trace in traces:
            experiment = self._experiments.id_of(trace.info.destination["experiment"])
            by_experiment.setdefault(experiment, []).append(trace)
        for experiment, group in by_experiment.items():
            accepted = [trace for trace in group if self._send_info(trace, experiment)]
            for trace in accepted:
                self._upload(trace)
            self._send_spans(experiment, accepted)
        self.backoff.succeeded()
        self._set_server_state(SERVER_ANSWERS)

    def _send_info(self, trace: TraceBuffer, experiment_id: str) -> bool:
        from mlflow_fasttrace.sender.finish import trace_info

        try:
            trace.summarize()
            entry = trace.info_entry
            if entry is None or entry.info_sent:
                return True
            info = trace_info(trace, experiment_id)
        except Exception as error:
            # Whatever is wrong with one trace, the others go on.
            logger.exception("trace %s cannot be finished", trace.mlflow_id)
            self._set_aside(trace, error)
            return False
        try:
            self._destination.send_info(info)
        except Refused as reason:
            self._set_aside(trace, reason)
            return False
        for info in trace.infos:
            info.info_sent = True
        return True

    def _upload(self, trace: TraceBuffer) -> None:
        """Attachments: the info is there, so the server has said where they go. One that cannot be
        uploaded is left out, as in MLflow; the trace is worth more."""
        if not trace.attachments:
            return
        contents = [_core.decode(entry.record) for entry in trace.attachments]
        attachments = {fields[2]: fields[3] for fields in contents}
        try:
            self._destination.upload(trace.mlflow_id, Artifacts(attachments=attachments))
        except Refused as reason:
            logger.error("attachments of %s are left out: %s", trace.mlflow_id, reason)

    def _upload_spans(self, trace: TraceBuffer) -> bool:
        """As MLflow's client does where the server does not take a trace's spans: as a file, which
        is read as long as none of them is in the database."""
        if len(trace.spans) < len(trace.seen):
            return False
        spans = ", ".join(_core.span_json(entry.record) for entry in trace.spans)
        try:
            self._destination.upload(trace.mlflow_id, Artifacts(spans=f'{{"spans": [{spans}]}}'))
        except Refused as reason:
            logger.error("spans of %s: %s", trace.mlflow_id, reason)
            return False
        return True

    def _send_spans(
        self, experiment_id: str, traces: list[TraceBuffer], *, exact: bool = True
    ) -> None:
        """One request; where it is refused, halves, down to the trace that is to blame. Traces with
        values that OTLP cannot carry go as files."""
        entries = [(trace, entry) for trace in traces for entry in trace.spans]
        try:
            if entries:
                records = [entry.record for _, entry in entries]
                self._destination.send_spans(experiment_id, records, exact=exact)
        except Inexact as reason:
            affected = {entries[index][0].trace_id for index in reason.indexes}
            degraded = []
            for trace in traces:
                if trace.trace_id in affected:
                    if trace.complete() and self._upload_spans(trace):
                        self._done(trace)
                    else:
                        degraded.append(trace)
            self._send_spans(experiment_id, [t for t in traces if t.trace_id not in affected])
            self._send_spans(experiment_id, degraded, exact=False)
            return
        except Refused as reason:
            if len(traces) == 1:
                if self._upload_spans(traces[0]):
                    self._done(traces[0])
                else:
                    self._set_aside(traces[0], reason)
                return
            half = len(traces) // 2
            self._send_spans(experiment_id, traces[:half], exact=exact)
            self._send_spans(experiment_id, traces[half:], exact=exact)
            return
        for trace in traces:
            self._done(trace)

    def _done(self, trace: TraceBuffer, refusal: Exception | None = None) -> None:
        self.status.done(trace, refusal)
        for entry in trace.entries():
            if not entry.done:
                entry.done = True
                entry.source.delivered_one()
        self.assembler.delivered(trace)

    def _set_aside(self, trace: TraceBuffer, reason: Exception) -> None:
        """A dead letter: the records and the reason stay on disk, the rest goes on."""
        stem = os.path.join(self.state, f"refused-{trace.trace_id.hex()}")
        records = [entry.record_to_keep() for entry in trace.entries()]
        _core.write_segment(stem + ".seg.refused", records, COMPRESSION_LEVEL)
        with open(stem + ".txt", "w", encoding="utf-8", errors="replace", opener=_private) as note:
            note.write(f"{reason}\n")
        logger.error("trace %s is refused and set aside: %s", trace.mlflow_id, reason)
        self._done(trace, reason)

    def _away(self, reason: Away) -> None:
        if self.server_state != SERVER_AWAY:
            logger.warning("delivery waits: %s", reason)
        self.status.error(reason)
        self.backoff.failed()
        self._set_server_state(SERVER_AWAY)

    def _set_server_state(self, state: int) -> None:
        self.server_state = state
        for ring in self.rings.values():
            ring.reader.set_server_state(state)

    def _settle(self) -> None:
        for ring in self.rings.values():
            ring.settle()
        for path, segment in list(self.segments.items()):
            segment.settle()
            if segment.loaded and segment.left == 0:
                del self.segments[path]

    # ---- keeping ----

    def pack(self) -> None:
        """Moves what a ring holds undelivered to disk: when the ring is filling up, and when the
        server is away."""
        packed = False
        for ring in self.rings.values():
            away = self.server_state == SERVER_AWAY
            if ring.pending and (ring.filling() or (away and ring.pack_is_due())):
                packed |= self._pack_ring(ring)
        if packed:
            self.assembler.drop_packed()

    def _pack_ring(self, ring: RingSource) -> bool:
        self._packed += 1
        name = f"packed-{time.time_ns():020d}-{self._packed:06d}.seg"
        path = os.path.join(self.state, name)
        try:
            segment = ring.pack(path)
        except OSError as error:
            logger.error("%s cannot be written: %s", path, error)
            return False
        if segment is None:
            return False
        self.segments[path] = segment
        return True

    def sweep(self) -> None:
        """Removes rings whose agents are gone and that are empty."""
        for path, ring in list(self.rings.items()):
            if ring.finished() and not any(
                isinstance(s, SpillSegment) and s.ring is ring for s in self.segments.values()
            ):
                ring.remove()
                del self.rings[path]

    # ---- living ----

    def idle(self) -> bool:
        """Nobody needs this sender: no ring, no segment; or somebody removed the spool folder."""
        if not os.path.isdir(self.state):
            return not any(ring.reader.alive() for ring in self.rings.values())
        return not self.rings and not self.segments

    def step(self) -> bool:
        """One round; whether there was anything to do."""
        if time.monotonic() - self._last_scan >= SCAN_SECONDS:
            self.scan()
            self.sweep()
        read = self.read()
        sent = self.deliver()
        if self.flush_wanted and not self.assembler.open and not self.segments:
            self._flush_is_done()
        if self.segments:
            self._settle()
        self.pack()
        self.status.tick(self)
        return bool(read or sent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def remove_if_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        pass  # an agent has just come, or the folder is gone


def _batches(traces: list[TraceBuffer]) -> list[list[TraceBuffer]]:
    """Whole traces, so many as one request should carry."""
    batches: list[list[TraceBuffer]] = []
    spans = size = 0
    for trace in traces:
        trace_size = sum(len(entry.record) for entry in trace.spans)
        if (
            not batches
            or len(batches[-1]) >= BATCH_TRACES
            or spans + len(trace.spans) > BATCH_SPANS
            or size + trace_size > BATCH_BYTES
        ):
            batches.append([])
            spans = size = 0
        batches[-1].append(trace)
        spans += len(trace.spans)
        size += trace_size
    return batches


class _Lock:
    """The right to be this spool's sender."""

    def __init__(self, path: str):
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def take(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)  # for whoever looks
        return True

    def release(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)


def run_sender(state: str, rings: str, uri: str) -> None:
    """Serves a spool until no agent has needed it for a while."""
    lock = _Lock(os.path.join(state, "sender.lock"))
    try:
        while lock.take():
            sender = Sender(state, rings, uri)
            try:
                _serve(sender)
            finally:
                sender.status.end()
            # An agent that made its ring before this release relied on us; one that makes it
            # afterwards finds the lock free and starts another sender.
            lock.release()
            sender.scan()
            if sender.idle():
                remove_if_empty(rings)
                return
    finally:
        lock.close()


def _serve(sender: Sender) -> None:
    idle_since = time.monotonic()
    pause = POLL_BUSY_SECONDS
    while True:
        if sender.step():
            pause = POLL_BUSY_SECONDS
        else:
            pause = min(pause * 1.25, POLL_IDLE_SECONDS)
        # While anything waits for a server that is away, the sender stays and tries again.
        if sender.idle():
            if time.monotonic() - idle_since >= LINGER_SECONDS:
                return
        else:
            idle_since = time.monotonic()
        time.sleep(pause)
