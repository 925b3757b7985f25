"""``mlflow.tracing`` on the core: switching it, scopes, span processors, destinations.

What is not here (notebook display, Databricks) is MLflow's own, imported when it is asked for.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from mlflow_fasttrace import _core, _hooks, _runtime, _view

__all__ = [
    "configure",
    "context",
    "disable",
    "enable",
    "is_tracing_enabled",
    "reset",
    "set_destination",
    "trace_disabled",
]

_SpanProcessor = Callable[[Any], None]

_span_processors: list[_SpanProcessor] = []
_disabled_lock = threading.Lock()
_disabled_depth = 0  # of trace_disabled calls


# ---- on and off ----


def disable() -> None:
    """Stop recording. Spans that are open go on to their end."""
    _core.set_enabled(False)


def enable() -> None:
    """Record again."""
    if _core.enabled():
        _hooks.logger.info("Tracing is already enabled")
    _core.set_enabled(True)


def is_tracing_enabled() -> bool:
    """Whether spans are recorded."""
    return _core.enabled()


def trace_disabled(f: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: nothing is recorded, in the whole process, while the function runs."""

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        global _disabled_depth
        with _disabled_lock:
            entered = _disabled_depth > 0 or _core.enabled()
            if entered:
                _disabled_depth += 1
                _core.set_enabled(False)
        try:
            return f(*args, **kwargs)
        finally:
            if entered:
                with _disabled_lock:
                    _disabled_depth -= 1
                    if _disabled_depth == 0:
                        _core.set_enabled(True)

    return wrapper


@contextlib.contextmanager
def context(
    metadata: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    enabled: bool | None = None,
    session_id: str | None = None,
    user: str | None = None,
) -> Iterator[None]:
    """Give metadata and tags to every trace that begins inside; or record nothing inside.

    Scopes nest: the inner one's values win.

    Args:
        metadata: Metadata of the traces.
        tags: Tags of the traces.
        enabled: False records nothing inside; True undoes an outer False; None leaves it.
        session_id: Session of the traces.
        user: User of the traces.
    """
    _core.use_scopes()
    own = dict(metadata or {})
    if session_id is not None:
        own["mlflow.trace.session"] = session_id
    if user is not None:
        own["mlflow.trace.user"] = user
    outer_metadata, outer_tags, outer_enabled = _core.scope_var.get() or ({}, {}, None)
    token = _core.scope_var.set(
        (
            {**outer_metadata, **own},
            {**outer_tags, **(tags or {})},
            outer_enabled if enabled is None else enabled is not False,
        )
    )
    try:
        yield
    finally:
        _core.scope_var.reset(token)


# ---- span processors ----


class _Configuration:
    """What ``configure`` returns: as a context manager it takes the change back at its end."""

    def __init__(self, previous: list[_SpanProcessor]):
        self._previous = previous

    def __enter__(self) -> _Configuration:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _use_span_processors(self._previous)


def configure(span_processors: list[_SpanProcessor] | None = None) -> _Configuration:
    """Set what every span passes through before anything of it leaves the process.

    Args:
        span_processors: Functions of one argument, the span, which may change it; their results are
            ignored. An empty list removes them, None leaves them.

    Returns:
        A context manager that undoes the change; used as a plain call the change stays.
    """
    previous = _span_processors
    if span_processors is not None:
        _use_span_processors(list(span_processors))
    return _Configuration(previous)


def _use_span_processors(span_processors: list[_SpanProcessor]) -> None:
    global _span_processors
    _span_processors = span_processors
    _core.set_hook("process_span", _process if span_processors else None)


def _name(processor: _SpanProcessor) -> str:
    return getattr(processor, "__name__", type(processor).__name__)


def _process(span: Any) -> None:
    returned = []
    for processor in _span_processors:
        try:
            if processor(span) is not None:
                returned.append(_name(processor))
        except Exception as error:
            _hooks.warn(f"Span processor {_name(processor)} failed: {error}")
    if returned:
        _hooks.warn(
            f"Span processors {returned} returned a non-null value, but it will be ignored. Span "
            "processors should not return a value."
        )


# ---- where traces go ----


def set_destination(destination: Any, *, context_local: bool = False) -> None:
    """Send the traces that begin from now on to an experiment.

    Args:
        destination: A ``MlflowExperimentLocation`` (or the older ``MlflowExperiment``). Locations of
            Databricks run on MLflow itself.
        context_local: For this thread or task alone.

    Raises:
        MlflowException: it is no trace location.
    """
    from mlflow.entities.trace_location import MlflowExperimentLocation, TraceLocationBase
    from mlflow.tracing.destination import TraceDestination

    if isinstance(destination, TraceDestination):
        destination = destination.to_location()
    if not isinstance(destination, TraceLocationBase):
        raise _view.invalid(
            f"Invalid destination type: {type(destination)}. "
            "The destination must be an instance of TraceLocation."
        )
    if not isinstance(destination, MlflowExperimentLocation):
        _hooks.warn(
            f"{type(destination).__name__} is a location of Databricks: only what MLflow itself "
            "records goes there."
        )
        importlib.import_module("mlflow.tracing").set_destination(
            destination, context_local=context_local
        )
        return
    experiment_id = destination.experiment_id
    _runtime.set_location(
        None if experiment_id is None else str(experiment_id), context_local=context_local
    )
    _core.set_enabled(True)


def reset() -> None:
    """Forget destinations and span processors, and read the environment again at the next span."""
    _runtime.set_location(None)
    _use_span_processors([])
    _core.set_enabled(True)
    _runtime.reset()


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    module = importlib.import_module("mlflow.tracing")
    try:
        return getattr(module, name)
    except AttributeError:
        return importlib.import_module(f"mlflow.tracing.{name}")
