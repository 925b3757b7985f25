"""A sender's rounds: drain rings, deliver, pack what cannot be delivered. Its life is in life.py."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.sender.assemble import Assembler, TraceBuffer
from mlflow_fasttrace._internal.sender.delivery import (
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
from mlflow_fasttrace._internal.sender.sources import (
    Entry,
    PackedSegment,
    RingSource,
    SpillSegment,
    open_trace_entry,
)
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.sender.tail_sampling import rules_of
from mlflow_fasttrace._internal.spool.files import (
    COMPRESSION_LEVEL,
    DEAD_LETTER_SUFFIX,
    folder_bytes,
    new_segment_path,
    open_trace_path,
    own_file,
    remove,
    remove_moved,
    remove_open_traces,
    ring_paths,
    segment_paths,
    spill_stem,
    written_at,
)
from mlflow_fasttrace._internal.spool.folder import spool_max_bytes
from mlflow_fasttrace._internal.spool.records import start_of_span

if TYPE_CHECKING:
    from mlflow_fasttrace._internal.sender.finish import InfoDict

logger = logging.getLogger("mlflow_fasttrace.sender")

POLL_BUSY_SECONDS = 0.003
POLL_IDLE_SECONDS = 0.05
BURST_BYTES_PER_SECOND = 8 << 20  # of one agent
BURST_SECONDS = 1.0  # that delivery waits for its end
BURST_POLL_SECONDS = 0.02
SCAN_SECONDS = 0.05  # for rings of new agents
BATCH_SPANS = 2000
BATCH_BYTES = 4 << 20
BATCH_TRACES = 100
MEMORY_BYTES = 32 << 20  # of records read from segments
MEASURE_SECONDS = 1.0
QUICK_SECONDS = 0.002  # of a request
FAILURES_IN_A_ROW = 3  # of a server that takes nothing, before it is left alone for a while
FAILURES_OF_A_TRACE = 6  # while others are taken, before it is set aside
ATTEMPTS_OF_AN_ATTACHMENT = 3
GIVE_UP_SECONDS = 600.0  # without an agent and with a server that is away: until the next start
RETRY_FILE_SECONDS = 60.0  # of a file that could not be read, or not be written
PROOF_SECONDS = 600.0  # that what was taken last may show whether the server takes anything
PROOF_BYTES = 64 << 10

SERVER_UNKNOWN, SERVER_ANSWERS, SERVER_AWAY = 0, 1, 2
_SERVER_DENIES = 3  # what agents are told instead of away where other credentials may help


class Sender:
    """Delivers what the rings and segments of one spool hold. Without folders: what the rings hold
    that it is given."""

    #: Whether spans are of no use without the record of their trace.
    keeps_records = True

    def __init__(
        self, state: str | None, rings: str | None, uri: str, executor: Executor | None = None
    ):
        self.state = state
        self._executor = executor
        self._infos_at_once = 1
        self._info_seconds = 0.0  # that the last info took
        self._rings_folder = rings
        if state is not None and rings is not None:
            remove_moved(state, rings)
        self.folders = [folder for folder in (rings, state) if folder is not None]
        self.uri = uri
        self.assembler = Assembler()
        self.rings: dict[str, RingSource] = {}
        self.segments: dict[str, PackedSegment | SpillSegment] = {}
        self.server_state = SERVER_UNKNOWN
        self._told_agents = SERVER_UNKNOWN
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
        self._last_scan = 0.0
        self._looked_at = 0.0  # for bursts
        self._burst_since: float | None = None
        self.spool_is_full = False
        self._away_since = 0.0
        self._has_room = True
        self._measured_at = float("-inf")
        self._cannot_pack = False
        self._cannot_keep = False  # dead letters, or records of open traces
        self._left_alone: dict[str, float] = {}  # files that cannot be read; when to try again
        self._unusable_not_before = 0.0
        # What the server took last: its experiment, records, and when.
        self._proof: tuple[str, list[bytes], float] | None = None
        self._only_suspects = False  # failed; for others the server may be there

    # ---- reading ----

    def scan(self) -> None:
        """Finds rings of new agents, segments that wait, and rings whose agents are gone."""
        self._last_scan = time.monotonic()
        found = []
        for path in ring_paths(*self.folders):
            if path in self.rings or self._is_left_alone(path):
                continue
            try:
                ring = RingSource(path)
            except OSError as error:
                self._leave_alone(path, error)
                continue
            self.adopt(ring)
            found.append(ring)
        for ring in self.rings.values():
            ring.reader.heartbeat(self.spool_is_full)
        if self.state is None:
            return
        by_stem = {ring.stem: ring for ring in self.rings.values()}
        known = len(self.segments)
        packed, spilled = segment_paths(self.state, self._rings_folder)
        for path in packed:
            if path not in self.segments and not self._is_left_alone(path):
                self.segments[path] = PackedSegment(path)
        for ring in found:
            ring.await_earlier(packed)
        for path in spilled:
            if path not in self.segments and not self._is_left_alone(path):
                try:
                    self.segments[path] = SpillSegment(path, by_stem.get(spill_stem(path)))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._leave_alone(path, error)
        if len(self.segments) > known:
            # In the order of their records, nearly: fewer traces are delivered in parts.
            in_order = sorted(self.segments.items(), key=lambda item: written_at(item[0]))
            self.segments = dict(in_order)

    def _is_left_alone(self, path: str) -> bool:
        return time.monotonic() < self._left_alone.get(path, 0.0)

    def _leave_alone(
        self, path: str, error: Exception, seconds: float = RETRY_FILE_SECONDS
    ) -> None:
        """A file that is no ring or segment of this user, or that the disk does not give back."""
        if path not in self._left_alone:
            logger.error("%s cannot be read and is left alone: %s", path, error)
            self.status.error(f"{path} cannot be read and is left alone: {error}")
        self._left_alone[path] = time.monotonic() + seconds

    def adopt(self, ring: RingSource) -> None:
        ring.reader.set_server_state(self._told_agents)
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
        for path, segment in list(self.segments.items()):
            if self.assembler.bytes >= MEMORY_BYTES:
                break
            if not segment.loaded:
                try:
                    entries = segment.read()
                except (OSError, MemoryError) as error:
                    del self.segments[path]
                    if not isinstance(error, FileNotFoundError):
                        # What has been read of it is not read twice.
                        begun = isinstance(segment, SpillSegment) and segment.reader.offset
                        self._leave_alone(
                            path, error, float("inf") if begun else RETRY_FILE_SECONDS
                        )
                    continue
                self.assembler.add(entries)
                count += len(entries)
        return count

    # ---- delivering ----

    def deliver(self) -> int:
        """Sends what is ready. Returns the number of traces delivered."""
        overfull = self.assembler.bytes >= MEMORY_BYTES
        self._set_unusable_aside()
        self._recall(self.assembler.without_record())
        for trace in self.assembler.orphans():
            self._set_aside(trace, Refused("no record says where this trace goes"))
        ready = self.assembler.ready(everything=self.flush_wanted or overfull)
        now = time.monotonic()
        ready = [trace for trace in ready if trace.not_before <= now]
        self._recall([trace for trace in ready if not trace.complete()])
        wanted = [trace for trace in ready if self._is_wanted(trace, overfull)]
        if len(wanted) < len(ready):
            self._settle()
        ready = wanted
        if self.backoff.waiting():
            # The server may have failed for the fault of what waits.
            ready = [trace for trace in ready if self._only_suspects and not trace.suspect]
        if not ready:
            return 0
        self._only_suspects = False
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
                accepted = self._send_infos(group, experiment)
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
        trace.tries += 1
        self._failures.append((trace, reason))
        if not self._accepted and len(self._failures) >= FAILURES_IN_A_ROW:
            self._look_at_server()

    def _look_at_server(self) -> None:
        """It has taken nothing of a batch. Where all that failed did so before, what it took earlier
        is sent to it once more, which changes nothing there: what it takes now is no fault of the
        server's.

        Raises:
            Away: it takes nothing, or nobody knows.
        """
        fresh = any(trace.tries == 1 for trace, _reason in self._failures)
        if fresh or not self._takes_what_it_took():
            self._only_suspects = not fresh
            raise Away(str(self._failures[-1][1]), kind=Failed)
        self._accepted += 1

    def _takes_what_it_took(self) -> bool:
        if self._proof is None or time.monotonic() - self._proof[2] > PROOF_SECONDS:
            return False
        experiment_id, records, _when = self._proof
        try:
            self._destination.send_spans(experiment_id, records, exact=False)
        except (Refused, Failed, Denied, TooLarge, Unsupported):
            return False
        return True

    def _judge_failures(self) -> None:
        """Where the server took others, those that it did not take wait by themselves, and are set
        aside after some tries. Where it took none it is the server's fault."""
        if not self._failures:
            return
        if not self._accepted:
            self._look_at_server()
        for trace, reason in self._failures:
            trace.failures += 1
            trace.not_before = time.monotonic() + min(2.0**trace.failures, 60.0)
            for entry in trace.entries():
                entry.held = True  # nobody has to wait for it
            if trace.failures >= FAILURES_OF_A_TRACE:
                self._send_otherwise(trace, reason)

    def _send_infos(self, traces: list[TraceBuffer], experiment_id: str) -> list[TraceBuffer]:
        """The traces whose infos the server has now. Whatever ends this early, what it took of those
        that were on their way is known afterwards."""
        accepted: list[TraceBuffer] = []
        under_way: deque[tuple[TraceBuffer, Future[None]]] = deque()

        def arrived() -> None:
            trace, answer = under_way.popleft()
            if self._info_is_taken(trace, answer):
                accepted.append(trace)

        try:
            for trace, info in self._infos(traces, experiment_id):
                if info is None:
                    accepted.append(trace)
                    continue
                self.let_burst_pass()
                under_way.append((trace, self._start_info(info)))
                if len(under_way) >= self._infos_at_once:
                    arrived()
            while under_way:
                arrived()
            if accepted:
                self._quicken()
        finally:
            for trace, answer in under_way:
                if answer.exception() is None:
                    self._info_is_taken(trace, answer)
        return accepted

    def _quicken(self) -> None:
        """More requests at once, slowly, until one fails: many senders may have one server, which has
        few connections to its database. One that is quick is asked by one thread: more would cost
        more than they gain."""
        most = self._destination.infos_at_once if self._executor is not None else 1
        quick = self._info_seconds < QUICK_SECONDS
        self._infos_at_once = 1 if quick else min(self._infos_at_once + 1, most)

    def _infos(
        self, traces: list[TraceBuffer], experiment_id: str
    ) -> Iterator[tuple[TraceBuffer, InfoDict | None]]:
        """What is to be said of each trace; None where the server knows it."""
        from mlflow_fasttrace._internal.sender.finish import trace_info

        for trace in traces:
            try:
                trace.summarize()
                known = trace.info_was_sent() or trace.remote
                info = None if known else trace_info(trace, experiment_id)
            except Exception as error:
                # Whatever is wrong with one trace, the others go on.
                logger.exception("trace %s cannot be finished", trace.mlflow_id)
                self._set_aside(trace, error)
                continue
            yield trace, info

    def _start_info(self, info: InfoDict) -> Future[None]:
        if self._infos_at_once > 1:
            return self._executor.submit(self._send_info, info)
        done: Future[None] = Future()
        try:
            done.set_result(self._send_info(info))
        except Exception as error:
            done.set_exception(error)
        return done

    def _send_info(self, info: InfoDict) -> None:
        began = time.monotonic()
        self._destination.send_info(info)
        self._info_seconds = time.monotonic() - began

    def _info_is_taken(self, trace: TraceBuffer, answer: Future[None]) -> bool:
        try:
            answer.result()
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
                self._keep_proof(experiment_id, traces)
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

    def _keep_proof(self, experiment_id: str, traces: list[TraceBuffer]) -> None:
        """The smallest of what the server has just taken whole."""
        whole = [trace for trace in traces if trace.complete() and not trace.suspect]
        whole = [trace for trace in whole if len(trace.spans) == len(trace.seen)]
        if not whole:
            return
        smallest = min(whole, key=lambda trace: len(trace.spans))
        records = [entry.record for entry in smallest.spans]
        if records and sum(map(len, records)) <= PROOF_BYTES:
            self._proof = experiment_id, records, time.monotonic()

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
        self._keep_record(trace)
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
        if not trace.infos and (record := trace.record_to_keep()) is not None:
            records.append(record)
        if not self._write_dead_letter(trace.trace_id.hex(), records, reason):
            self._keep_for_later(trace)
            return
        logger.error("trace %s is refused and set aside: %s", trace.mlflow_id, reason)
        self._done(trace, reason)

    def _keep_for_later(self, trace: TraceBuffer) -> None:
        """It could not be set aside: it stays where it is, and is tried again."""
        trace.suspect = True
        trace.failures += 1
        trace.not_before = time.monotonic() + RETRY_FILE_SECONDS
        for entry in trace.entries():
            entry.held = True  # nobody has to wait for it

    def _write_dead_letter(self, name: str, records: list[bytes], reason: object) -> bool:
        """Beside the earlier ones of that name. Whether it is on disk."""
        stem = base = os.path.join(self.state, f"refused-{name}")
        number = 1
        while any(os.path.lexists(stem + suffix) for suffix in (DEAD_LETTER_SUFFIX, ".txt")):
            number += 1
            stem = f"{base}.{number}"
        try:
            _core.write_segment(stem + DEAD_LETTER_SUFFIX, records, COMPRESSION_LEVEL)
        except OSError as error:
            self._cannot_write(error)
            return False
        self._cannot_keep = False
        try:
            note = open(stem + ".txt", "w", encoding="utf-8", errors="replace", opener=own_file)
            with note:
                note.write(f"{reason}\n")
        except OSError as error:
            logger.error("%s.txt cannot be written: %s", stem, error)
        return True

    def _cannot_write(self, error: OSError) -> None:
        if not self._cannot_keep:
            logger.error("%s cannot be written: %s", self.state, error)
            self.status.error(f"the spool folder cannot be written: {error}")
        self._cannot_keep = True

    def _set_unusable_aside(self) -> None:
        """Records that are whole and that no agent of this release writes."""
        unusable, now = self.assembler.unusable, time.monotonic()
        if not unusable or now < self._unusable_not_before:
            return
        by_trace: dict[bytes, list[tuple[Entry, str]]] = {}
        for entry, reason in unusable:
            by_trace.setdefault(entry.trace_id, []).append((entry, reason))
        unusable.clear()
        for trace_id, found in by_trace.items():
            records = [entry.record for entry, _reason in found]
            reason = f"a record cannot be used: {found[0][1]}"
            if self.state is not None:
                if not self._write_dead_letter(trace_id.hex(), records, reason):
                    unusable += found
                    self._unusable_not_before = now + RETRY_FILE_SECONDS
                    continue
            logger.error("tr-%s: %s; it is set aside", trace_id.hex(), reason)
            self.status.refused_records(reason)
            for entry, _reason in found:
                entry.done = True
                entry.source.delivered_one()
        self._settle()

    # ---- traces that go on when they are delivered as far as they are ----

    def _keep_record(self, trace: TraceBuffer) -> None:
        """Its agent does not write again where the trace goes: that must outlive this sender, too."""
        if self.state is None or not self.keeps_records:
            return
        path = open_trace_path(self.state, trace.trace_id)
        if trace.complete():
            if trace.record_on_disk is not None:
                trace.record_on_disk = None
                remove(path)
            return
        record = trace.record_to_keep()
        if record is None or record == trace.record_on_disk:
            return
        try:
            _core.write_segment(path, [record], COMPRESSION_LEVEL)
        except OSError as error:
            self._cannot_write(error)
        else:
            self._cannot_keep = False
            trace.record_on_disk = record

    def _recall(self, traces: list[TraceBuffer]) -> None:
        """What is known of a trace that this sender, or an earlier one, has delivered in part: spans
        may come without its record then, or with an older one, which must not go after the last."""
        if self.state is None or not self.keeps_records:
            return
        for trace in traces:
            if trace.recalled:
                continue
            trace.recalled = True
            entry = open_trace_entry(self.state, trace.trace_id)
            if entry is not None:
                trace.record_on_disk = entry.record
                self.assembler.add([entry])

    def forget_open_traces(self) -> None:
        """When nothing is left that a record would be needed for."""
        left = self.rings or self.segments or self._left_alone or self.assembler.unusable
        if self.state is not None and not left:
            remove_open_traces(self.state)

    def _away(self, reason: Away) -> None:
        self._infos_at_once = 1
        self._tell(reason)
        self.status.error(reason)
        if self._accepted:
            self.backoff.succeeded()  # it comes and goes: what it takes in between is not little
        self.backoff.failed(reason.seconds)
        self._set_server_state(SERVER_AWAY, denies=reason.unknown_to_it)

    def _tell(self, reason: Away) -> None:
        told = self._told_of_some if isinstance(reason, Denied) else self._told
        if reason.kind not in told:
            logger.warning("delivery waits: %s", reason)
            told.add(reason.kind)

    def _set_server_state(self, state: int, *, denies: bool = False) -> None:
        if state == SERVER_AWAY and self.server_state != SERVER_AWAY:
            self._away_since = time.monotonic()
        if state == SERVER_ANSWERS:
            self._told.clear()
        self.server_state = state
        self._told_agents = _SERVER_DENIES if denies else state
        for ring in self.rings.values():
            ring.reader.set_server_state(self._told_agents)

    def _settle(self) -> None:
        for ring in self.rings.values():
            ring.settle()
        for path, segment in list(self.segments.items()):
            segment.settle()
            if segment.loaded and segment.left == 0:
                del self.segments[path]
        for ring in self.rings.values():
            ring.settle_earlier(self.segments)

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
        if self.server_state == SERVER_AWAY:
            self._move_to_disk()

    def _move_to_disk(self) -> None:
        """What agents spilled to memory, when they are done with it."""
        if self._rings_folder in (None, self.state):
            return
        for path, segment in self.segments.items():
            in_memory = os.path.dirname(path) == self._rings_folder
            if not in_memory or not isinstance(segment, SpillSegment) or not segment.ended():
                continue
            try:
                segment.move(self.state)
            except OSError as error:
                self._cannot_be_packed(path, error)
                break
            self._cannot_pack = False
        self.segments = {segment.path: segment for segment in self.segments.values()}

    def _may_pack(self) -> bool:
        """Measures the spool, once a second. An eighth of its bound is for the traces that have
        begun; when only that is left, agents begin no new ones."""
        now = time.monotonic()
        if now - self._measured_at >= MEASURE_SECONDS:
            self._measured_at = now
            held, bound = folder_bytes(self.state), spool_max_bytes(self.state)
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
        path = new_segment_path(self.state)
        try:
            segment = ring.pack(path)
        except OSError as error:
            self._cannot_be_packed(path, error)
            return False
        self._cannot_pack = False
        if segment is None:
            return False
        self.segments[path] = segment
        return True

    def _cannot_be_packed(self, path: str, error: OSError) -> None:
        if not self._cannot_pack:
            logger.error("%s cannot be written: %s", path, error)
        self._cannot_pack = True

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

    def let_burst_pass(self) -> None:
        """Leaves the processors alone while an agent records faster than any server takes it: what
        delivery, and the server, would do meanwhile that agent would have to wait for. Not for long,
        and not where somebody waits for delivery."""
        while self._agent_bursts():
            time.sleep(BURST_POLL_SECONDS)

    def _agent_bursts(self) -> bool:
        now = time.monotonic()
        elapsed = now - self._looked_at
        if elapsed < POLL_BUSY_SECONDS:
            return False
        self._looked_at = now
        grown = max((ring.grown() for ring in self.rings.values()), default=0)
        if grown < BURST_BYTES_PER_SECOND * elapsed:
            self._burst_since = None
            return False
        if self._burst_since is None:
            self._burst_since = now
        waited_for = any(ring.flush_wanted for ring in self.rings.values())
        return not waited_for and now - self._burst_since < BURST_SECONDS

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
