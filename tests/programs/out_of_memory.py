"""One public call, over and over, while one allocation after the other fails.

    python -m programs.out_of_memory CASE PROGRESS

First those of the core itself fail (``core``, by support/fail_malloc.c in LD_PRELOAD), then those of the
interpreter (``python``, by _testcapi). The n-th allocation of a call fails alone, for all n that the call
gets to. Then, of the core's own, the n-th and all behind it; not of the interpreter's, for
ContextVar.set() of some Pythons crashes where two fail in a row. PROGRESS is a file that says which one it is, for
whoever finds this process dead. Prints a line of JSON for every fault, and one for either allocator at its end.

Runs in any Python; the cases are those of ``public_calls.py``.
"""

from __future__ import annotations

import contextvars
import ctypes
import errno
import gc
import json
import os
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlflow_fasttrace import _core
from support.records import spans_in

from programs.public_calls import (
    CASES,
    FOREVER,
    INSTALLED_CASES,
    Outcome,
    Place,
    Steps,
    mlflow,
    recording,
)


class OfPython:
    """Lets allocations of the interpreter fail."""

    modes = (False,)

    def __init__(self):
        import _testcapi

        self._fail, self._pass = _testcapi.set_nomemory, _testcapi.remove_mem_hooks
        keep_code_objects()

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


def keep_code_objects() -> None:
    """Keeps the code objects that are loaded for good.

    Python 3.12 and 3.13 give a reference to the code object away that they do not have, where a function is
    to be made of it (``def``, ``lambda``) and there is no memory for that.
    """
    known: set[int] = set()
    wait = [thing.__code__ for thing in gc.get_objects() if isinstance(thing, types.FunctionType)]
    while wait:
        code = wait.pop()
        if id(code) not in known:
            known.add(id(code))
            ctypes.c_int32.from_address(id(code)).value += 1 << 20
            wait += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]


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


def attempt(run: Steps, allocator: Any, first: int, last: int) -> bool:
    """Makes one call while those allocations fail; whether there were so many."""
    steps = run()
    call = next(steps)
    value, error, touched = None, None, None
    allocator.arm(first, last)
    try:
        value = call()
    except BaseException as raised:
        error = raised
    while touched is None:
        try:
            touched = allocator.disarm(first)
        except MemoryError:  # Python 3.10 allocates a frame for the method
            touched = False
    allocator.disarm(first)
    if error is not None:
        error.__traceback__ = None
    try:
        steps.send(Outcome(value, error))
    except StopIteration:
        pass
    assert error is None or is_owed_to_memory(error, allocator), (
        f"it raised {error!r} of {error.__cause__!r} {error.__context__!r}"
    )
    return touched


def is_owed_to_memory(error: BaseException, allocator: Any) -> bool:
    """Whether an error says that there is no memory, or is a case's own; MLflow wraps errors in its own."""
    owned: tuple = (MemoryError, KeyError)
    if isinstance(allocator, OfPython):
        owned += (SystemError,)  # a plain function that raises ends so too, in some Pythons
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if isinstance(error, RuntimeError) and str(error) == "can't allocate lock":
        return True
    inner = error.__cause__ or error.__context__
    return isinstance(error, owned) or (inner is not None and is_owed_to_memory(inner, allocator))


def check_what_follows() -> None:
    """Nothing is current, and a span records normally."""
    current = _core.current()
    assert current is None, f"{current!r} is current afterwards"
    with mlflow.start_span("later") as span:
        span.set_inputs({"n": 1})
    gc.collect(0)
    reader = Place.recorded.reader
    items = [item[1:] for item in reader.drain(FOREVER)]
    reader.release(reader.cursor)
    assert not reader.damaged, "the ring is damaged"
    assert all(kind != 0 for kind, _, _ in items), "something that is no record was recorded"
    spans = spans_in(items)
    named = all("mlflow.traceRequestId" in record.attributes for record in spans)
    assert named, "a span does not name its trace, which MLflow cannot read then"
    later = [record for record in spans if record.name == "later"]
    assert len(later) == 1, "a later span is not recorded"
    assert later[0].inputs == {"n": 1}, "a later span is not recorded as ever"
    assert later[0].parent_id is None, "a later span has a parent"


def try_all(run: Steps, name: str, progress: int) -> None:
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
                Place.recorded.spans()
            number += 1
            assert number < 20_000, "the call never passes"
        total = number
    print(json.dumps({"allocator": name, "allocations": total - 1}))


def main() -> None:
    name, progress = sys.argv[1:]
    run, *_, only_core = {**CASES, **INSTALLED_CASES}[name]
    with recording():
        for _ in range(2):  # what is done once only is done now
            attempt(run, OfNobody(), 0, 0)
            check_what_follows()
        progress_fd = os.open(progress, os.O_WRONLY | os.O_CREAT)
        for allocator in ALLOCATORS:
            if allocator == "python" and (only_core or find_spec("_testcapi") is None):
                continue  # some distributions leave that module out
            try_all(run, allocator, progress_fd)


if __name__ == "__main__":
    main()
