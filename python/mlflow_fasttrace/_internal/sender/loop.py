"""A sender's rounds: take in, deliver, pack what cannot be delivered. Its life is in life.py."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from mlflow_fasttrace._internal.sender.acknowledge import Acknowledgements
from mlflow_fasttrace._internal.sender.assemble import Assembler, Disposition, TraceBuffer
from mlflow_fasttrace._internal.sender.availability import Availability
from mlflow_fasttrace._internal.sender.batches import BatchSize
from mlflow_fasttrace._internal.sender.bursts import Bursts
from mlflow_fasttrace._internal.sender.changes import Changes
from mlflow_fasttrace._internal.sender.dead_letters import DeadLetters
from mlflow_fasttrace._internal.sender.exceptions import Rejected, Unavailable
from mlflow_fasttrace._internal.sender.intake import MEMORY_BYTES, SCAN_SECONDS, Intake
from mlflow_fasttrace._internal.sender.open_traces import OpenTraces
from mlflow_fasttrace._internal.sender.other_places import OtherPlaces
from mlflow_fasttrace._internal.sender.packing import Packing
from mlflow_fasttrace._internal.sender.status import Figures, Status
from mlflow_fasttrace._internal.sender.tail_sampling import Decision, decide
from mlflow_fasttrace._internal.sender.verdicts import Verdicts, wait_for_memory
from mlflow_fasttrace._internal.spool.ring_states import ServerState

logger = logging.getLogger("mlflow_fasttrace.sender")

#: After so much of a round programs hear how far it is. A shorter one is whole before they go on and end, where a
#: sender may end with them (a container).
_SAY_AFTER_SECONDS = 10.0


class Delivery(Protocol):
    """How traces go to one kind of destination."""

    verdicts: Verdicts
    size: BatchSize

    def ready(self, assembler: Assembler, *, everything: bool) -> list[TraceBuffer]:
        """Traces to send now.

        Args:
            assembler: Of all traces.
            everything: A flush is wanted, or memory is short: open traces go as far as they are, too.
        """

    def orphans(self, assembler: Assembler) -> list[TraceBuffer]:
        """Traces that are given up since nothing says where they go."""

    def deliver(self, traces: list[TraceBuffer]) -> None:
        """Delivers a batch.

        Raises:
            Unavailable: the destination takes nothing now. What was decided of traces before stands.
        """

    def interrupted(self) -> None:
        """The destination took no more."""


@dataclass
class Sender:
    """Delivers what the rings and segments of one spool hold. `life.sender_for` puts one together."""

    folder: str | None  # the spool's; None: there is none, and rings are handed in
    assembler: Assembler
    intake: Intake
    bursts: Bursts
    packing: Packing | None  # None: nothing is written to disk
    other_places: OtherPlaces | None  # None: the spool is this place's alone
    delivery: Delivery
    availability: Availability
    acknowledgements: Acknowledgements
    dead_letters: DeadLetters
    open_traces: OpenTraces
    changes: Changes
    status: Status
    waits_for_spans: bool = False  # of traces that have ended
    has_failed: bool = False  # at delivering: what that leaves behind is still in memory

    def step(self) -> bool:
        """One round; whether there was anything to do."""
        intake = self.intake
        if self.other_places is not None:
            self.other_places.look()
        if time.monotonic() - intake.scanned_at >= SCAN_SECONDS:
            self.scan()
            intake.sweep()
        self.assembler.add_deferred()
        read = intake.read(with_segments=not self.availability.is_left_alone())
        if intake.programs_have_ended():
            self.open_traces.recall_abandoned(self.assembler, intake.has_ended)
        sent = self.deliver()
        if not self.availability.is_left_alone():
            self.changes.make_due()
        nothing_open = not self.assembler.open and not self.assembler.has_deferred()
        if intake.flush_wanted and nothing_open and not intake.segments:
            intake.flush_is_done()
        if intake.segments:
            intake.settle()
        self.pack()
        if self.status.is_due():
            self.status.tick(self._figures())
        return bool(read or sent)

    def scan(self) -> None:
        """Finds new rings and segments."""
        self.intake.scan(spool_is_full=self._spool_is_full())

    def deliver(self) -> int:
        """Sends what is ready.

        Returns:
            The number of traces in the batches that are through, whatever became of each.
        """
        overfull = self.assembler.memory_bytes >= MEMORY_BYTES
        if self.dead_letters.set_unusable_aside(self.assembler.unusable):
            self.intake.settle()
        self.open_traces.recall(self.assembler.without_record(), self.assembler)
        for trace in self.delivery.orphans(self.assembler):
            self.dead_letters.set_aside(trace, Rejected("no record says where this trace goes"))
        ready = self._ready(overfull)
        if not ready:
            return 0
        self.delivery.verdicts.begin_round()
        # What may be to blame for a failure comes last, so that it holds up nothing.
        ready.sort(key=lambda trace: trace.schedule.suspect)
        return self._send(ready)

    def pack(self) -> None:
        """Moves to disk what cannot be delivered."""
        unavailable = self.availability.state is ServerState.UNAVAILABLE
        if self.packing is not None and self.packing.pack(unavailable=unavailable):
            self.assembler.drop_done()

    def forget_open_traces(self) -> None:
        """Removes the records of open traces when nothing is left that one would be needed for."""
        intake = self.intake
        unsent = self.assembler.unusable or self.assembler.open
        if intake.is_empty() and not intake.has_unread_files() and not unsent:
            self.open_traces.forget()

    def _ready(self, overfull: bool) -> list[TraceBuffer]:
        everything = self.intake.flush_wanted or overfull
        now = time.monotonic()
        ready = [
            trace
            for trace in self.delivery.ready(self.assembler, everything=everything)
            if trace.schedule.is_due(now)
        ]
        living = self.intake.living() if ready else frozenset()
        due, ready = ready, [trace for trace in ready if self._may_go(trace, living, overfull)]
        self.waits_for_spans = len(ready) < len(due)
        self.open_traces.recall([t for t in ready if not t.complete()], self.assembler)
        sampled = [trace for trace in ready if self._is_sampled(trace, overfull)]
        if len(sampled) < len(ready):
            self.intake.settle()
        if self.availability.backoff.waiting():
            return self.delivery.verdicts.before_the_server_is_back(sampled)
        return sampled

    def _may_go(self, trace: TraceBuffer, living: Collection[int], overfull: bool) -> bool:
        """Whether a trace may be sent: one that will not go on with all of its spans, since the sum over a part would be
        the server's last word. Where memory is short its spans go alone, and its info when all is read."""
        if trace.is_open():
            if trace.destination.get("pid") in living or self.intake.is_abandoned(trace):
                return True
            if overfull:
                self.intake.expect_ended()
            return overfull
        if self.intake.is_whole(trace):
            return True
        return overfull and bool(trace.spans or trace.attachments)

    def _is_sampled(self, trace: TraceBuffer, overfull: bool) -> bool:
        """Whether tail sampling lets a trace go to the server now."""
        try:
            decision = decide(trace, lambda: overfull or self.intake.is_abandoned(trace))
        except MemoryError:
            wait_for_memory(trace)
            return False
        if decision is Decision.WAITS:
            trace.postpone()
        elif decision is Decision.DROPPED:
            self.acknowledgements.done(trace, Disposition.SAMPLED_OUT)
        return decision is Decision.SAMPLED

    def _send(self, traces: list[TraceBuffer]) -> int:
        sent = 0
        said = time.monotonic()
        try:
            for batch in self.delivery.size.split(traces):
                self.intake.beat()
                began = time.monotonic()
                self.delivery.deliver(batch)
                self.changes.traces_came([trace.mlflow_id for trace in batch])
                now = time.monotonic()
                self.delivery.size.took(now - began)
                self.availability.took_a_batch()
                sent += len(batch)
                if now - said >= _SAY_AFTER_SECONDS:
                    self.intake.settle()  # a flush goes on waiting as long as it sees this
                    said = now
        except Unavailable as reason:
            self._interrupted(reason)
        except Exception as error:
            kind = type(error)
            if not self.availability.has_logged(kind):
                logger.exception("delivery failed")
            text = f"delivery failed: {kind.__name__}: {error}"
            self._interrupted(Unavailable(text, kind=kind))
        else:
            self.intake.settle()
            if not self.waits_for_spans:
                self.intake.flush_is_done()
        return sent

    def _interrupted(self, reason: Unavailable) -> None:
        self.has_failed = True
        self.delivery.interrupted()
        took_some = self.delivery.verdicts.accepted > 0
        self.availability.takes_nothing(reason, took_some=took_some)
        self.intake.settle()

    def _spool_is_full(self) -> bool:
        return self.packing is not None and self.packing.bound.is_full

    def _figures(self) -> Figures:
        rings = self.intake.rings.values()
        return Figures(
            server=self.availability.state,
            spool_is_full=self._spool_is_full(),
            refused_by_ring={ring.stem: ring.reader.refused_traces for ring in rings},
        )
