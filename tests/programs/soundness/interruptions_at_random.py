"""A signal handler raises at random moments of traced work: each exception arrives once, nothing stays open or
current. ``SOUNDNESS_MOMENTS`` says how many moments of each kind: by default there are ten thousand in all. Calls that raise are left out: Python's own
``traceback``, which makes the text of a stack trace, swallows what is raised in some of its places."""

from __future__ import annotations

import os
import random
import signal

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core

MOMENTS = int(os.environ.get("SOUNDNESS_MOMENTS", "250"))


class Alarm(Exception):
    pass


kind: type[BaseException] = Alarm
raised = 0


def handler(number, frame):
    global raised
    raised += 1
    raise kind(f"number {raised}")


class Slow:
    """A value whose conversion takes a while, as most of the work then does."""

    def __str__(self):
        return str(sum(range(50)))


@mlflow.trace
def function(value, depth=2):
    return function(value, depth - 1) if depth else value


@mlflow.trace
async def coroutine(value, depth=2):
    return await coroutine(value, depth - 1) if depth else value


@mlflow.trace
def generator(value):
    for _ in range(3):
        yield value


@mlflow.trace
async def async_generator(value):
    for _ in range(3):
        yield value


async def exhaust(value):
    async for _ in async_generator(value):
        pass


def scope(value):
    with mlflow.start_span("scope", attributes={"a": value}) as span:
        span.set_inputs(value)
        span.set_outputs([value])


def driven(awaitable) -> None:
    """Runs a coroutine without an event loop: none of its code is to be interrupted."""
    try:
        while True:
            awaitable.send(None)
    except StopIteration:
        pass
    finally:
        awaitable.close()


WAYS = {
    "sync": function,
    "async": lambda value: driven(coroutine(value)),
    "generator": lambda value: list(generator(value)),
    "async generator": lambda value: driven(exhaust(value)),
    "scope": scope,
}


def work(way, value) -> None:
    for _ in range(5):
        way(value)
    # Functions of their own: the jump of a loop in a try block is not covered by the block in Python 3.13.
    while True:
        settle()


def settle() -> None:
    """A call, at which Python looks for signals."""


def moment(way, value) -> None:
    before = raised
    caught = 0
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 200e-6))
        work(way, value)
    except kind:
        caught = 1
    assert (raised - before, caught) == (1, 1), (way, raised - before, caught)
    assert _core.current() is None, way


for way in WAYS.values():
    way(1)  # the first span imports modules, and the import system itself swallows an OSError
signal.signal(signal.SIGALRM, handler)
for value in (1, Slow()):
    for name, way in WAYS.items():
        for one in (Alarm, TimeoutError, KeyboardInterrupt, SystemExit):
            kind = one
            for _ in range(MOMENTS):
                moment(way, value)
            _core.end_abandoned()
            assert not _core.live_traces(), name
