"""MLFLOW_TRACE_TIMEOUT_SECONDS: traces that take longer are ended with an error.

A thread looks for them, only in processes that set the variable.
"""

from __future__ import annotations

import threading

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import clock, log, patching
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.config import environment

_thread_pid: int | None = None  # the process that has the thread; a forked child has none


def watch() -> None:
    """Starts the thread where the environment asks for it and it is not running yet.

    Raises:
        RuntimeError: no thread can be started.
    """
    global _thread_pid
    timeout = environment.trace_timeout_seconds()
    if timeout is None or _thread_pid == os.getpid():
        return
    interval = environment.trace_timeout_interval_seconds()
    threading.Thread(
        target=_watch, args=(timeout, interval), name="mlflow-fasttrace-timeout", daemon=True
    ).start()
    _thread_pid = os.getpid()  # last: where the thread cannot be started the next start tries again


def _watch(timeout: float, interval: float) -> None:
    first_seen: dict[str, float] = {}  # by trace id (``clock.monotonic``)
    while True:
        try:
            first_seen = _look(first_seen, timeout)
        except Exception as error:
            let_pass(error)
            log.warn(f"Traces that take too long could not be ended ({error}). It is tried again.")
        clock.sleep(interval)


def _look(seen: dict[str, float], timeout: float) -> dict[str, float]:
    """Ends what has taken too long. A function of its own, so that no trace is kept alive between
    two looks.

    Args:
        seen: When each trace was first seen, by its id.

    Returns:
        When each live trace was first seen.
    """
    now = clock.monotonic()
    live = {trace.trace_id: trace for trace in _core.live_traces()}
    first_seen = {trace_id: seen.get(trace_id, now) for trace_id in live}
    for trace_id, trace in live.items():
        if now - first_seen[trace_id] >= timeout:
            _end(trace, timeout)
    return first_seen


def _end(trace: _core.Trace, timeout: float) -> None:
    root = next((span for span in trace.spans() if span.parent_id is None), None)
    if root is None or root.end_time_ns is not None:
        return
    patching.wait_for_mlflow()
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
