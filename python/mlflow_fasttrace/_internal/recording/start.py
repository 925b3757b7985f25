"""The beginning of recording: the core asks at the first root where traces go, and again after a
fork and after a change of destination. Nothing here runs at other spans."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import clock, hooks, locks, log
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.config import engine, environment, otlp
from mlflow_fasttrace._internal.config.experiments import why_impossible
from mlflow_fasttrace._internal.config.uris import why_no_store
from mlflow_fasttrace._internal.recording import changes, destination, timeout
from mlflow_fasttrace._internal.recording.flush import flush
from mlflow_fasttrace._internal.recording.rings import Ring, rings
from mlflow_fasttrace._internal.recording.root_context import root_context
from mlflow_fasttrace._internal.recording.supervisor import supervisor
from mlflow_fasttrace._internal.spool import file_locks, places

#: Seconds that a thread waits for another one's start at most; then its trace is not recorded. The
#: other one may wait for an import that this thread is in the middle of.
_WAIT_SECONDS = 10.0
#: After a second failure in a row so many times the seconds that it took pass before the next
#: attempt: at most a twentieth of a thread's time goes into attempts, and a cause that goes away is
#: noticed within milliseconds.
_PAUSE_TIMES = 20.0
_LONGEST_PAUSE_SECONDS = 5.0
#: Attempts to work out where traces go while other threads choose anew.
_ATTEMPTS = 10


class _Start:
    """A start that is under way or has failed."""

    def __init__(self) -> None:
        #: Held while one thread works it out.
        self.lock = locks.Lock()
        self.thread: int | None = None  # that works it out
        #: In a forked child, which has one thread: what the parent chose is about to be forgotten.
        self.forgets = False
        self.failures = 0  # in a row
        self.not_before = 0.0  # the next attempt, after a failure (``clock.monotonic``)
        self.contexts_linked = False  # OpenTelemetry's process-wide context and the core's


_starting = _Start()


def start() -> bool:
    """Answers the core where it knows no destination: sets where the traces that start from now on
    go, and sees to it that each ring has a sender.

    Threads that start their first trace at the same time wait here for the one that came first. A
    trace that starts inside (in a signal handler, say) is recorded when the start is over. Where it fails,
    one warning a minute says why, and a later root tries again.

    Returns:
        Whether this thread is in the middle of a start, or of other code that another thread's start may
        wait for: a finalizer, a signal's or a log handler calls.
    """
    if _starting.forgets or _starting.thread == threading.get_ident():
        return True
    began = clock.monotonic()
    if began < _starting.not_before:
        return False
    if os.getpid() != rings.pid:
        # C code has forked: Python's handlers have not run.
        locks.after_fork()
        file_locks.after_fork()
        places.forget()
        _begin_anew_after_fork()
    may_wait = not locks.is_held()
    try:
        engine.settle()
        engine.say_what_came_late()
        if not _starting.lock.acquire(timeout=_WAIT_SECONDS if may_wait else 0):
            if may_wait:
                log.warn(
                    "Another thread takes long to begin recording; this thread's traces are lost."
                )
            return not may_wait
        if destination.chosen.in_force or environment.disabled():
            return False
        _starting.thread = threading.get_ident()
        try:
            _start()
        finally:
            _starting.thread = None
        _starting.failures = 0
    except Exception as error:
        let_pass(error)
        _note_failure(clock.monotonic() - began, error)
    finally:
        try:
            _starting.lock.release()
        except RuntimeError as error:  # it was not taken
            let_pass(error)
    if may_wait and destination.chosen.in_force:
        _core.end_abandoned()  # what started and ended in the meantime
    return False


def _note_failure(seconds: float, error: Exception) -> None:
    """Says why nothing is recorded, and when the next attempt may be: at once after a first failure."""
    _starting.failures += 1
    if _starting.failures > 1:
        pause = min(seconds * _PAUSE_TIMES, _LONGEST_PAUSE_SECONDS)
        _starting.not_before = clock.monotonic() + pause
    what = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    log.warn(f"Traces are not recorded ({what}). It is tried again.")


def _start() -> None:
    """Works out where traces go and tells the core, which records from then on.

    Raises:
        Exception: of any kind; nothing is recorded then.
    """
    # First what holds for traces that start in the middle of this, too.
    _core.set_sampling(environment.sampling_ratio())
    root_context.model = environment.active_model_id()
    if root_context.model is not None:
        _core.use_scopes()  # so that root_context is asked
    for _ in range(_ATTEMPTS):
        generation = destination.chosen.generation
        first, second, described = _worked_out()
        root_context.experiment_of_mlflow = destination.active_in_mlflow()
        # With MLFLOW_ENABLE_ASYNC_TRACE_LOGGING=false a trace is on the server when it has ended.
        hooks.trace_completed.answer(None if environment.asynchronous() else flush)
        _help(_link_contexts)
        _help(timeout.watch)
        if otlp.exports_metrics():
            log.warn(
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is set, but durations of spans are not exported."
            )
        with locks.brief:
            if destination.chosen.generation != generation:
                continue  # another thread has chosen anew
            _core.set_destination(first.writer, described, *(ring.writer for ring in second))
            destination.chosen.in_force = True
        for ring in (first, *second):
            supervisor.try_to_ensure_sender(ring)
        _help(rings.let_go_of_idle)
        return
    raise RuntimeError("where they go changes all the time")


def _worked_out() -> tuple[Ring, list[Ring], dict[str, Any]]:
    """The ring of new traces, those of destinations that get them besides, and the destination as the
    record of a trace has it."""
    uri, collector = destination.route()
    if not (otlp.is_collector(uri) or uri.startswith(("http://", "https://"))):
        from mlflow_fasttrace._internal.spool import database

        database.guard()
        if (reason := why_no_store(uri)) is not None:
            log.warn(f"Traces are recorded and wait on this machine: {reason}.")
    uris = [uri] if collector is None else [uri, collector]
    first, *second = map(rings.ring_for, uris)
    rings.first_uri = uri
    experiment = destination.experiment_in_force()
    if (reason := why_impossible(experiment)) is not None:
        log.warn(f"Traces cannot be delivered and will be set aside: {reason}.")
    destination.note_named(uri, experiment)
    described = destination.describe(uri, experiment, collector)
    return first, second, described


def _help(action: Callable[[], None]) -> None:
    """Runs what recording can do without; where it fails there is a warning."""
    try:
        action()
    except Exception as error:
        let_pass(error)
        log.warn(f"{type(error).__name__}: {error}. Traces are recorded all the same.")


def _link_contexts() -> None:
    linked = environment.propagates()
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
    """Gives a forked child rings and senders of its own. Its parent's rings are not touched, and keep the
    spans that were open. The locks are made anew already: base/locks.py is imported first."""
    _starting.forgets = True
    try:
        _core.after_fork()
        changes.after_fork()
        _starting.thread = None
        _starting.failures, _starting.not_before = 0, 0.0
        rings.forget()
        supervisor.forget()
        destination.reset()
    finally:
        _starting.forgets = False


os.register_at_fork(after_in_child=_begin_anew_after_fork)
