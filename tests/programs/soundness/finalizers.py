"""Finalizers that trace, run by a garbage collection in the middle of a change of the context: before Python
3.12 any allocation can start one. Spans inside of one another keep their order there."""

from __future__ import annotations

import contextvars
import gc
import sys

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core

closed = 0
variables = [contextvars.ContextVar(f"variable {i}") for i in range(40)]


class Connection:
    def __init__(self):
        self.me = self

    @mlflow.trace
    def close(self):
        outer = mlflow.get_current_active_span()
        for _ in self.items():
            assert mlflow.get_current_active_span() is outer
        with mlflow.start_span("inside") as span:
            if outer is not None and span.end_time_ns is None:
                assert span.parent_id == outer.span_id
                assert mlflow.get_current_active_span() is span
        assert mlflow.get_current_active_span() is outer
        return "closed"

    @mlflow.trace
    def items(self):
        yield mlflow.get_current_active_span()
        yield 2

    def __del__(self):
        global closed
        current = mlflow.get_current_active_span()
        assert self.close() == "closed"
        assert mlflow.get_current_active_span() is current
        closed += 1


@mlflow.trace
def work(n):
    before = mlflow.get_current_active_span()
    Connection()
    for variable in variables:
        variable.set([n])
    with mlflow.start_span("scope"):
        Connection()
    assert mlflow.get_current_active_span() is before


def current_after(allocations: int):
    """What is current after a span in a context of its own, where a collection runs at that allocation since
    its start: in the middle of the variable's reset(), for some."""
    for variable in variables:
        variable.set(0)
    gc.disable()
    gc.collect()
    Connection()
    before = gc.get_threshold()
    with mlflow.start_span("scope"):
        gc.set_threshold(allocations)
        gc.enable()
    gc.set_threshold(*before)
    return mlflow.get_current_active_span()


unraisable = []
sys.unraisablehook = unraisable.append
work(0)
before = gc.get_threshold()
gc.set_threshold(1, 1, 1)
for n in range(300):
    contextvars.copy_context().run(work, n)
gc.set_threshold(*before)
gc.collect()
for allocations in range(1, 300):
    assert contextvars.Context().run(current_after, allocations) is None, allocations
assert not unraisable, unraisable[0]
assert closed > 500, closed
assert _core.current() is None
