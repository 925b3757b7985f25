"""One public call, over and over, while one allocation after the other fails.

    python -m programs.out_of_memory CASE PROGRESS

First those of the core itself fail (``core``, by support/fail_malloc.c in LD_PRELOAD), then those of the
interpreter (``python``, by _testcapi). The n-th allocation of a call fails alone, for all n that the call
gets to. Then, of the core's own, the n-th and all behind it; not of the interpreter's, for
ContextVar.set() of some Pythons crashes where two fail in a row. PROGRESS is a file that says which one it is, for
whoever finds this process dead. Prints a line of JSON for every fault, and one for either allocator at its end.
"""

from __future__ import annotations

import contextvars
import ctypes
import errno
import gc
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow_fasttrace as mlflow
from mlflow.entities import SpanEvent
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import destination
from support.records import Recorded, spans_in

FOREVER = 1 << 30

VALUE = {
    "text": "ä" * 700,
    "numbers": [1, -2, 1.5, 1 << 70, None, True],
    "deep": [[[[[[[[[[[[[[[[[[[[{"k": "v"}]]]]]]]]]]]]]]]]]]]],
    "many": {str(n): [n] for n in range(30)},
}
ENCODED = _core.encode(VALUE)
#: Larger than the buffers that the core keeps.
LARGE = ["x" * 1000] * 1100


class Outcome(NamedTuple):
    """How a call ended."""

    value: Any
    error: BaseException | None

    def is_own(self, value: Any) -> None:
        """It gave its value, or there was no memory for it."""
        if self.error is None:
            assert self.value == value, f"another result: {str(self.value)[:300]}"


