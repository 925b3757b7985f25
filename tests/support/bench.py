"""A sender that runs in the test's own process, step by step, so that much can be tried in little
time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.sender.assemble import TraceBuffer
from mlflow_fasttrace._internal.sender.life import sender_for
from mlflow_fasttrace._internal.sender.loop import Sender

from support.waiting import Patience


class Bench:
    """Spans of this process go to a ring, and from there with every step to the server; until
    ``destination.reset()``."""

    def __init__(self, folder: Path):
        (folder / "rings").mkdir()
        self.folder = folder / "state"
        self.folder.mkdir()
        ring = str(folder / "rings" / f"{os.getpid()}-00000000.ring")
        self.writer = _core.RingWriter(ring, 1 << 20, str(self.folder / "spill-1-00000000"))
        self.rings = str(folder / "rings")
        self.sender: Sender | None = None

    def to(self, uri: str, experiment: str | dict[str, str]) -> None:
        """Where the traces that start from now on go."""
        named = {"name": experiment} if isinstance(experiment, str) else experiment
        _core.set_destination(self.writer, destination.describe(uri, named))
        if self.sender is None:
            self.sender = sender_for(str(self.folder), self.rings, uri)

    def open_traces(self) -> list[TraceBuffer]:
        """Traces that are not delivered, as far as the sender has read them."""
        return list(self.sender.assembler.open.values())

    def left(self) -> int:
        """Traces that are not delivered; more than there are while not all of them are known."""
        unread = [s for s in self.sender.intake.segments.values() if not s.loaded]
        return 10**6 if unread else len(self.sender.assembler.open)

    def run(self, until: Callable[[], Any] | None = None, seconds: float = 20.0) -> None:
        """Lets the sender work until all is delivered, or until a condition holds."""
        patience = Patience(seconds)
        self.sender.step()
        while not (until() if until is not None else self.left() == 0):
            assert not patience.is_over(), self._not_delivered()
            self.sender.step()
            time.sleep(0.002)

    def _not_delivered(self) -> str:
        sender = self.sender
        waiting = {
            (t.schedule.failures, t.schedule.denials) for t in sender.assembler.open.values()
        }
        return f"{self.left()} not delivered: {waiting}, server {sender.availability.state}"

    def dead_letters(self) -> list[str]:
        """The reasons of the dead letters."""
        return [note.read_text() for note in self.folder.glob("refused-*.txt")]


def record(count: int = 1, name: str = "root", inputs: Any = "x", children: int = 0) -> None:
    """Records traces, each of a root and its children, all with the same inputs."""
    for _ in range(count):
        with mlflow.start_span(name) as span:
            span.set_inputs(inputs)
            for n in range(children):
                with mlflow.start_span(f"child {n}") as child:
                    child.set_inputs(inputs)
