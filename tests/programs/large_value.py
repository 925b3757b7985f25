"""What one large value costs: a program that records a value of so many bytes, waits for its delivery, and
prints by how many bytes the peak of its resident memory, and that of its sender, has passed what they had
before.

    python -m programs.large_value KIND MEGABYTES [WAY]

Both have recorded and delivered a small trace before. The spool folder is one of this program alone.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow_fasttrace as mlflow
from support.spools import sender_pids


def text_of(size: int) -> str:
    """A text that does not compress well."""
    return random.Random(1).randbytes(size // 2).hex()


#: By kind: a value, made of a number of bytes.
VALUES: dict[str, Callable[[int], Any]] = {
    "str": text_of,
    "repetitive": lambda size: "one two " * (size // 8),
    "umlauts": lambda size: "größe éé" * (size // 12),
    "bytes": lambda size: text_of(size).encode(),
    "list": lambda size: [
        text[at : at + 1000] for text in [text_of(size)] for at in range(0, size, 1000)
    ],
    "dict": lambda size: {
        str(at): text[at : at + 1000] for text in [text_of(size)] for at in range(0, size, 1000)
    },
}


@mlflow.trace
def work(value: Any) -> int:
    return len(value)


def peak(pid: int | str) -> int:
    """The most that a process has had since ``begin``, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def begin(pid: int | str) -> int:
    """Forgets a process's peak; what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(pid)


def record(value: Any, way: str) -> None:
    if way == "call":
        work(value)
        return
    with mlflow.start_span("span") as span:
        if way == "inputs":
            span.set_inputs(value)
        elif way == "outputs":
            span.set_outputs(value)
        else:
            span.set_attribute("value", value)


def main(kind: str, megabytes: str, way: str = "call") -> None:
    size = int(megabytes) << 20
    record("small", way)
    mlflow.flush_trace_async_logging()
    (sender,) = sender_pids(Path(os.environ["MLFLOW_FASTTRACE_SPOOL_DIR"]))
    value = VALUES[kind](size)
    gc.collect()
    before, before_in_sender = begin("self"), begin(sender)
    record(value, way)
    grown = peak("self") - before
    mlflow.flush_trace_async_logging()
    figures = {"size": size, "program": grown, "sender": peak(sender) - before_in_sender}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
