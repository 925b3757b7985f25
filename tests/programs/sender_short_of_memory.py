"""A sender at whose every step another allocation of Python fails: ``... FOLDER``.

The destination is a list: what a server does without memory is not asked here. It takes what the real
ones make: the body of an info, an OTLP request.
"""

from __future__ import annotations

import _testcapi
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.sender import assemble, intake, life, trace_infos, verdicts
from mlflow_fasttrace._internal.sender.artifacts import Artifacts
from mlflow_fasttrace._internal.sender.availability import Backoff
from mlflow_fasttrace._internal.sender.exceptions import Inexact, Rejected
from mlflow_fasttrace._internal.sender.loop import Sender
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.bench import record

_ROUNDS = 700
_STRIDE = 3  # of the number of the allocation that fails


class Kept:
    """A destination that keeps what it is sent."""

    takes_spans = True
    infos_at_once = 1
    new_infos_at_once = 25

    def __init__(self) -> None:
        self.infos: set[str] = set()
        self.requests: list[bytes] = []

    def experiment_id(self, name: str) -> str:
        return name

    def send_info(self, info: dict) -> Callable[[], None]:
        body = trace_infos.start_trace_body(info)
        return lambda: self.infos.add(json.loads(body)["trace"]["trace_info"]["trace_id"])

    def send_new_infos(self, infos: list[dict]) -> bool:
        for info in infos:
            self.send_info(info)()
        return True

    def send_spans(self, experiment_id: str, records: list[bytes], *, exact: bool) -> None:
        body, refused, inexact = _core.otlp_request(records)
        if exact and inexact:
            raise Inexact(inexact)
        if refused:
            raise Rejected(f"{len(refused)} span records cannot be encoded")
        self.requests.append(body)

    def upload(self, trace_id: str, artifacts: Artifacts) -> None:
        raise AssertionError("everything goes as spans")

    def spans(self) -> set[bytes]:
        return {
            span.span_id
            for body in self.requests
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


def main() -> None:
    folder = Path(sys.argv[1])
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    # No round waits for the clock.
    verdicts._pause = lambda times: 0.0  # type: ignore[assignment]
    assemble._DEFERRED_SECONDS = life._WITHOUT_MEMORY_SECONDS = 0.0
    intake.RETRY_SECONDS = intake.SCAN_SECONDS = 0.0
    life.POLL_BUSY_SECONDS = life.POLL_IDLE_SECONDS = 0.0
    Backoff.waiting = lambda self: False  # type: ignore[method-assign]

    (folder / "rings").mkdir()
    state = folder / "state"
    state.mkdir()
    ring = str(folder / "rings" / f"{os.getpid()}-00000000.ring")
    writer = _core.RingWriter(ring, 64 << 10, str(state / f"spill-{os.getpid()}-00000000"))
    _core.set_destination(writer, destination.describe("http://x", {"name": "x"}))
    kept = Kept()
    rounds = 0

    def make() -> Sender:
        _testcapi.remove_mem_hooks()
        sender = life.sender_for(str(state), str(folder / "rings"), "http://x")
        sender.delivery.destination = kept
        # open() of Python 3.11 raises RuntimeError where it finds no memory for a lock.
        sender.status._next_write = float("inf")
        return sender

    def should_stop() -> bool:
        """Between rounds there is memory; in each round one allocation fails, another each time."""
        nonlocal rounds
        _testcapi.remove_mem_hooks()
        rounds += 1
        if rounds < _ROUNDS:
            # More than the ring holds, now and then: the rest comes from segments.
            record(1 if rounds % 50 else 150, inputs={"n": rounds, "text": "x" * 600}, children=1)
            _testcapi.set_nomemory(rounds * _STRIDE % 2000, rounds * _STRIDE % 2000 + 1)
            return False
        progress = writer.progress()
        return rounds > _ROUNDS * 3 or progress[2] >= progress[0]

    record(3)  # what is imported late is there
    warm = make()
    while warm.step():
        pass
    life._serve(make, should_stop)
    _testcapi.remove_mem_hooks()
    count = 3 + sum(1 if n % 50 else 150 for n in range(1, _ROUNDS))
    assert writer.progress()[6:] == (0, 0), "none was refused"
    assert not list(state.glob("refused-*")), "dead letters"
    assert not list(state.glob("*.damaged")), "damage"
    print("infos", len(kept.infos), "spans", len(kept.spans()), "recorded", count)
    assert len(kept.infos) == count
    assert len(kept.spans()) == 3 + (count - 3) * 2
    destination.reset()


main()
