"""Reading after writing: MLflow's functions that wait until what was recorded is delivered, and the store
that waits before something is read."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracing import assessment
from mlflow.tracing.client import TracingClient
from mlflow.tracing.processor import base_mlflow

from mlflow_fasttrace import _core, traces
from mlflow_fasttrace._internal.base.patching import original
from mlflow_fasttrace._internal.recording import flush
from mlflow_fasttrace._internal.recording.supervisor import supervisor

#: Methods of the client that ask the store for nothing that this process may still hold.
_WRITES = frozenset({"__init__", "start_trace", "log_spans"})

#: The getter of ``TracingClient.store``, which leads here.
store_getter: Any = vars(TracingClient)["store"].fget


def store(self: TracingClient) -> Any:
    """``TracingClient.store``: what was recorded before a method asks for it can be read."""
    caller = sys._getframe(2).f_code.co_name  # the frame between is MLflow's property
    if caller not in _WRITES and not supervisor.is_sender_thread():
        flush.before_reading(self.tracking_uri)
    return original(store_getter)(self)


def span_ids(trace_id: str) -> list[str]:
    """``mlflow.tracing.assessment._get_trace_span_ids``: of a trace in flight, too, all spans that it has so far."""
    if (trace := _core.live_trace(trace_id)) is None:
        return original(assessment._get_trace_span_ids)(trace_id)  # type: ignore[attr-defined]  # from 3.18 on
    # These first: what ends afterwards is delivered by the flush.
    found = {span.span_id for span in trace.spans()}
    flush.flush()
    with contextlib.suppress(MlflowException):  # nothing of it is delivered
        found.update(span.span_id for span in TracingClient().get_trace(trace_id).data.spans)
    return list(found)


def flush_pending(terminate: bool = False) -> None:
    """``mlflow.tracing.fluent._flush_pending_async_trace_writes``."""
    flush.flush()
    _flush_mlflows_own(terminate)


def flush_trace_async_logging(terminate: bool = False) -> None:
    """``mlflow.flush_trace_async_logging``."""
    traces.flush_trace_async_logging(terminate)
    _flush_mlflows_own(terminate)


def _flush_mlflows_own(terminate: bool) -> None:
    """Flush what MLflow's own code recorded before the core was there, or records for a test."""
    if base_mlflow._batch_processor_registry:
        base_mlflow.flush_all_batch_processors(terminate=terminate)
