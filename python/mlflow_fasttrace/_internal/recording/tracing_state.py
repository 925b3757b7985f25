"""What the functions of ``tracing.py`` set for the whole process, besides destinations: span processors, and the
calls that keep tracing off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlflow_fasttrace._internal.base import hooks, log
from mlflow_fasttrace._internal.base.interruptions import let_pass

if TYPE_CHECKING:
    from mlflow_fasttrace._core import LiveSpan

#: Changes a span before it leaves the process; its result is ignored.
SpanProcessor = Callable[[Any], None]

#: Those in force; replaced by ``use_span_processors``, never changed.
span_processors: list[SpanProcessor] = []
#: The calls of functions with ``trace_disabled`` that run.
disabling: set[object] = set()


def use_span_processors(processors: list[SpanProcessor]) -> None:
    """Have every span pass through these functions, and no others, before it leaves the process."""
    global span_processors
    span_processors = processors
    hooks.process_span.answer(_process if processors else None)


def _name(processor: SpanProcessor) -> str:
    """The name of a span processor in log lines."""
    return getattr(processor, "__name__", type(processor).__name__)


def _process(span: LiveSpan) -> None:
    """Let every span processor see a span. The core calls it when the span ends."""
    returned = []
    for processor in span_processors:
        try:
            if processor(span) is not None:
                returned.append(_name(processor))
        except Exception as error:
            let_pass(error)
            log.warn(f"Span processor {_name(processor)} failed: {error}")
    if returned:
        log.warn(
            f"Span processors {returned} returned a non-null value, but it will be ignored. Span "
            "processors should not return a value."
        )
