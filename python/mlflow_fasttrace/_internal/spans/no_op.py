"""The span that a program holds where nothing is recorded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Span as OtelSpan

    from mlflow_fasttrace._core import NonRecordingSpan

NO_OP_SPAN_TRACE_ID = "MLFLOW_NO_OP_SPAN_TRACE_ID"


class NoOpSpan:
    """A span that takes everything and keeps nothing, as MLflow's of that name.

    Args:
        non_recording: What is made current where this span is: the core's non-recording span, or None
            where nothing is.

    Example:
        >>> from mlflow_fasttrace.entities import NoOpSpan
        >>> span = NoOpSpan()
        >>> span.set_inputs({"question": "why?"})
        >>> span.inputs is None, span.trace_id
        (True, 'MLFLOW_NO_OP_SPAN_TRACE_ID')
    """

    __module__ = "mlflow_fasttrace.entities"  # pickles name the public place

    trace_id = request_id = NO_OP_SPAN_TRACE_ID
    span_id = name = start_time_ns = end_time_ns = parent_id = status = context = None
    inputs = outputs = span_type = description = log_level = model_name = llm_cost = None
    _trace_id = None

    def __init__(self, non_recording: NonRecordingSpan | None = None):
        self._non_recording = non_recording

    @property
    def attributes(self) -> dict[str, Any]:
        """No attributes, whatever was set."""
        return {}

    @property
    def events(self) -> list[Any]:
        """No events, whatever was added."""
        return []

    @property
    def links(self) -> list[Any]:
        """No links, whatever was added."""
        return []

    @property
    def _span(self) -> OtelSpan:
        from opentelemetry.trace import INVALID_SPAN

        return INVALID_SPAN

    @property  # type: ignore[misc]  # object's can be written
    def __class__(self) -> type:
        # isinstance(span, NoOpSpan) holds for MLflow's class too, once it is loaded.
        return getattr(sys.modules.get("mlflow.entities"), "NoOpSpan", NoOpSpan)

    def _ignore(self, *args: Any, **kwargs: Any) -> None:
        pass

    set_inputs = set_outputs = set_attribute = set_attributes = set_status = _ignore
    set_span_type = set_description = set_log_level = _ignore
    add_event = add_link = record_exception = end = get_attribute = _ignore

    __iter__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (NoOpSpan, ())

    def __repr__(self) -> str:
        return f"NoOpSpan(name=None, trace_id={self.trace_id!r}, span_id=None, parent_id=None)"


#: The one that serves wherever tracing is off: it holds nothing.
NO_OP_SPAN = NoOpSpan()
