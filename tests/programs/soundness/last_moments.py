"""Traced calls from finalizers while Python shuts down: at its very end, and in a garbage collection that
clears what is traced. The process ends as it would untraced."""

from __future__ import annotations

import subprocess
import sys

AT_THE_END = """
import contextvars, sys
import mlflow_fasttrace as mlflow

class Connection:
    @mlflow.trace
    def close(self):
        with mlflow.start_span("inside") as span:
            if span is not None:
                span.set_inputs({1: object()})
        return "closed"

    @mlflow.trace
    def items(self):
        yield object()

    def __del__(self):
        assert self.close() == "closed"
        for item in self.items():
            pass

class Slotted:
    __slots__ = ("connection",)
    def __del__(self):
        self.connection.close()

held = contextvars.ContextVar("held")
held.set(Connection())
module_global = Connection()
slotted = Slotted()
slotted.connection = Connection()
Connection().close()
sys.modules["kept by sys.modules"] = Connection()
sys.kept_by_sys = Connection()
"""

IN_A_COLLECTION = """
import gc
import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core

class NotTracked:
    __slots__ = ()
    def __del__(self):
        for call in calls:
            try:
                call()
            except (RuntimeError, TypeError):
                pass

calls = []
for _ in range(50):
    @mlflow.trace
    def function():
        return 1

    @mlflow.trace
    def stream():
        yield 1

    items = stream()
    next(items)
    cycle = [function, stream, items]
    cycle.append(cycle)
    function.cycle = cycle
    inner = _core.Traced(lambda: 1, "inner", [], None, None)
    box = [inner, NotTracked()]
    box.append(box)
    calls[:] = [inner, function]
    del cycle, box, inner, function, stream, items
    gc.collect()
calls.clear()
gc.collect()

# A copy of the module whose state the collector has cleared.
import importlib.util, sys
for _ in range(5):
    spec = importlib.util.spec_from_file_location("mlflow_fasttrace._core", _core.__file__)
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    traced = other.Traced(lambda: 1, "other", [], None, None)
    assert traced() == 1
    del other, spec
    gc.collect()
    assert traced() == 1
"""


def ends_well(program: str) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True
    )
    assert result.returncode == 0, (result.returncode, result.stderr[-3000:])
    assert "AssertionError" not in result.stderr and "SystemError" not in result.stderr, (
        result.stderr[-3000:]
    )


ends_well(AT_THE_END)
ends_well(IN_A_COLLECTION)
