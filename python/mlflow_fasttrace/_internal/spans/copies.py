"""An open span made of one that has ended."""

from __future__ import annotations

from typing import Any

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log
from mlflow_fasttrace._internal.spans.no_op import NO_OP_SPAN

_TRACE_ID = "mlflow.traceRequestId"


def copy_contents(span: Any, clone: Any) -> None:
    clone.set_status(span.status)
    clone.set_attributes({k: v for k, v in span.attributes.items() if k != _TRACE_ID})
    if span.inputs:
        clone.set_inputs(span.inputs)
    if span.outputs:
        clone.set_outputs(span.outputs)
    for event in span.events:
        clone.add_event(event)
    if span.links:
        log.logger.warning(
            "Span links on span '%s' will not be retained when copying to a new trace because link "
            "trace IDs may not resolve in the destination trace context.",
            span.name,
        )


def clone_span(
    span: Any,
    parent_span_id: str | None = None,
    trace_id: str | None = None,
    experiment_id: str | None = None,
    otel_trace_id: str | None = None,
) -> Any:
    """``LiveSpan.from_immutable_span``: an open span that holds what the other one holds.

    Args:
        span: The span to copy, with its id.
        parent_span_id: Id of the span above it in that trace.
        trace_id: Id of the trace, of this process and in flight, that it joins.
        experiment_id: Where it goes if it begins a trace.
        otel_trace_id: Accepted as MLflow does; the trace's id decides.
    """
    trace = None if trace_id is None else _core.live_trace(trace_id)
    spans = [] if trace is None else trace.spans()
    parent = next((one for one in spans if one.span_id == parent_span_id), None)
    experiment = None if experiment_id is None else str(experiment_id)
    clone = _core.start_span(
        span.name, parent, experiment, span.start_time_ns, int(span.span_id, 16), None
    )
    if type(clone) is not _core.LiveSpan:
        return NO_OP_SPAN
    copy_contents(span, clone)
    return clone
