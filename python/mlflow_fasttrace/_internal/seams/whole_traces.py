"""Whole traces for those who look at a trace when it has ended: notebooks that show it, MLflow's
evaluation, and programs that put a function of their own in the place of one that exports."""

from __future__ import annotations

from typing import Any

import mlflow.tracing.fluent
from mlflow.entities import Trace, TraceData, TraceState
from mlflow.tracing.client import TracingClient
from mlflow.tracing.utils.truncation import set_request_response_preview

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import flush
from mlflow_fasttrace._internal.seams import notebook
from mlflow_fasttrace._internal.seams.trace_manager import info_of, state_of

_members_of_client = vars(TracingClient)  # a view: what a program puts there is seen
_own_start_trace = TracingClient.start_trace
_own_log_spans = TracingClient.log_spans


def wants_whole() -> bool:
    """Whether the trace that begins now is handed out whole when it is complete. A trace of MLflow's
    evaluation always is: ``root_context.py`` decides that by its tag."""
    return (
        _members_of_client["start_trace"] is not _own_start_trace
        or _members_of_client["log_spans"] is not _own_log_spans
        or notebook.shows_traces()
    )


def whole_trace_ended(trace: _core.Trace, spans: list[_core.LiveSpan]) -> None:
    """Hand a complete trace to those who want it. The core calls it.

    Args:
        trace: The trace.
        spans: Its spans, all ended; at least one.
    """
    info = trace.info or info_of(trace)
    spans = sorted(spans, key=lambda span: span.start_time_ns)
    data = TraceData([span.to_immutable_span() for span in spans])
    root = next((span for span in spans if span.parent_id is None), spans[0])
    if info.state == TraceState.IN_PROGRESS:
        info.state = state_of(trace, TraceState.OK)
    info.request_time = root.start_time_ns // 1_000_000
    info.execution_duration = ((root.end_time_ns or 0) - root.start_time_ns) // 1_000_000
    set_request_response_preview(info, data)
    if request_id := info.tags.get("mlflow.eval.requestId"):
        flush.flush()  # evaluation reads the trace from the server
        mlflow.tracing.fluent._EVAL_REQUEST_ID_TO_TRACE_ID[request_id] = info.trace_id
    else:
        notebook.show(Trace(info, data))
    client: Any = TracingClient
    if client.log_spans is not _own_log_spans:
        client().log_spans(info.experiment_id, data.spans)
    if client.start_trace is not _own_start_trace:
        client().start_trace(info)
