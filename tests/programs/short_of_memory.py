"""Calls the core again and again, and lets another allocation fail each time, until none does.

Whatever fails must say MemoryError: an answer that speaks of damage would make dead letters of good
records. Runs in any Python, with failing_malloc.c preloaded: ``short_of_memory.py CORE FOLDER``.
"""

from __future__ import annotations

import _testcapi
import ctypes
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from typing import Any

_MOST = 5000  # allocations of one call

shim = ctypes.CDLL(None)
shim.fail_after.argtypes = [ctypes.c_long]
shim.failures.restype = ctypes.c_long


def load_core(path: str) -> Any:
    """The core alone: a bare Python has no MLflow, which the package needs."""
    name = "mlflow_fasttrace._core"
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    core = importlib.util.module_from_spec(spec)
    loader.exec_module(core)
    package = types.ModuleType("mlflow_fasttrace")
    package._core = core  # type: ignore[attr-defined]
    sys.modules["mlflow_fasttrace"] = package
    return core


def by_malloc(call: Callable[[], Any], n: int) -> bool:
    """Lets the core's allocations fail from the n-th on; whether one has failed."""
    shim.fail_after(n)
    try:
        call()
    finally:
        failed = shim.failures() > 0
        shim.fail_after(-1)
        by_malloc.failed = failed  # type: ignore[attr-defined]
    return failed


def by_python(call: Callable[[], Any], n: int) -> bool:
    """Lets Python's allocations fail from the n-th on; whether one may have failed."""
    by_python.failed = True  # type: ignore[attr-defined]
    _testcapi.set_nomemory(n)
    try:
        call()
    finally:
        _testcapi.remove_mem_hooks()
    return False


def sweep(name: str, call: Callable[[], Any], expected: Any) -> int:
    """Tries every allocation of a call.

    Returns:
        The number of calls that ended with a MemoryError.
    """
    shortages = 0
    for how in (by_malloc, by_python):
        for n in range(_MOST):
            found: list[Any] = [None]

            def keep(found: list[Any] = found) -> None:
                found[0] = call()

            try:
                how(keep, n)
            except MemoryError:
                shortages += 1
                continue
            except Exception as error:
                sys.exit(f"{name}: {how.__name__} {n}: {type(error).__name__}: {error}")
            if found[0] != expected:
                sys.exit(f"{name}: {how.__name__} {n}: {found[0]!r}")
            if not (how is by_malloc and by_malloc.failed):  # type: ignore[attr-defined]
                break
        else:
            sys.exit(f"{name}: {how.__name__}: too many allocations")
    return shortages


def main() -> None:
    core = load_core(sys.argv[1])
    folder = sys.argv[2]
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from support import made_records

    deep: Any = 1.5
    for _ in range(100):
        deep = [deep]
    value = {
        "text": "\u00e9" * 300,
        "float": 0.1,
        "long": 10**400,
        "deep": deep,
        "many": [{"k": n} for n in range(50)],
    }
    half = "\ud800 a lone surrogate"
    encoded, surrogates = core.encode(value), core.encode(half)
    attributes = {
        "mlflow.spanInputs": value,
        "mlflow.spanOutputs": half,
        "mlflow.chat.tokenUsage": {"input_tokens": 1},
        "mlflow.llm.cost": {"total": 0.25},
    }
    span = made_records.span_record(attributes=attributes)
    # A value that stands for a text (items of a stream), in an attribute.
    item = b"\xc8" + len(encoded).to_bytes(2, "big") + b"\x03" + encoded
    streamed = made_records.span_with_value(item)
    records = [span, streamed] * 3
    extra = core.encode({"tag": 1.5})
    resource = core.encode({"service.name": "x"})
    spans = [(record, 1, extra, None) for record in records]
    small, large = f"{folder}/small.seg", f"{folder}/large.seg"
    core.write_segment(small, records, 3)
    core.write_segment(large, [os.urandom(100 << 10) * 3] * 3, 3)
    # One large record that does not compress is read as one that a program has spilled.
    spilled = f"{folder}/spilled.seg"
    core.write_segment(spilled, [os.urandom(2 << 20)], 3)
    message = {"role": "user", "content": "\u00e9" * 600_000}
    wide = made_records.span_record(attributes={"mlflow.spanInputs": {"messages": [message]}})

    def segment(path: str) -> Callable[[], Any]:
        def read() -> Any:
            reader = core.SegmentReader(path)
            try:
                return reader.read(1 << 30), reader.damaged, reader.rest
            except MemoryError:
                assert not reader.damaged
                assert reader.offset in (0, 16)
                raise

        return read

    calls: dict[str, Callable[[], Any]] = {
        "decode": lambda: core.decode(encoded),
        "decode, surrogates": lambda: core.decode(surrogates),
        "decode, a record": lambda: core.decode(span),
        "decode, a stream's item": lambda: core.decode(item),
        "json_text": lambda: core.json_text(encoded),
        "json_text, ASCII": lambda: core.json_text(encoded, True),
        "json_text, a stream's item": lambda: core.json_text(item),
        "span_json": lambda: core.span_json(span),
        "span_json, a stream's item": lambda: core.span_json(streamed),
        "span_summary": lambda: core.span_summary(span),
        "span_summary, a large span": lambda: core.span_summary(wide),
        "otlp_request": lambda: core.otlp_request(records),
        "otlp_request, a large span": lambda: core.otlp_request([wide]),
        "collector_request, JSON": lambda: core.collector_request(spans, resource, True),
        "collector_request, values": lambda: core.collector_request(spans, resource, False),
        "a segment": segment(small),
        "a large segment": segment(large),
        "a spilled segment": segment(spilled),
    }
    for name, call in calls.items():
        print(name, sweep(name, call, call()))


main()
