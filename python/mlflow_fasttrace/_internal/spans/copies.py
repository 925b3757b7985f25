"""An open span made of one that has ended. The C core calls ``clone_span`` by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log
from mlflow_fasttrace._internal.spans.no_op import NO_OP_SPAN, NoOpSpan

if TYPE_CHECKING:
    from mlflow.entities import Span

    from mlflow_fasttrace._core import LiveSpan

#: The attribute that holds the id of a span's own trace.
TRACE_ID_KEY = "mlflow.traceRequestId"


def copy_contents(span: Span, clone: LiveSpan) -> None:
    """Give an open span what another one holds: status, attributes, inputs, outputs and events. Links stay
    behind, with a log line, as in MLflow.

    Args:
        span: The span that is read.
        clone: The open span.
    """
    clone.set_status(span.status)
    clone.set_attributes({k: v for k, v in span.attributes.items() if k != TRACE_ID_KEY})
    if span.inputs:
        clone.set_inputs(span.inputs)
    if span.outputs:
        clone.set_outputs(span.outputs)
    for event in span.events:
        clone.add_event(event)
    if getattr(span, "links", None):  # MLflow has them from 3.13 on
        log.logger.warning(
            "Span links on span '%s' will not be retained when copying to a new trace because link "
            "trace IDs may not resolve in the destination trace context.",
            span.name,
        )


def clone_span(
    span: Span,
    parent_span_id: str | None = None,
    trace_id: str | None = None,
    experiment_id: str | None = None,
    otel_trace_id: str | None = None,
) -> LiveSpan | NoOpSpan:
    """``LiveSpan.from_immutable_span``: an open span that holds what the other one holds.

    Args:
        span: The span to copy, with its id.
        parent_span_id: Id of the span above it in that trace.
        trace_id: Id of the trace, of this process and in flight, that it joins.
        experiment_id: Id of the experiment of the trace, if the span begins one.
        otel_trace_id: Accepted as MLflow does; the trace's id decides.

    Returns:
        The open span; one that records nothing where tracing is off.
    """
    trace = None if trace_id is None else _core.live_trace(trace_id)
    spans = [] if trace is None else trace.spans()
    parent = next((one for one in spans if one.span_id == parent_span_id), None)
    experiment = None if experiment_id is None else str(experiment_id)
    clone = _core.start_span(
        span.name, parent, experiment, span.start_time_ns, int(span.span_id, 16), None
    )
    if not isinstance(clone, _core.LiveSpan):
        return NO_OP_SPAN
    copy_contents(span, clone)
    return clone
