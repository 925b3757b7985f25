"""The beginning of recording: the core asks at the first root where traces go, and again after a
fork and after a change of destination. Nothing here runs at other spans."""

from __future__ import annotations

import os
import threading
import time

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import hooks, log
from mlflow_fasttrace._internal.config import environment, otlp
from mlflow_fasttrace._internal.recording import destination, timeout
from mlflow_fasttrace._internal.recording.flush import flush
from mlflow_fasttrace._internal.recording.rings import rings
from mlflow_fasttrace._internal.recording.root_context import root_context
from mlflow_fasttrace._internal.recording.supervisor import supervisor

_RETRY_SECONDS = 5.0


class _Start:
    """A start that is under way or has failed."""

    def __init__(self) -> None:
        self.thread: int | None = None  # that works it out
        self.not_before = 0.0  # the next attempt, after a failure (``time.monotonic``)
        self.contexts_linked = False  # OpenTelemetry's process-wide context and the core's


_starting = _Start()


def start() -> None:
    """Answers the core where it knows no destination: sets where the traces that start from now on
    go, and sees to it that each ring has a sender.

    Threads that start their first trace at the same time wait here for the one that came first. A
    trace that starts inside (in a traced log handler, say) is not recorded.
    """
    if _starting.thread == threading.get_ident() or time.monotonic() < _starting.not_before:
        return
    with destination.chosen.lock:
        if os.getpid() != rings.pid:
            _begin_anew_after_fork()  # C code has forked: Python's handlers have not run
        if destination.chosen.in_force or environment.disabled():
            return
        _starting.thread = threading.get_ident()
        try:
            _start()
        finally:
            _starting.thread = None


def _start() -> None:
    uri, collector = destination.route()
    if not (otlp.is_collector(uri) or uri.startswith(("http://", "https://"))):
        from mlflow_fasttrace._internal.spool import database

        database.guard()
    uris = [uri] if collector is None else [uri, collector]
    try:
        first, *second = map(rings.ring_for, uris)
    except OSError as error:
        log.warn(f"Traces are not recorded: no memory for them ({error}).")
        _starting.not_before = time.monotonic() + _RETRY_SECONDS
        return
    rings.second_destinations = frozenset(uris[1:])
    described = destination.describe(uri, destination.experiment_in_force(), collector)
    root_context.experiment_of_mlflow = destination.active_in_mlflow()
    _core.set_destination(first.writer, described, *(ring.writer for ring in second))
    _core.set_sampling(environment.sampling_ratio())
    root_context.model = environment.active_model_id()
    if root_context.model is not None:
        _core.use_scopes()  # so that root_context is asked
    # With MLFLOW_ENABLE_ASYNC_TRACE_LOGGING=false a trace is on the server when it has ended.
    hooks.trace_completed.answer(None if environment.asynchronous() else flush)
    _link_contexts(environment.propagates())
    timeout.watch()
    if otlp.exports_metrics():
        log.warn(
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is set, but durations of spans are not exported."
        )
    destination.chosen.in_force = True
    for ring in (first, *second):
        supervisor.ensure_sender(ring)


def _link_contexts(linked: bool) -> None:
    if linked == _starting.contexts_linked:
        return
    from mlflow_fasttrace._internal.spans.otel_context import link_contexts

    if link_contexts(linked):
        _starting.contexts_linked = linked
    else:
        log.warn(
            "MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT has no effect: OTEL_PYTHON_CONTEXT names "
            "another context than OpenTelemetry's own."
        )


def _begin_anew_after_fork() -> None:
    """Gives a forked child rings, senders and locks of its own: all that must be made anew. Its
    parent's rings are not touched, and keep the spans that were open."""
    destination.chosen.lock = threading.RLock()  # another thread of the parent may hold it
    _starting.thread = None
    rings.forget()
    supervisor.forget()
    destination.reset()


os.register_at_fork(after_in_child=_begin_anew_after_fork)
