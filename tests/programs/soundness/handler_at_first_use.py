"""A signal handler that traces, at lines all over a program's first use of the package and the start of recording
that comes with it: it finds the whole package, and what it records is there when recording has begun."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core

from programs.soundness.recorded import span_records

#: Every so many lines the handler runs once, in a process of its own: a prime.
STEP = 37
#: What a child says of a line that the program does not reach.
BEYOND = 100


def handle(*_: Any) -> None:
    mlflow.flush_trace_async_logging()
    with mlflow.start_span("handler", attributes={"a": 1}) as span:
        span.set_inputs({"x": 1})
        mlflow.update_current_trace(tags={"of": "the handler"})
        inner = mlflow.trace(mlflow.get_current_active_span, name="inner")()
        assert inner.parent_id == span.span_id
        assert mlflow.get_active_trace_id() == span.trace_id
    assert mlflow.get_current_active_span() is None or inner.trace_id != span.trace_id


def at_line(number: int) -> tuple[Callable[..., Any], list[str]]:
    """A trace function that sends the signal at a line of Python, and where it did."""
    lines = 0
    where: list[str] = []

    def follow(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        nonlocal lines
        if event == "line":
            lines += 1
            if lines == number:
                sys.settrace(None)
                where.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
                signal.raise_signal(signal.SIGUSR1)
                return None
        return follow

    return follow, where


def use(number: int) -> int:
    """The program's first use, interrupted at a line. Its exit code."""
    follow, where = at_line(number)
    sys.settrace(follow)
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    with mlflow.start_span("root"):
        pass
    sys.settrace(None)
    if not where:
        return BEYOND
    assert _core.current() is None, where
    found = [_core.decode(record) for record in span_records()]
    spans = {span[4]: span for span in found}
    assert sorted(span[4] for span in found) == ["handler", "inner", "root"], (spans, where)
    _, trace_id, span_id, _, _, start_ns, end_ns, *_ = spans["handler"]
    assert spans["inner"][1] == trace_id and spans["inner"][3] == span_id
    assert start_ns <= spans["inner"][5] <= spans["inner"][6] <= end_ns
    return 0


signal.signal(signal.SIGUSR1, handle)
number, code = 1, 0
while code == 0:
    pid = os.fork()
    if pid == 0:
        try:
            code = use(number)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 1
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    number += STEP
assert code == BEYOND, (code, number)
assert number > 10 * STEP, number
