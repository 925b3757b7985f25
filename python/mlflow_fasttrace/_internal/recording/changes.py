"""Changes to traces of other processes. One that is in flight there is not at the server yet: MLflow says that it is
not found. The change is left to the sender then, which makes it when the trace is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log, patching
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.config import environment, otlp
from mlflow_fasttrace._internal.config.uris import absolute_uri
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.recording.rings import rings
from mlflow_fasttrace._internal.spool.changes import Change, write_change
from mlflow_fasttrace._internal.spool.files import ring_paths, segment_paths
from mlflow_fasttrace._internal.spool.folder import Spool, spool_for
from mlflow_fasttrace._internal.spool.reading import open_ring

if TYPE_CHECKING:
    from mlflow.entities import Assessment

_Result = TypeVar("_Result")

_TRACE_ID = re.compile(r"^tr-[0-9a-f]{32}$")
#: What a store says of a trace that it has not got: the second of a tag, whose row would belong to none.
_NOT_FOUND = "RESOURCE_DOES_NOT_EXIST"
_MAYBE_NOT_FOUND = frozenset({_NOT_FOUND, "BAD_REQUEST", "INTERNAL_ERROR"})

#: Ids of the traces that were in flight when this process was forked.
_inherited: set[str] = set()


def log_assessment(
    trace_id: str, assessment: Assessment, attempt: Callable[[], Assessment], uri: str | None = None
) -> Assessment:
    """Logs an assessment to a trace that is at a server, or will be.

    Args:
        trace_id: Id of the trace.
        assessment: The assessment.
        attempt: Logs it by MLflow's own code.
        uri: The server's tracking URI; None: the one in force.

    Returns:
        The server's assessment; or this one, with the id that it will have.

    Raises:
        Exception: what ``attempt`` raises, where no program of this machine can have the trace in flight.
    """

    def change() -> Change:
        if assessment.assessment_id is None:
            assessment.assessment_id = f"a-{os.urandom(16).hex()}"
        return Change(trace_id, assessment=assessment.to_dictionary())

    return _attempt_or_leave(trace_id, attempt, change, assessment, uri)


def set_trace_tag(
    trace_id: str, key: str, value: Any, attempt: Callable[[], None], uri: str | None = None
) -> None:
    """Sets a tag of a trace that is at a server, or will be.

    Args:
        trace_id: Id of the trace.
        key, value: The tag.
        attempt: Sets it by MLflow's own code.
        uri: The server's tracking URI; None: the one in force.

    Raises:
        Exception: what ``attempt`` raises, where no program of this machine can have the trace in flight.
    """
    _attempt_or_leave(trace_id, attempt, lambda: Change(trace_id, tag=(key, str(value))), None, uri)


def is_inherited(trace_id: str) -> bool:
    """Whether a trace is one of the process that this one was forked from, which sends what is known of it."""
    return trace_id in _inherited


def after_fork() -> None:
    """Notes, in the child, whose traces are in flight."""
    _inherited.update(trace.trace_id for trace in _core.live_traces())


def _attempt_or_leave(
    trace_id: str,
    attempt: Callable[[], _Result],
    change: Callable[[], Change],
    otherwise: _Result,
    uri: str | None,
) -> _Result:
    if is_inherited(trace_id) and _leave(trace_id, change, uri) is not None:
        return otherwise
    try:
        return attempt()
    except Exception as error:
        let_pass(error)
        if getattr(error, "error_code", None) not in _MAYBE_NOT_FOUND:
            raise
        left = _leave(trace_id, change, uri, lambda: _is_missing(trace_id, uri))
        if left is None:
            raise
    log.warn(
        f"Trace {trace_id} is not at the server yet; another program of this machine may have it in flight. "
        f"{left.what[0].upper()}{left.what[1:]} waits for it, and goes there when it has come."
    )
    return otherwise


def _leave(
    trace_id: str,
    change: Callable[[], Change],
    uri: str | None,
    is_missing: Callable[[], bool] = lambda: True,
) -> Change | None:
    """Leaves a change to a sender.

    Args:
        trace_id: Id of the trace.
        change: Makes it.
        uri: The server's tracking URI; None: the one in force.
        is_missing: Whether the server has no such trace.

    Returns:
        The change; None where no program can be about to send the trace, or the change cannot be written.
    """
    if not _TRACE_ID.match(trace_id):
        return None
    try:
        spool = _spool_of_another_program(trace_id, absolute_uri(uri or destination.tracking_uri()))
        if spool is None or not is_missing():
            return None
        wanted = change()
        write_change(spool.folder, wanted)
    except Exception as error:
        let_pass(error)
        return None
    return wanted


def _spool_of_another_program(trace_id: str, uri: str) -> Spool | None:
    """The spool of a destination by which a trace may come that is not there yet: another program records for it, or
    something waits in it; None where there is none."""
    live = _core.live_trace(trace_id)
    is_own = live is not None and not live.remote and not is_inherited(trace_id)
    if otlp.is_collector(uri) or is_own:
        return None
    spool = spool_for(uri)
    own = {ring.path for ring in rings}
    on_disk = [spool] if environment.spool_on_disk() else []
    for candidate in [*on_disk, *filter(None, [spool.in_memory()])]:
        if any(segment_paths(candidate.folder, candidate.rings)):
            return candidate
        paths = ring_paths(candidate.rings, candidate.folder)
        if any(_may_bring_more(path, is_own=path in own) for path in paths):
            return candidate
    return None


def _may_bring_more(path: str, *, is_own: bool) -> bool:
    """Whether something waits in a ring, or it is that of another program that lives."""
    try:
        ring = open_ring(path)
    except Exception as error:
        let_pass(error)
        return False
    try:
        return (ring.alive() and not is_own) or ring.head > ring.tail
    finally:
        ring.close()


def _is_missing(trace_id: str, uri: str | None) -> bool:
    """Whether the server has no such trace."""
    patching.wait_for_mlflow()
    from mlflow.tracing.client import TracingClient

    try:
        TracingClient(uri).store.get_trace_info(trace_id)
    except Exception as error:
        let_pass(error)
        return getattr(error, "error_code", None) == _NOT_FOUND
    return False
