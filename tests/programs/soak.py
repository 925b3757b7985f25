"""A program of the soak (``support/soak.py``): it records traces of one kind until its stdin is closed, and notes each
in a file once its root has ended: that file outlives the program.

    python -m programs.soak KIND FILE
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import mlflow_fasttrace as mlflow

ended = threading.Event()
chance = random.Random()


def note(file: int, trace_id: str, spans: int) -> None:
    """One write, which is there whole or not at all."""
    os.write(file, f"{trace_id} {spans} {time.monotonic()}\n".encode())


def text() -> str:
    return "x" * chance.choice((10, 300, 5000))


def trace_id() -> str:
    return mlflow.get_current_active_span().trace_id


@mlflow.trace(span_type="CHAT_MODEL")
def call(content: str) -> str:
    """What a trace's tokens are counted by: 11, once."""
    usage = {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11}
    mlflow.get_current_active_span().set_attribute("mlflow.chat.tokenUsage", usage)
    return content


@mlflow.trace
def step(content: str) -> str:
    return content


@mlflow.trace
async def async_step(content: str) -> str:
    await asyncio.sleep(chance.uniform(0, 0.01))
    return content


@mlflow.trace
def stream(content: str) -> Iterator[str]:
    for _ in range(10):
        yield content


@mlflow.trace
async def async_stream(content: str) -> AsyncIterator[str]:
    for _ in range(5):
        await asyncio.sleep(0)
        yield content


# ---- the kinds: each function is a trace, and returns its id and how many spans it has ----


@mlflow.trace
def over_threads(pool: ThreadPoolExecutor) -> tuple[str, int]:
    steps = [pool.submit(contextvars.copy_context().run, step, text()) for _ in range(3)]
    for one in steps:
        one.result()
    call(text())
    return trace_id(), 5


@mlflow.trace
async def over_tasks() -> tuple[str, int]:
    await asyncio.gather(*(async_step(text()) for _ in range(5)))
    call(text())
    return trace_id(), 7


@mlflow.trace
async def over_streams() -> tuple[str, int]:
    for _ in stream(text()):
        pass
    left = stream(text())
    next(left)
    left.close()
    async for _ in async_stream(text()):
        pass
    call(text())
    return trace_id(), 5


@mlflow.trace
def chain() -> tuple[str, int]:
    for _ in range(8):
        step(text())
    call(text())
    return trace_id(), 10


def threads(file: int) -> None:
    def one() -> None:
        with ThreadPoolExecutor(3) as pool:
            while not ended.wait(1.0):
                note(file, *over_threads(pool))

    started = [threading.Thread(target=one) for _ in range(3)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def tasks(file: int) -> None:
    async def one() -> None:
        while not ended.is_set():
            note(file, *await over_tasks())
            await asyncio.sleep(1.0)

    async def several() -> None:
        await asyncio.gather(*(one() for _ in range(3)))

    asyncio.run(several())


def generators(file: int) -> None:
    async def one() -> None:
        while not ended.is_set():
            note(file, *await over_streams())
            await asyncio.sleep(0.5)

    asyncio.run(one())


def bursts(file: int) -> None:
    while True:
        for _ in range(30):
            note(file, *chain())
        if ended.wait(10.0):
            return


KINDS: dict[str, Callable[[int], None]] = {
    kind.__name__: kind for kind in (threads, tasks, generators, bursts)
}


def until_stdin_is_closed() -> None:
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    kind, name = sys.argv[1:]
    threading.Thread(target=until_stdin_is_closed, daemon=True).start()
    KINDS[kind](os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
