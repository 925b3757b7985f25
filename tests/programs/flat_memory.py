"""Public calls, and ways of dropping a span, over and over: what they leave behind.

    python -m programs.flat_memory ROUNDS [CASE ...]

The cases are those of ``public_calls.py``, all that this Python can run where none is named. Prints a line of
JSON for each: by how much a fifth of its rounds grows what is allocated, in objects of Python's and in bytes of
the C library's, and by how much all of them do, with the files and mappings that they leave open. Of the fifths
it is the one that grows least, since a table of the interpreter's may grow in any of them, but not in all. The
counts are exact if the C library has no cache (GLIBC_TUNABLES=glibc.malloc.tcache_count=0), so that one small
object a call is seen within a few hundred calls.
"""

from __future__ import annotations

import contextvars
import ctypes
import gc
import importlib.util
import itertools
import json
import logging
import os
import sys
import time
from contextlib import suppress
from typing import Any, NamedTuple

from mlflow_fasttrace import _core

from programs.public_calls import (
    CASES,
    FOREVER,
    INSTALLED,
    INSTALLED_CASES,
    Case,
    Outcome,
    Place,
    recording,
)


class _MallocInfo(ctypes.Structure):
    """``struct mallinfo2``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


_malloc_info = ctypes.CDLL(None).mallinfo2
_malloc_info.restype = _MallocInfo


class Held(NamedTuple):
    """What this process holds, or by how much that has grown."""

    objects: int
    bytes: int
    files: int
    mappings: int

    def since(self, before: Held) -> Held:
        return Held(*(after - of for after, of in zip(self, before, strict=True)))


#: Empties the interpreter's table of type attributes, which keeps up to 4,096 names that something looked up; the
#: standard library's `match` of a node, in each traceback, leaves a new string there.
if sys.version_info >= (3, 13):
    clear_type_cache = sys._clear_internal_caches
else:
    clear_type_cache = sys._clear_type_cache


def held() -> Held:
    clear_type_cache()
    gc.collect()
    info = _malloc_info()
    with open("/proc/self/maps") as maps:
        mappings = sum(1 for _ in maps)
    return Held(
        sys.getallocatedblocks(),
        info.uordblks + info.hblkhd,
        len(os.listdir("/proc/self/fd")),
        mappings,
    )


def one_round(case: Case) -> None:
    """Makes the call once, as a program does that has memory."""
    steps = case.run()
    call = next(steps)
    try:
        outcome = Outcome(call(), None)
    except KeyError as error:
        error.__traceback__ = None
        outcome = Outcome(None, error)
    with suppress(StopIteration):
        steps.send(outcome)


def run(case: Case, rounds: int) -> None:
    """Every other round is a task's, with a context of its own that goes with it; a few look at what came of
    the call."""
    for number in range(rounds):
        Place.looks = number % 100 == 0
        if Place.looks or number % 16 == 0:
            read_all()
        if number % 2:
            contextvars.Context().run(one_round, case)
        else:
            one_round(case)
    read_all()
    Place.recorded.forget()


def read_all() -> None:
    """Reads what was recorded, as a sender does."""
    _core.end_abandoned()
    reader = Place.recorded.reader
    reader.drain(FOREVER)
    reader.release(reader.cursor)


def grown_by(case: Case, rounds: int) -> dict[str, Any]:
    """By how much a case grows what this process holds."""
    fifth = rounds // 5
    if case is CASES["set_large_inputs"]:  # a megabyte each
        fifth //= 10
    start = time.process_time()
    run(case, 400)
    at = [held()]
    for _ in range(5):
        run(case, fifth)
        at.append(held())
    fifths = [after.since(before) for before, after in itertools.pairwise(at)]
    return {
        "fifth": fifth,
        "objects": min(grown.objects for grown in fifths),
        "bytes": min(grown.bytes for grown in fifths),
        "all": at[-1].since(at[0])._asdict(),
        "seconds": round(time.process_time() - start, 2),
    }


def main() -> None:
    rounds, *names = sys.argv[1:]
    logging.disable()
    has_mlflow = importlib.util.find_spec("mlflow") is not None
    if has_mlflow:
        importlib.import_module("mlflow.tracing.distributed")
        importlib.import_module("mlflow_fasttrace.otel")
    with recording():
        for case in (CASES["encode"], CASES["set_outputs"]):  # tables of the interpreter grow
            run(case, 4000)
        gc.freeze()  # what is imported need not be looked through again and again
        for name, case in {**CASES, **(INSTALLED_CASES if INSTALLED else {})}.items():
            if (names and name not in names) or (case.needs_mlflow and not has_mlflow):
                continue
            if INSTALLED and case.own:
                continue
            print(json.dumps({"case": name, **grown_by(case, int(rounds))}), flush=True)


if __name__ == "__main__":
    main()
