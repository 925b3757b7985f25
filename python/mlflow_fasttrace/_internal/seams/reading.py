"""Reading after writing: MLflow's functions that wait until what was recorded is delivered, and the store
that waits before something is read."""

from __future__ import annotations

import sys
from typing import Any

from mlflow.tracing.client import TracingClient
from mlflow.tracing.processor import base_mlflow

from mlflow_fasttrace import traces
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