#: Yields the call that is to be tried, gets its outcome, and says what is wrong with it.
Case = Callable[[], Generator[Callable[[], Any], Outcome, None]]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def drive(coroutine: Any) -> Any:
    """Runs a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the coroutine waits")


# ---- what is set on a span ----


def on_a_span(name: str, act: Callable[[Any], Any], holds: Callable[[Any], bool] = lambda _: True):
    """A case that does something to a span, whose record must be sound afterwards.

    Args:
        holds: Whether the span's record may be so.
    """

    def run():
        span = mlflow.start_span_no_context("span")
        outcome = yield lambda: act(span)
        outcome.is_own(None)
        span.end()
        (record,) = [record for record in recorded.spans() if record.name == "span"]
        assert holds(record), f"what is recorded is wrong: {str(record)[-600:]}"

    CASES[name] = run


on_a_span("set_inputs", lambda s: s.set_inputs(VALUE), lambda r: r.inputs in (None, VALUE))
on_a_span("set_large_inputs", lambda s: s.set_inputs(LARGE), lambda r: r.inputs in (None, LARGE))
on_a_span("set_outputs", lambda s: s.set_outputs([VALUE]), lambda r: r.outputs in (None, [VALUE]))
on_a_span(
    "set_attribute",
    lambda s: s.set_attribute("k", VALUE),
    lambda r: r.attributes.get("k") in (None, VALUE),
)
on_a_span(
    "set_attributes",
    lambda s: s.set_attributes({str(n): VALUE for n in range(12)}),
    lambda r: all(r.attributes.get(str(n)) in (None, VALUE) for n in range(12)),
)
on_a_span(
    "add_event",
    lambda s: s.add_event(EVENT),
    lambda r: r.events in ([], [("event", 5, {"k": "v", "l": [1, 2]})]),
)
on_a_span(
    "record_exception",
    lambda s: s.record_exception(ERROR),
    lambda r: r.event_names in ([], ["exception"]),
)
on_a_span("set_status", lambda s: s.set_status("ERROR"), lambda r: r.status in (1, 2))
on_a_span("set_span_type", lambda s: s.set_span_type("LLM"))

EVENT = SpanEvent("event", timestamp=5, attributes={"k": "v", "l": [1, 2]})
ERROR = ValueError("no")


# ---- what is read of a span ----


def of_a_span(name: str, read: Callable[[Any], Any]):
    def run():
        span = mlflow.start_span_no_context("span", inputs=VALUE)
        span.set_outputs([VALUE])
        span.add_event(EVENT)
        expected = read(span)
        outcome = yield lambda: read(span)
        outcome.is_own(expected)
        span.end()

    CASES[name] = run


of_a_span("inputs", lambda span: span.inputs)
of_a_span("outputs", lambda span: span.outputs)
of_a_span("attributes", lambda span: span.attributes)
of_a_span("events", lambda span: [(event.name, event.timestamp) for event in span.events])
of_a_span("status", lambda span: span.status)
of_a_span("to_dict", lambda span: span.to_dict())
of_a_span("ids", lambda span: (span.trace_id, span.span_id, span.parent_id, span.name))


# ---- spans that start and end ----


@case
def start_span():
    def call():
        with mlflow.start_span("span") as span:
            return span is not None

    yield call


@case
def start_span_with_attributes():
    def call():
        with mlflow.start_span("span", span_type="LLM", attributes={"k": VALUE, "l": [1]}) as span:
            return span is not None

    yield call


@case
def start_span_and_fail():
    def call():
        with mlflow.start_span("span"):
            raise KeyError("own")

    outcome = yield call
    assert outcome.error is not None, "the exception is swallowed"


@case
def start_span_inside():
    with mlflow.start_span("outer") as outer:

        def call():
            with mlflow.start_span("inner"):
                pass

        yield call
        assert _core.current() is outer, "another span is current inside the outer one"


@case
def end():
    span = mlflow.start_span_no_context("span", inputs=VALUE)
    outcome = yield lambda: span.end()
    outcome.is_own(None)
    span.end()


@case
def get_current_active_span():
    with mlflow.start_span("outer") as outer:
        outcome = yield mlflow.get_current_active_span
        if outcome.error is None:
            assert outcome.value is outer, "another span is current"


# ---- traced callables ----


@mlflow.trace(attributes={"a": 1})
def plain(x, *rest, y=2, **others):
    return [x, y]


@mlflow.trace
def failing(x):
    raise KeyError("own")


@mlflow.trace
async def coroutine(x):
    return [x]


@mlflow.trace
def generator(n):
    yield from range(n)


@mlflow.trace
async def async_generator(n):
    for i in range(n):
        yield i


async def collect(n):
    return [item async for item in async_generator(n)]


@case
def traced_call():
    outcome = yield lambda: plain(1, 5, 6, y=3, z=VALUE)
    outcome.is_own([1, 3])


@case
def traced_call_inside():
    with mlflow.start_span("outer") as outer:
        outcome = yield lambda: plain(1)
        outcome.is_own([1, 2])
        assert _core.current() is outer, "another span is current inside the outer one"


@case
def traced_call_that_fails():
    outcome = yield lambda: failing(1)
    assert outcome.error is not None, "the exception is swallowed"


@case
def traced_coroutine():
    outcome = yield lambda: drive(coroutine(1))
    outcome.is_own([1])


@case
def traced_generator():
    outcome = yield lambda: list(generator(3))
    outcome.is_own([0, 1, 2])


@case
def traced_async_generator():
    outcome = yield lambda: drive(collect(3))
    outcome.is_own([0, 1, 2])


@case
def trace_decorator():
    def function(x):
        return x

    outcome = yield lambda: mlflow.trace(function)
    if outcome.error is None:
        assert outcome.value(1) == 1, "the decorated function does something else"


# ---- values, records, requests, files ----


def of_values(name: str, call: Callable[[], Any]):
    """A case whose call gives what it gave when there was memory."""

    def run():
        expected = call()
        outcome = yield call
        outcome.is_own(expected)

    CASES[name] = run


of_values("encode", lambda: _core.encode(VALUE))
of_values("decode", lambda: _core.decode(ENCODED))
of_values("json_text", lambda: _core.json_text(ENCODED))


def some_records() -> list[bytes]:
    """Span records that have a bit of everything."""
    with mlflow.start_span("root", attributes={"k": VALUE}) as span:
        span.set_inputs(VALUE)
        span.set_outputs([VALUE])
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 1})
        span.add_event(EVENT)
        list(generator(2))
        deep: Any = 1.5
        for _ in range(120):
            deep = [deep]
        with mlflow.start_span("deep") as inner:
            inner.set_inputs(deep)
    items = [item[1:] for item in recorded.reader.drain(FOREVER)]
    recorded.reader.release(recorded.reader.cursor)
    return [record for kind, _, record in items if kind == 1]


def of_records(name: str, call: Callable[[list[bytes]], Any]):
    def run():
        records = RECORDS or RECORDS.extend(some_records()) or RECORDS
        expected = call(records)
        outcome = yield lambda: call(records)
        outcome.is_own(expected)

    CASES[name] = run


RECORDS: list[bytes] = []
EMPTY = _core.encode({})
of_records("span_json", lambda records: [_core.span_json(record) for record in records])
of_records("span_summary", lambda records: [_core.span_summary(record) for record in records])
of_records("otlp_request", _core.otlp_request)
of_records(
    "collector_request",
    lambda records: _core.collector_request(
        [(record, 1, EMPTY, None) for record in records], EMPTY, True
    ),
)
of_records("write_and_read_a_segment", lambda records: segment_of(records))


def segment_of(records: list[bytes]) -> list[bytes]:
    path = f"{folder}/some.seg"
    _core.write_segment(path, records, 3)
    reader = _core.SegmentReader(path)
    read = [item[3] for item in reader.read(FOREVER)]
    assert not reader.damaged, "the segment is damaged"
    return read


@case
def read_a_ring():
    """What could not be read is read later, and nothing twice."""
    path = f"{folder}/other.ring"
    for _ in range(3):
        plain(VALUE)
    source = recorded.reader
    before = source.cursor
    outcome = yield lambda: source.drain(FOREVER)
    assert not source.damaged, "the ring is damaged"
    later = source.drain(FOREVER)
    got = len(later) + (len(outcome.value) if outcome.error is None else 0)
    assert got >= 3, f"{got} records were read of the ring {path} behind {before}"


@case
def make_a_ring():
    path = f"{folder}/made.ring"

    def call():
        writer = _core.RingWriter(path, 1 << 16, f"{folder}/made-spill", memory_prefix=path)
        reader = _core.RingReader(path)
        return reader.capacity, writer.progress() is not None

    outcome = yield call
    outcome.is_own((1 << 16, True))
    outcome = None
    Path(path).unlink(missing_ok=True)


# ---- allocations that fail ----


class OfPython:
    """Lets allocations of the interpreter fail."""

    modes = (False,)

    def __init__(self):
        import _testcapi

        self._fail, self._pass = _testcapi.set_nomemory, _testcapi.remove_mem_hooks

    def arm(self, first: int, last: int) -> None:
        self._fail(first, 0 if last == FOREVER else last + 1)

    def disarm(self, number: int) -> bool:
        """Ends it; whether the allocation with that number was one of the call."""
        try:
            for _ in range(number + 10):
                bytearray(8)
        except MemoryError:
            return False
        finally:
            self._pass()
        return True


class OfCore:
    """Lets allocations fail that the core makes itself."""

    modes = (False, True)

    def __init__(self):
        self._library = ctypes.CDLL(None)
        maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        ranges = [line[0].split("-") for line in maps if line[-1] == _core.__file__]
        start, end = int(ranges[0][0], 16), int(ranges[-1][1], 16)
        self._library.fail_malloc_of.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
        self._library.fail_malloc_arm.argtypes = [ctypes.c_long, ctypes.c_long]
        self._library.fail_malloc_disarm.restype = ctypes.c_long
        self._library.fail_malloc_of(start, end)

    def arm(self, first: int, last: int) -> None:
        self._library.fail_malloc_arm(first, last)

    def disarm(self, number: int) -> bool:
        return self._library.fail_malloc_disarm() > number


class OfNobody:
    """Lets nothing fail."""

    def arm(self, first: int, last: int) -> None:
        pass

    def disarm(self, number: int) -> bool:
        return False


ALLOCATORS = {"core": OfCore, "python": OfPython}


def attempt(run: Case, allocator: Any, first: int, last: int) -> bool:
    """Makes one call while those allocations fail; whether there were so many."""
    steps = run()
    call = next(steps)
    value, error = None, None
    allocator.arm(first, last)
    try:
        value = call()
    except BaseException as raised:
        error = raised
    touched = allocator.disarm(first)
    if error is not None:
        error.__traceback__ = None
    try:
        steps.send(Outcome(value, error))
    except StopIteration:
        pass
    owned: tuple = (MemoryError, KeyError)
    if isinstance(allocator, OfPython):
        owned += (SystemError,)  # a plain function that raises ends so too, in some Pythons
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return touched
    assert error is None or isinstance(error, owned), f"it raised {error!r}"
    return touched


def check_what_follows() -> None:
    """Nothing is current, and a span records normally."""
    current = _core.current()
    assert current is None, f"{current!r} is current afterwards"
    with mlflow.start_span("later") as span:
        span.set_inputs({"n": 1})
    gc.collect(0)
    items = [item[1:] for item in recorded.reader.drain(FOREVER)]
    recorded.reader.release(recorded.reader.cursor)
    assert not recorded.reader.damaged, "the ring is damaged"
    assert all(kind != 0 for kind, _, _ in items), "something that is no record was recorded"
    later = [record for record in spans_in(items) if record.name == "later"]
    assert len(later) == 1, "a later span is not recorded"
    assert later[0].inputs == {"n": 1}, "a later span is not recorded as ever"
    assert later[0].parent_id is None, "a later span has a parent"


def try_all(run: Case, name: str, progress: int) -> None:
    """Lets all allocations fail that a call makes by one allocator."""
    allocator = ALLOCATORS[name]()
    total = None
    for forever in allocator.modes:
        number, touched = 0, True
        while touched if total is None else number < total:
            os.pwrite(progress, f"{name} {number:8} {forever:5}".encode(), 0)
            try:
                last = FOREVER if forever else number
                # In a context of its own: what one attempt leaves current is not the next's.
                context = contextvars.Context()
                touched = context.run(attempt, run, allocator, number, last)
                context.run(check_what_follows)
            except Exception as fault:
                text = f"allocation {number}: {type(fault).__name__}: {fault}"
                print(json.dumps({"allocator": name, "fault": text[:700]}))
                recorded.spans()
            number += 1
            assert number < 20_000, "the call never passes"
        total = number
    print(json.dumps({"allocator": name, "allocations": total - 1}))


def main() -> None:
    global folder, recorded
    name, progress = sys.argv[1:]
    run = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        recorded = Recorded(Path(folder), 8 << 20)
        for _ in range(2):  # what is done once only is done now
            attempt(run, OfNobody(), 0, 0)
            check_what_follows()
        progress_fd = os.open(progress, os.O_WRONLY | os.O_CREAT)
        for allocator in ALLOCATORS:
            if allocator == "python" and importlib.util.find_spec("_testcapi") is None:
                continue
            try_all(run, allocator, progress_fd)
        destination.reset()


if __name__ == "__main__":
    main()
