"""What is current is right after every failure: a context variable that cannot be put back, spans that are
left in another task or thread, out of order, or never."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core


def root_is_new() -> None:
    assert mlflow.get_current_active_span() is None
    with mlflow.start_span("root") as span:
        assert span.parent_id is None


def at_the_recursion_limit() -> None:
    @mlflow.trace
    def deep(n):
        with mlflow.start_span("scope"):
            return deep(n + 1)

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(150)  # each level shows the traceback of all levels inside it
    for _ in range(2):
        try:
            deep(0)
        except RecursionError:
            pass
        root_is_new()
    limit = sys.getrecursionlimit()

    def fill_up(n, leaf):
        if n == 0:
            try:
                leaf()
            except RecursionError:
                pass
        else:
            fill_up(n - 1, leaf)

    @mlflow.trace
    def leaf():
        return None

    with mlflow.start_span("outer") as outer:
        for left in range(60):
            try:
                fill_up(limit - left, leaf)
            except RecursionError:
                pass
            assert mlflow.get_current_active_span() is outer, left
    sys.setrecursionlimit(before)


def left_in_another_thread() -> None:
    scope = mlflow.start_span("here")
    span = scope.__enter__()
    thread = threading.Thread(target=scope.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert span.end_time_ns is not None
    root_is_new()
    with mlflow.start_span("outer") as outer:
        scope = mlflow.start_span("inner")
        scope.__enter__()
        thread = threading.Thread(target=scope.__exit__, args=(None, None, None))
        thread.start()
        thread.join()
        assert mlflow.get_current_active_span() is outer
    root_is_new()


def left_in_another_task() -> None:
    async def main():
        scope = mlflow.start_span("in the first task")
        scope.__enter__()

        async def leave():
            scope.__exit__(None, None, None)
            assert mlflow.get_current_active_span() is None

        await asyncio.create_task(leave())
        root_is_new()

    asyncio.run(main())
    root_is_new()


def a_late_child_belongs_to_its_parent() -> None:
    """A task that was started inside a span goes on after it, as in MLflow."""
    found = []

    async def late(gate):
        await gate.wait()
        with mlflow.start_span("late") as span:
            found.append(span.parent_id)

    async def main():
        gate = asyncio.Event()
        with mlflow.start_span("parent") as parent:
            task = asyncio.create_task(late(gate))
            await asyncio.sleep(0)
        gate.set()
        await task
        assert found == [parent.span_id]

    asyncio.run(main())


def a_reset_that_fails() -> None:
    """The token has been used: somebody else has put the variable back."""
    scope = mlflow.start_span("taken out by hand")
    span = scope.__enter__()
    token = _core.current_span_var.set(span)
    _core.current_span_var.reset(token)
    other = contextvars.copy_context()
    other.run(scope.__exit__, None, None, None)
    root_is_new()


def generators_that_drive_one_another() -> None:
    @mlflow.trace
    def first():
        while True:
            yield next(partner["second"], None)

    @mlflow.trace
    def second():
        while True:
            yield 1

    for _ in range(20):
        partner = {"first": first(), "second": second()}
        for _ in range(3):
            next(partner["first"])
        partner["second"].close()
        partner["first"].close()
        partner.clear()
        gc.collect()
        root_is_new()

    @mlflow.trace
    async def async_first(box):
        while True:
            with mlflow.start_span("inside"):
                yield await box["second"].asend(None)

    @mlflow.trace
    async def async_second(box):
        while True:
            yield 1

    async def drive():
        box = {}
        box["first"], box["second"] = async_first(box), async_second(box)
        for _ in range(3):
            await box["first"].asend(None)
        await box["second"].aclose()
        await box["first"].aclose()
        root_is_new()

    for _ in range(20):
        asyncio.run(drive())
    root_is_new()


def generators_left_in_other_contexts() -> None:
    @mlflow.trace
    def items():
        with mlflow.start_span("inside"):
            yield 1
            yield 2

    for _ in range(20):
        iterator = items()
        contextvars.copy_context().run(next, iterator)
        contextvars.copy_context().run(next, iterator)
        iterator.close()
        root_is_new()
        iterator = items()
        next(iterator)
        thread = threading.Thread(target=iterator.close)
        thread.start()
        thread.join()
        _core.current_span_var.set(None)
        root_is_new()


for check in (
    at_the_recursion_limit,
    left_in_another_thread,
    left_in_another_task,
    a_late_child_belongs_to_its_parent,
    a_reset_that_fails,
    generators_that_drive_one_another,
    generators_left_in_other_contexts,
):
    check()
