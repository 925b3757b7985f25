"""Records written by hand, byte by byte: what a program writes, and what no program writes."""

from __future__ import annotations

from typing import Any

from mlflow_fasttrace import _core

TRACE_ID = bytes(range(1, 17))
SPAN_ID = b"12345678"
INFO = {"name": "x", "tags": {}}


def binary(content: bytes) -> bytes:
    """msgpack's ``bin 8``."""
    return b"\xc4" + bytes([len(content)]) + content


def trace_record(
    destination: Any,
    info: Any = INFO,
    trace_id: bytes = TRACE_ID,
    phase: bytes = b"\xcc\x02",
    state: Any = 1,
) -> bytes:
    head = b"\x99\x02" + binary(trace_id) + phase
    return head + b"".join(map(_core.encode, (1, 10**18, 10**9, state, destination, info)))


def span_record(
    name: Any = "x",
    span_id: bytes = SPAN_ID,
    start: Any = 10**18,
    status: Any = 0,
    attributes: Any = {},  # noqa: B006
) -> bytes:
    head = b"\x9c\x01" + binary(TRACE_ID) + binary(span_id) + b"\xc0"
    fields = (name, start, 10**18 + 1, status, "", attributes, [], [])
    return head + b"".join(map(_core.encode, fields))


def span_with_value(encoded: bytes) -> bytes:
    """A span whose attribute ``k`` has a value that is encoded already, well or not."""
    head = b"\x9c\x01" + binary(TRACE_ID) + binary(SPAN_ID) + b"\xc0"
    start = b"".join(map(_core.encode, ("n", 1, 1, 1, "")))
    return head + start + b"\x81\xa1k" + encoded + b"\x90\x90"


def destination(**experiment: Any) -> dict[str, Any]:
    """Where a trace's record says that it goes: an experiment, by ``id`` or by ``name``."""
    return {"uri": "x", "experiment": experiment, "user": "u", "source": "s", "cwd": "/"}
