"""What a program holds where its span is not recorded."""

from __future__ import annotations

import sys
from typing import Any

NO_OP_SPAN_TRACE_ID = "MLFLOW_NO_OP_SPAN_TRACE_ID"


class NoOpSpan:
    """What a program holds where its span is not recorded: takes everything, keeps nothing."""

    trace_id = request_id = NO_OP_SPAN_TRACE_ID
    span_id = name = start_time_ns = end_time_ns = parent_id = status = context = None
    inputs = outputs = span_type = description = log_level = model_name = llm_cost = None
    _trace_id = None

    def __init__(self, non_recording: Any = None):
        #: What is made current where this span is: nothing, or the core's non-recording span.
        self._non_recording = non_recording

    @property
    def attributes(self) -> dict[str, Any]:
        return {}

    @property
    def events(self) -> list[Any]:
        return []

    @property
    def links(self) -> list[Any]:
        return []

    @property
    def _span(self) -> Any:
        from opentelemetry.trace import INVALID_SPAN

        return INVALID_SPAN

    @property
    def __class__(self) -> type:
        # isinstance(span, NoOpSpan) holds for MLflow's class too, once it is loaded.
        module = sys.modules.get("mlflow.entities.span")
        return getattr(module, "NoOpSpan", NoOpSpan)

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


#: It holds nothing, so one serves wherever tracing is off.
NO_OP_SPAN = NoOpSpan()
