"""Adds to the saved inputs of tests/fuzz/corpus: what a real program records, in the form that each
target of fuzz.c takes, and of that the few which reach what the saved ones do not.

    .venv/bin/python tests/fuzz/make_corpus.py
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import mlflow_fasttrace as mlflow
from mlflow.entities import Link
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import destination
from support import fuzzing
from support.records import items_of, spans_to_ring

#: Inputs larger than this are not kept.
MAX_BYTES = 4096

VALUES = [
    None,
    True,
    -1,
    255,
    70_000,
    1 << 40,
    -(1 << 40),
    1 << 70,
    -(10**30),
    1.5,
    float("nan"),
    float("inf"),
    1e300,
    "",
    "text",
    'ä€\U0001f600 " \\ \n\t\x00',
    "\ud800 alone",
    b"bytes",
    [],
    {},
    [1, [2, [3, {"k": [None, False]}]]],
    {"a": 1, "b": {"c": "d"}, "": "x" * 300},
    {"messages": [{"role": "user", "content": "hello"}]},
    list(range(20)),
    {str(n): n for n in range(20)},
]


def deep(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


def record_all() -> None:
    """Records a few traces that have a bit of everything."""

    @mlflow.trace
    def plain(x, *rest, y=1, **others):
        return {"x": x}

    @mlflow.trace
    def stream(n):
        yield from ({"item": i} for i in range(n))

    @mlflow.trace
    def fails():
        raise ValueError("no")

    plain(1, 2, y=[3], z="z")
    list(stream(3))
    try:
        fails()
    except ValueError:
        pass
    for value in [*VALUES, deep(40), deep(120)]:
        with mlflow.start_span("values", attributes={"value": value}) as span:
            span.set_inputs(value)
            span.set_outputs([value])
    with mlflow.start_span("ä \ud800", span_type="LLM") as span:
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 1, "total_tokens": 2})
        span.set_attribute("mlflow.llm.cost", {"total_cost": 0.5})
        span.add_event(mlflow.entities.SpanEvent("event", attributes={"k": 1, "l": [1, "x"]}))
        span.set_status("ERROR")
        span._kind = 3
        span.add_link(Link("tr-" + "ab" * 16, "cd" * 8, {"k": "v"}))
        with mlflow.start_span("child"):
            pass


def inputs(folder: Path) -> dict[str, list[bytes]]:
    """Inputs by target."""
    _, reader = spans_to_ring(folder)
    try:
        record_all()
        records = [record for _, _, record in items_of(reader)]
        ring = (folder / "1-00000000.ring").read_bytes()
        data = ring[4096 : 4096 + reader.head]
    finally:
        destination.reset()
    values = [_core.encode(value) for value in [*VALUES, deep(40), deep(120)]]
    pairs = _core.encode({"service.name": "x", "n": 1})
    half = len(records) // 2
    segments, small = [], folder / "packed.seg"
    for some in (records[:1], records[:3], records[half : half + 3], []):
        for level in (1, 3):
            _core.write_segment(str(small), some, level)
            segments.append(small.read_bytes()[16:])
    positions = [(0).to_bytes(8, "little"), (1 << 17).to_bytes(8, "little")]
    return {
        "record": records,
        "decode": [*records[:4], *values],
        "json_text": values,
        "otlp": [
            bytes([options, len(pairs)]) + pairs + record
            for options, record in zip(itertools.cycle(range(16)), records, strict=False)
        ],
        "segment": [b"\1" + segment for segment in segments]
        + [bytes([options]) + data[:2000] for options in (5, 7)],
        "ring": [
            bytes([options]) + tail + bytes(24) + data[:size]
            for options in (1, 3)
            for tail in (*positions, (65000).to_bytes(8, "little"))
            for size in (0, 1000, 4000)
        ],
    }


def main() -> None:
    program = fuzzing.build()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MLFLOW_FASTTRACE_SENDER"] = "none"
        for target, made in inputs(folder).items():
            seeds = folder / target
            seeds.mkdir()
            for number, content in enumerate(made):
                if len(content) <= MAX_BYTES:
                    (seeds / f"{number:03}").write_bytes(content)
            saved = fuzzing.CORPUS / target
            saved.mkdir(parents=True, exist_ok=True)
            command = [program, "-merge=1", f"-max_len={MAX_BYTES}", saved, seeds]
            subprocess.run(command, check=True, env=fuzzing.environment(target, folder))


if __name__ == "__main__":
    main()
