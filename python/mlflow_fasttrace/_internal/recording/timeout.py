"""MLFLOW_TRACE_TIMEOUT_SECONDS: traces that take longer are ended with an error.

A thread looks for them, only in processes that set the variable.
"""

from __future__ import annotations

import os
import threading
import time

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log

_thread_pid: int | None = None


def _seconds(name: str) -> float | None:
    text = os.environ.get(name)
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        log.warn(f"{name} is no number of seconds: {text!r}; it is ignored.")
        return None
    return seconds if seconds > 0 else None


def watch() -> None:
    """Starts the thread where the environment asks for it and it is not running yet."""
    global _thread_pid
    timeout = _seconds("MLFLOW_TRACE_TIMEOUT_SECONDS")
    if timeout is None or _thread_pid == os.getpid():
        return
    interval = _seconds("MLFLOW_TRACE_TIMEOUT_CHECK_INTERVAL_SECONDS") or 1.0
    _thread_pid = os.getpid()
    threading.Thread(
        target=_watch, args=(timeout, interval), name="mlflow-fasttrace-timeout", daemon=True
    ).start()


def _watch(timeout: float, interval: float) -> None:
    since: dict[str, float] = {}  # when a trace was first seen
    while True:
        now = time.monotonic()
        live = {trace.trace_id: trace for trace in _core.live_traces()}
        since = {trace_id: since.get(trace_id, now) for trace_id in live}
        for trace_id, trace in live.items():
            if now - since[trace_id] >= timeout:
                _end(trace, timeout)
        del live
        time.sleep(interval)


def _end(trace: _core.Trace, timeout: float) -> None:
    root = next((span for span in trace.spans() if span.parent_id is None), None)
    if root is None or root.end_time_ns is not None:
        return
    from mlflow.entities import SpanEvent
    from mlflow.exceptions import MlflowTracingException

    message = (
        f"Trace {root.trace_id} is timed out after {timeout:g} seconds. The operation may be stuck "
        "or taking too long to complete. To increase the timeout, set the environment variable "
        "MLFLOW_TRACE_TIMEOUT_SECONDS to a larger value."
    )
    root.set_status("ERROR")
    root.add_event(SpanEvent.from_exception(MlflowTracingException(message)))
    root.end()
    log.logger.info("%s You can find the aborted trace in the MLflow UI.", message)
