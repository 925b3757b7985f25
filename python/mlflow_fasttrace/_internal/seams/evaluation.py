"""``mlflow.genai.evaluate`` gives a function that is not traced a span. Whether one is, it finds out by calling it
with tracing off and counting the calls of ``NoOpTracer.start_span``, which the core does not make: it makes them
while MLflow counts."""

from __future__ import annotations

import sys
from typing import Any

from opentelemetry.trace import NoOpTracer

from mlflow_fasttrace._internal.base import hooks
from mlflow_fasttrace._internal.base.patching import replace_attribute, when_loaded

_MODULE = "mlflow.genai.utils.trace_utils"


def count_when_loaded() -> None:
    """Let MLflow's counter see the core's spans as soon as its module is loaded."""
    when_loaded(_MODULE, _count)


def _count() -> None:
    counter = getattr(sys.modules[_MODULE], "NoOpTracerPatcher", None)
    if counter is None:
        return
    begin, end = counter.__enter__, counter.__exit__

    def enter(self: Any) -> Any:
        hooks.span_left_out.answer(_start_span_of_no_tracer)
        return begin(self)

    def leave(self: Any, *raised: Any) -> Any:
        hooks.span_left_out.answer(None)
        return end(self, *raised)

    replace_attribute(counter, "__enter__", enter)
    replace_attribute(counter, "__exit__", leave)


def _start_span_of_no_tracer() -> None:
    NoOpTracer().start_span("")
