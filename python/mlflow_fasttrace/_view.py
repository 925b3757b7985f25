"""MLflow's entities made of what a span holds; MLflow is imported when one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import SpanEvent, SpanLogLevel, SpanStatus

    from mlflow_fasttrace._core import LiveSpan


def status(span: LiveSpan) -> SpanStatus:
    from mlflow.entities import SpanStatus, SpanStatusCode

    code, message = span._status_pair
    return SpanStatus(SpanStatusCode(code), message)


def events(span: LiveSpan) -> list[SpanEvent]:
    from mlflow.entities import SpanEvent

    return [
        SpanEvent(name=name, timestamp=time_ns, attributes=attributes)
        for name, time_ns, attributes in span._event_tuples
    ]


def log_level(span: LiveSpan) -> SpanLogLevel | None:
    from mlflow.entities import SpanLogLevel

    level = span.get_attribute("mlflow.spanLogLevel")
    return None if level is None else SpanLogLevel(level)
