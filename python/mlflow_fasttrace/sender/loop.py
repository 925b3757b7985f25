"""The sender's life: find the lock, drain rings, deliver, pack what cannot be delivered, end."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable

from mlflow_fasttrace import __version__, _core, _otlp, _settings
from mlflow_fasttrace.sender.assemble import Assembler, TraceBuffer, start_of_span
from mlflow_fasttrace.sender.delivery import (
    Artifacts,
    Away,
    Backoff,
    Denied,
    Destination,
    Experiments,
    Failed,
    Inexact,
    Refused,
    TooLarge,
    Unsupported,
    open_destination,
)
from mlflow_fasttrace.sender.keep import rules_of
from mlflow_fasttrace.sender.sources import (
    COMPRESSION_LEVEL,
    PackedSegment,
    RingSource,
    SpillSegment,
    folder_bytes,
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
MEASURE_SECONDS = 1.0
FAILURES_IN_A_ROW = 3  # of a server that takes nothing, before it is left alone for a while
FAILURES_OF_A_TRACE = 6  # while others are taken, before it is set aside
ATTEMPTS_OF_AN_ATTACHMENT = 3
GIVE_UP_SECONDS = 600.0  # without an agent and with a server that is away: until the next start
TAKE_OVER_SECONDS = 10.0  # that a sender of another release has to end

SERVER_UNKNOWN, SERVER_ANSWERS, SERVER_AWAY = 0, 1, 2


class Sender:
    """Delivers what the rings and segments of one spool hold. Without folders: what the rings hold
    that it is given."""

    def __init__(self, state: str | None, rings: str | None, uri: str):
        self.state = state
        self.folders = [folder for folder in (rings, state) if folder is not None]
        self.uri = uri
        self.assembler = Assembler()
        self.rings: dict[str, RingSource] = {}
        self.segments: dict[str, PackedSegment | SpillSegment] = {}
        self.server_state = SERVER_UNKNOWN
        self.backoff = Backoff()
        self.status = Status(state, uri)
        self.flush_wanted = False
        self._destination: Destination | None = None
        self._experiments = Experiments()
        self._failures: list[tuple[TraceBuffer, Failed]] = []  # of the batch
        self._denied: Denied | None = None  # of the batch
        self._denied_in_a_row = 0
        self._accepted = 0  # requests of the batch
        # Why delivery waits, as far as the log has it: of all since all was well, and of some.
        self._told: set[object] = set()
        self._told_of_some: set[object] = set()
        self._batch_bytes = BATCH_BYTES
        self._batch_share = 1.0  # of the usual size, where the server is slow
        self.kept_out = 0  # traces that tail sampling dropped
        self._packed = 0
        self._last_scan = 0.0
        self.spool_is_full = False
        self._away_since = 0.0
        self._has_room = True
        self._measured_at = float("-inf")
        self._cannot_pack = False
        self._bad_rings: set[str] = set()

    # ---- reading ----

    def scan(self) -> None:
        """Finds rings of new agents, segments that wait, and rings whose agents are gone."""
        self._last_scan = time.monotonic()
        for path in ring_paths(*self.folders):
            if path in self.rings or path in self._bad_rings:
                continue
            try:
                ring = RingSource(path)
            except OSError as error:
                logger.error("%s cannot be read and is left alone: %s", path, error)
                self._bad_rings.add(path)
                continue
            self.adopt(ring)
        for ring in self.rings.values():
            ring.reader.attend(self.spool_is_full)
        if self.state is None:
            return
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

    def adopt(self, ring: RingSource) -> None:
        ring.reader.set_server_state(self.server_state)
        self.rings[ring.path or ""] = ring

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
        now = time.monotonic()
        ready = [trace for trace in ready if trace.not_before <= now]
        wanted = [trace for trace in ready if self._is_wanted(trace, overfull)]
        if len(wanted) < len(ready):
            self._settle()
        ready = wanted
        if not ready or self.backoff.waiting():
            return 0
        # What may be to blame for a failure comes last, so that it holds up nothing.
        ready.sort(key=lambda trace: trace.suspect)
        sent = self._accepted = 0
        try:
            for batch in _batches(ready, self._batch_share, self._batch_bytes):
                self._deliver_batch(batch)
                sent += len(batch)
        except Away as reason:
            self._away(reason)
            self._settle()
        except Exception as error:
            kind = type(error)
            if kind not in self._told:
                logger.exception("delivery failed")
            self._away(Away(f"delivery failed: {kind.__name__}: {error}", kind=kind))
            self._settle()
        else:
            self._settle()
            self._flush_is_done()
        return sent

    def _is_wanted(self, trace: TraceBuffer, overfull: bool) -> bool:
        """Tail sampling: drops a trace that no rule keeps, holds one that is not finished."""
        if trace.kept is None:
            rules = rules_of(trace)
            if rules is None:
                return True
            if not (trace.complete() or overfull or self._is_abandoned(trace)):
                for entry in trace.entries():
                    entry.held = True
                return False
            # Of what will never be complete the rules may not have seen the half.
            trace.kept = not trace.complete() or rules.keep(trace)
        if not trace.kept:
            self.kept_out += 1
            self._done(trace)
        return trace.kept

    def _is_abandoned(self, trace: TraceBuffer) -> bool:
        """Whether its agents are gone: nothing of it will come any more."""
        pid = trace.info.destination.get("pid")
        return not any(
            ring.reader.pid == pid and ring.reader.alive() for ring in self.rings.values()
        )

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
        self._failures = []
        self._denied = None
        self._accepted = 0
        for named, group in _by_experiment(traces):
            self._denied_in_a_row = 0
            try:
                experiment = self._experiments.id_of(named, self._destination)
                accepted = [trace for trace in group if self._send_info(trace, experiment)]
                self._send_spans(experiment, [trace for trace in accepted if self._upload(trace)])
            except Denied as reason:
                self._denied = reason
                now = time.monotonic()
                for trace in group:
                    if trace.entries() and trace.not_before <= now:
                        self._wait_for_permission(trace)
        self._judge_failures()
        if self._denied is not None:
            if not self._accepted:
                raise self._denied
            self._tell(self._denied)
        self.backoff.succeeded()
        self._set_server_state(SERVER_ANSWERS)

    def _deny(self, trace: TraceBuffer, reason: Denied) -> None:
        """It waits; with the third in a row, all of its experiment do."""
        trace.suspect = True
        self._wait_for_permission(trace)
        self._denied = reason
        self._denied_in_a_row += 1
        if self._denied_in_a_row >= FAILURES_IN_A_ROW:
            raise reason

    def _wait_for_permission(self, trace: TraceBuffer) -> None:
        """Others of its experiment may be let in before."""
        trace.denials += 1
        trace.not_before = time.monotonic() + min(2.0**trace.denials, 60.0)
        for entry in trace.entries():
            entry.held = True  # nobody has to wait for it

    def _failed(self, trace: TraceBuffer, reason: Failed) -> None:
        """The server could not take it, and it may be the trace's fault or the server's."""
        trace.suspect = True
        self._failures.append((trace, reason))
        if not self._accepted and len(self._failures) >= FAILURES_IN_A_ROW:
            raise Away(str(reason), kind=Failed)

    def _judge_failures(self) -> None:
        """Where the server took others, those that it did not take wait by themselves, and are set
        aside after some tries. Where it took none it is the server's fault."""
        if not self._failures:
            return
        if not self._accepted:
            raise Away(str(self._failures[0][1]), kind=Failed)
        for trace, reason in self._failures:
            trace.failures += 1
            trace.not_before = time.monotonic() + min(2.0**trace.failures, 60.0)
            for entry in trace.entries():
                entry.held = True  # nobody has to wait for it
            if trace.failures >= FAILURES_OF_A_TRACE:
                self._send_otherwise(trace, reason)

    def _send_info(self, trace: TraceBuffer, experiment_id: str) -> bool:
        from mlflow_fasttrace.sender.finish import trace_info

        try:
            trace.summarize()
            entry = trace.info_entry
            if entry is None or entry.info_sent or trace.remote:
                return True
            info = trace_info(trace, experiment_id)
        except Exception as error:
            # Whatever is wrong with one trace, the others go on.
            logger.exception("trace %s cannot be finished", trace.mlflow_id)
            self._set_aside(trace, error)
            return False
        try:
            self._destination.send_info(info)
        except Failed as reason:
            self._experiments.forget(trace.info.destination["experiment"])
            self._failed(trace, reason)
            return False
        except Denied as reason:
            self._deny(trace, reason)
            return False
        except (Refused, TooLarge) as reason:
            self._set_aside(trace, reason)
            return False
        self._accepted += 1
        self._denied_in_a_row = 0
        for info in trace.infos:
            info.info_sent = True
        return True

    def _upload(self, trace: TraceBuffer) -> bool:
        """Attachments: the info is there, so the server has said where they go. One that cannot be
        uploaded is left out, as in MLflow; the trace is worth more."""
        if not trace.attachments:
            return True
        contents = [_core.decode(entry.record) for entry in trace.attachments]
        attachments = {fields[2]: fields[3] for fields in contents}
        try:
            self._destination.upload(trace.mlflow_id, Artifacts(attachments=attachments))
        except (Refused, Failed, Denied) as reason:
            if not isinstance(reason, Refused) and trace.denials < ATTEMPTS_OF_AN_ATTACHMENT:
                self._wait_for_permission(trace)
                return False
            logger.error("attachments of %s are left out: %s", trace.mlflow_id, reason)
        return True

    def _write_spans(self, trace: TraceBuffer, *, added: bool = False) -> None:
        """As MLflow's client does where the server does not take a trace's spans: as a file, which
        is read as long as none of them is in the database."""
        records = sorted((entry.record for entry in trace.spans), key=start_of_span)
        try:
            spans = list(map(_core.span_json, records))
        except ValueError as error:
            raise Refused(f"a span record cannot be read: {error}") from error
        self._destination.upload(trace.mlflow_id, Artifacts(spans=spans, added=added))

    def _upload_spans(self, trace: TraceBuffer) -> bool:
        """The same, for a trace that the server would take in no other way. Whether it is there."""
        if len(trace.spans) < len(trace.seen) or not trace.info_was_sent() or trace.remote:
            return False
        try:
            self._write_spans(trace)
        except (Refused, Failed, Denied) as reason:
            logger.error("spans of %s: %s", trace.mlflow_id, reason)
            return False
        return True

    def _send_otherwise(self, trace: TraceBuffer, reason: Exception) -> None:
        """What the server does not take as spans: a file, or a dead letter."""
        if self._upload_spans(trace):
            self._done(trace)
        else:
            self._set_aside(trace, reason)

    def _send_spans(
        self, experiment_id: str, traces: list[TraceBuffer], *, exact: bool = True
    ) -> None:
        """One request; where it is refused, halves, down to the trace that is to blame. Traces with
        values that OTLP cannot carry go as files."""
        entries = [(trace, entry) for trace in traces for entry in trace.spans]
        try:
            if entries and not self._destination.takes_spans:
                raise Unsupported
            if entries:
                records = [entry.record for _, entry in entries]
                self._destination.send_spans(experiment_id, records, exact=exact)
                self._accepted += 1
                self._denied_in_a_row = 0
                self._batch_share = min(self._batch_share * 2, 1.0)
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
        except Unsupported:
            for trace in traces:
                self._send_as_file(trace)
        except Denied as reason:
            if len(traces) == 1:
                self._deny(traces[0], reason)
                return
            half = len(traces) // 2
            self._send_spans(experiment_id, traces[:half], exact=exact)
            self._send_spans(experiment_id, traces[half:], exact=exact)
        except Away as reason:
            if reason.unanswered:
                self._batch_share = max(self._batch_share / 2, 1 / 128)
            raise
        except (Refused, Failed, TooLarge) as reason:
            if isinstance(reason, TooLarge) and len(traces) > 1:
                size = sum(len(entry.record) for _, entry in entries)
                self._batch_bytes = max(min(self._batch_bytes, size // 2), 16 << 10)
            if len(traces) > 1:
                half = len(traces) // 2
                self._send_spans(experiment_id, traces[:half], exact=exact)
                self._send_spans(experiment_id, traces[half:], exact=exact)
            elif isinstance(reason, Failed):
                self._failed(traces[0], reason)
            elif isinstance(reason, TooLarge) and len(entries) > 1:
                self._send_in_parts(experiment_id, traces[0])
            else:
                self._send_otherwise(traces[0], reason)
        else:
            for trace in traces:
                self._done(trace)

    def _send_in_parts(self, experiment_id: str, trace: TraceBuffer) -> None:
        """One trace that is more than the server takes at a time: parts of it, one after another.
        The largest span comes first: where even that alone is too large, the trace can go as a file
        as long as no other span is there. Otherwise it is a dead letter, and its other spans are
        there."""
        spans = trace.spans.copy()
        largest = max(range(len(spans)), key=lambda i: len(spans[i].record))
        parts = [[spans.pop(largest)], spans]
        refused: Exception | None = None
        taken = 0
        while parts:
            spans = parts.pop(0)
            try:
                records = [entry.record for entry in spans]
                self._destination.send_spans(experiment_id, records, exact=False)
                taken += 1
                self._accepted += 1
            except (Refused, TooLarge) as reason:
                half = len(spans) // 2
                if half:
                    parts[:0] = [spans[:half], spans[half:]]
                else:
                    refused = reason
                    if not taken and self._upload_spans(trace):
                        self._done(trace)
                        return
            except (Failed, Unsupported) as reason:
                self._failed(trace, Failed(str(reason)))
                return
        if refused is None:
            self._done(trace)
        else:
            self._set_aside(trace, refused)

    def _send_as_file(self, trace: TraceBuffer) -> None:
        """A file is written whole: it waits for the trace. What comes later still (of a forked
        child, say) is added."""
        if not trace.complete() and not self._is_abandoned(trace):
            for entry in trace.entries():
                entry.held = True
            return
        try:
            if trace.spans and trace.remote:
                raise Refused(
                    "the server takes no spans by OTLP, and the trace is another process's"
                )
            if trace.spans:
                self._write_spans(trace, added=True)
        except Failed as reason:
            self._failed(trace, reason)
        except Denied as reason:
            self._tell(reason)
            self._wait_for_permission(trace)
        except Refused as reason:
            self._set_aside(trace, reason)
        else:
            self._accepted += 1
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
        if self.state is None:
            logger.error("trace %s is refused and lost: %s", trace.mlflow_id, reason)
            self._done(trace, reason)
            return
        records = [entry.record_to_keep() for entry in trace.entries()]
        self._write_dead_letter(trace.trace_id.hex(), records, reason)
        logger.error("trace %s is refused and set aside: %s", trace.mlflow_id, reason)
        self._done(trace, reason)

    def _write_dead_letter(self, name: str, records: list[bytes], reason: Exception) -> None:
        stem = os.path.join(self.state, f"refused-{name}")
        _core.write_segment(stem + ".seg.refused", records, COMPRESSION_LEVEL)
        with open(stem + ".txt", "w", encoding="utf-8", errors="replace", opener=_private) as note:
            note.write(f"{reason}\n")

    def _away(self, reason: Away) -> None:
        self._tell(reason)
        self.status.error(reason)
        if self._accepted:
            self.backoff.succeeded()  # it comes and goes: what it takes in between is not little
        self.backoff.failed(reason.seconds)
        self._set_server_state(SERVER_AWAY)

    def _tell(self, reason: Away) -> None:
        told = self._told_of_some if isinstance(reason, Denied) else self._told
        if reason.kind not in told:
            logger.warning("delivery waits: %s", reason)
            told.add(reason.kind)

    def _set_server_state(self, state: int) -> None:
        if state == SERVER_AWAY and self.server_state != SERVER_AWAY:
            self._away_since = time.monotonic()
        if state == SERVER_ANSWERS:
            self._told.clear()
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
        if self.state is None or not self._may_pack():
            return
        packed = False
        for ring in self.rings.values():
            away = self.server_state == SERVER_AWAY
            if ring.pending and (ring.filling() or (away and ring.pack_is_due())):
                packed |= self._pack_ring(ring)
        if packed:
            self.assembler.drop_packed()

    def _may_pack(self) -> bool:
        """Measures the spool, once a second. An eighth of its bound is for the traces that have
        begun; when only that is left, agents begin no new ones."""
        now = time.monotonic()
        if now - self._measured_at >= MEASURE_SECONDS:
            self._measured_at = now
            held, bound = folder_bytes(self.state), _settings.spool_max_bytes(self.state)
            self._has_room = held < bound
            full = held >= bound - bound // 8
            if full and not self.spool_is_full:
                logger.error(
                    "what waits for delivery takes %d bytes: new traces are refused until it is "
                    "less (MLFLOW_FASTTRACE_SPOOL_MAX_BYTES is %d)",
                    held,
                    bound,
                )
            # Not back and forth with every segment that goes.
            self.spool_is_full = full or (self.spool_is_full and held >= bound // 4 * 3)
        return self._has_room

    def _pack_ring(self, ring: RingSource) -> bool:
        self._packed += 1
        name = f"packed-{time.time_ns():020d}-{self._packed:06d}.seg"
        path = os.path.join(self.state, name)
        try:
            segment = ring.pack(path)
        except OSError as error:
            if not self._cannot_pack:
                logger.error("%s cannot be written: %s", path, error)
            self._cannot_pack = True
            return False
        self._cannot_pack = False
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
        """Nobody needs this sender: no ring, no segment; or somebody removed the spool folder. While
        anything waits for a server that is away the sender stays and tries again, for a while."""
        if not self.rings and not self.segments:
            return True
        if any(ring.reader.alive() for ring in self.rings.values()):
            return False
        if self.state is None or not os.path.isdir(self.state):
            return True
        return (
            self.server_state == SERVER_AWAY
            and time.monotonic() - self._away_since >= GIVE_UP_SECONDS
        )

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


def _by_experiment(
    traces: list[TraceBuffer],
) -> list[tuple[dict[str, str], list[TraceBuffer]]]:
    groups: dict[tuple, tuple[dict[str, str], list[TraceBuffer]]] = {}
    for trace in traces:
        named = trace.info.destination["experiment"]
        groups.setdefault(tuple(named.items()), (named, []))[1].append(trace)
    return list(groups.values())


def _batches(
    traces: list[TraceBuffer], share: float = 1.0, max_bytes: int = BATCH_BYTES
) -> list[list[TraceBuffer]]:
    """Whole traces, so many as one request should carry."""
    max_traces, max_spans = BATCH_TRACES * share, BATCH_SPANS * share
    max_bytes = min(int(BATCH_BYTES * share), max_bytes)
    batches: list[list[TraceBuffer]] = []
    spans = size = 0
    for trace in traces:
        trace_size = sum(len(entry.record) for entry in trace.spans)
        if (
            not batches
            or len(batches[-1]) >= max_traces
            or spans + len(trace.spans) > max_spans
            or size + trace_size > max_bytes
        ):
            batches.append([])
            spans = size = 0
        batches[-1].append(trace)
        spans += len(trace.spans)
        size += trace_size
    return batches


class _Lock:
    """The right to be this spool's sender. The file says who has it: process id and version."""

    def __init__(self, path: str):
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def take(self) -> bool:
        """Waits a little where a sender of another release, which was asked to end, still has it."""
        _pid, version = _settings.holder_of(self._fd)
        wait = TAKE_OVER_SECONDS if version not in ("", __version__) else 0.0
        deadline = time.monotonic() + wait
        while not self._try():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()} {__version__}\n".encode(), 0)
        return True

    def _try(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)


def _sender_for(state: str | None, rings: str | None, uri: str) -> Sender:
    if _otlp.is_collector(uri):
        from mlflow_fasttrace.sender.collector import CollectorSender

        return CollectorSender(state, rings, uri)
    return Sender(state, rings, uri)


def run_sender(
    state: str, rings: str, uri: str, should_stop: Callable[[], bool] = lambda: False
) -> None:
    """Serves a spool until no agent has needed it for a while.

    Args:
        state: The spool's folder of segments, lock and log.
        rings: The folder of its rings.
        uri: The tracking URI, with its credentials.
        should_stop: Asked between rounds; what is not delivered stays where it is.
    """
    lock = _Lock(os.path.join(state, "sender.lock"))
    try:
        while lock.take():
            sender = _sender_for(state, rings, uri)
            try:
                _serve(sender, should_stop)
            finally:
                sender.status.end()
            # An agent that made its ring before this release relied on us; one that makes it
            # afterwards finds the lock free and starts another sender.
            lock.release()
            if should_stop():
                return
            sender.scan()
            if sender.idle():
                remove_if_empty(rings)
                return
    finally:
        lock.close()


def run_sender_in_memory(fd: int, uri: str) -> None:
    """Serves one ring that is memory of this process, as long as it is there."""
    sender = _sender_for(None, None, uri)
    sender.adopt(RingSource(None, fd))
    _serve(sender, lambda: False)


def _serve(sender: Sender, should_stop: Callable[[], bool]) -> None:
    idle_since = time.monotonic()
    pause = POLL_BUSY_SECONDS
    while not should_stop():
        if sender.step():
            pause = POLL_BUSY_SECONDS
        else:
            pause = min(pause * 1.25, POLL_IDLE_SECONDS)
        if sender.idle():
            if time.monotonic() - idle_since >= LINGER_SECONDS:
                return
        else:
            idle_since = time.monotonic()
        time.sleep(pause)
