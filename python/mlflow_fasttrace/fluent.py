"""The functions of MLflow's tracing API: argument checks and documentation over the C core.

Signatures and behaviour are those of ``mlflow.tracing.fluent`` in MLflow 3.17.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from mlflow_fasttrace import _core, _hooks, _runtime, _shells
from mlflow_fasttrace.entities import NoOpSpan, SpanType

_FLUSH_SECONDS = 30.0
_NO_OP_SPAN = NoOpSpan()
_LOG_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


def _invalid(message: str) -> Exception:
    from mlflow.exceptions import MlflowException

    return MlflowException.invalid_parameter_value(message)


def log_level_number(level: Any) -> int:
    """The number of a ``SpanLogLevel`` or of its name.

    Raises:
        MlflowException: it is neither.
    """
    if isinstance(level, str) and level.strip().upper() in _LOG_LEVELS:
        return _LOG_LEVELS[level.strip().upper()]
    if isinstance(level, int) and not isinstance(level, bool) and level in _LOG_LEVELS.values():
        return int(level)
    raise _invalid(f"Invalid log level {level!r}. Please use one of {', '.join(_LOG_LEVELS)}.")


def _usable_log_level(level: Any) -> int | None:
    """As above, but a bad level costs a log line and not the span."""
    if level is None:
        return None
    try:
        return log_level_number(level)
    except Exception as error:
        _hooks.warn(f"The span is recorded without its log level: {error}")
        return None


def _parameters(function: Any) -> list[tuple] | None:
    try:
        signature = inspect.signature(function)
    except Exception:
        _hooks.warn(
            f"The inputs of {_shells.name_of(function)} are not recorded: it tells no signature."
        )
        return None
    return [
        (p.name, int(p.kind))
        if p.default is inspect.Parameter.empty
        else (p.name, int(p.kind), p.default)
        for p in signature.parameters.values()
    ]


def _pure_mlflow(name: str) -> Any:
    return getattr(importlib.import_module("mlflow"), name)


def _passes_to_mlflow(function: str, **arguments: Any) -> bool:
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        _hooks.warn(
            f"{function}({', '.join(given)}=...) is not covered by mlflow-fasttrace yet and runs "
            "on MLflow itself."
        )
    return bool(given)


def trace(
    func: Callable[..., Any] | None = None,
    name: str | None = None,
    span_type: str = SpanType.UNKNOWN,
    attributes: dict[str, Any] | None = None,
    output_reducer: Callable[[list[Any]], Any] | None = None,
    trace_destination: Any | None = None,
    sampling_ratio_override: float | None = None,
    log_level: Any | None = None,
    links: list[Any] | None = None,
    description: str | None = None,
) -> Callable[..., Any]:
    """Record a span for every call of a function: its arguments, its result, its exception.

    Used as ``@trace``, as ``@trace(name=..., ...)``, or as ``trace(function)`` on a function that is
    not yours. Synchronous functions, coroutine functions, generators and async generators keep
    being what they are.

    Args:
        func: The function, when used without arguments.
        name: Name of the span; by default the function's.
        span_type: A :py:class:`SpanType` or any string.
        attributes: Attributes of every span, copied at decoration.
        output_reducer: For generators: makes the outputs of the list of items.
        trace_destination: Runs on MLflow itself.
        sampling_ratio_override: Runs on MLflow itself.
        log_level: A ``SpanLogLevel`` or its name.
        links: Runs on MLflow itself.
        description: Human-readable description of the span.

    Raises:
        MlflowException: ``output_reducer`` with a function that is no generator, or a sampling
            ratio outside 0 to 1.
    """
    if sampling_ratio_override is not None and not 0.0 <= sampling_ratio_override <= 1.0:
        raise _invalid(
            f"sampling_ratio_override must be between 0.0 and 1.0, got {sampling_ratio_override}"
        )
    if _passes_to_mlflow(
        "trace",
        trace_destination=trace_destination,
        sampling_ratio_override=sampling_ratio_override,
        links=links,
    ):
        return _pure_mlflow("trace")(
            func,
            name=name,
            span_type=span_type,
            attributes=attributes,
            output_reducer=output_reducer,
            trace_destination=trace_destination,
            sampling_ratio_override=sampling_ratio_override,
            log_level=log_level,
            links=links,
            description=description,
        )

    def decorator(fn):
        descriptor = _shells.of_descriptor(fn, decorator)
        if descriptor is not None:
            return descriptor
        if not callable(fn):
            _hooks.warn(f"{type(fn).__name__} objects cannot be traced: it works on untraced.")
            return fn
        streams = _shells.is_stream(fn)
        if output_reducer is not None and not streams:
            raise _invalid("The output_reducer argument is only supported for generator functions.")
        prepared: list[tuple[str, Any]] = [("mlflow.spanType", span_type)]
        prepared += (attributes or {}).items()
        if description is not None:
            prepared.append(("mlflow.spanDescription", description))
        if (level := _usable_log_level(log_level)) is not None:
            prepared.append(("mlflow.spanLogLevel", level))
        if not streams:
            prepared.append(("mlflow.spanFunctionName", _shells.name_of(fn)))
        traced = _core.Traced(
            fn, str(name or _shells.name_of(fn)), prepared, _parameters(fn), output_reducer
        )
        return _shells.wrap(traced, fn)

    return decorator if func is None else decorator(func)


def start_span(
    name: str = "span",
    span_type: str | None = SpanType.UNKNOWN,
    attributes: dict[str, Any] | None = None,
    trace_destination: Any | None = None,
    log_level: Any | None = None,
    run_id: str | None = None,
    links: list[Any] | None = None,
    description: str | None = None,
) -> Any:
    """A context manager that records a span around its body and makes it current.

    An exception that leaves the body sets the status to ERROR and is recorded as an event, and is
    raised on, untouched.

    Args:
        name: Name of the span.
        span_type: A :py:class:`SpanType` or any string.
        attributes: Attributes of the span.
        trace_destination: Runs on MLflow itself.
        log_level: A ``SpanLogLevel`` or its name.
        run_id: Runs on MLflow itself.
        links: Runs on MLflow itself.
        description: Human-readable description of the span.

    Returns:
        A context manager whose value is the span.
    """
    if (
        trace_destination is not None or run_id is not None or links is not None
    ) and _passes_to_mlflow(
        "start_span", trace_destination=trace_destination, run_id=run_id, links=links
    ):
        return _pure_mlflow("start_span")(
            name, span_type, attributes, trace_destination, log_level, run_id, links, description
        )
    if log_level is not None:
        log_level = _usable_log_level(log_level)
    if name.__class__ is not str:
        name = str(name)
    return _core.SpanScope(name, span_type, attributes, description, log_level, _NO_OP_SPAN)


def get_current_active_span() -> Any:
    """The span that is current in this context, or None."""
    return _core.current_span()


def get_active_trace_id() -> str | None:
    """The id of the current span's trace, or None."""
    span = _core.current_span()
    return None if span is None else span.trace_id


def get_last_active_trace_id(thread_local: bool = False) -> str | None:
    """The id of the trace whose root ended last.

    Args:
        thread_local: Look at this thread's (this context's) traces only.
    """
    return _core.last_trace_id_var.get() if thread_local else _core.last_trace_id()


def update_current_trace(
    tags: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    client_request_id: str | None = None,
    request_preview: str | None = None,
    response_preview: str | None = None,
    state: Any | None = None,
    model_id: str | None = None,
    session_id: str | None = None,
    user: str | None = None,
) -> None:
    """Set what the current trace as a whole carries. A warning, and nothing else, when there is no
    current trace.

    Raises:
        MlflowException: a preview is no string, or ``state`` is neither OK nor ERROR.
    """
    span = _core.current_span()
    if span is None:
        _hooks.logger.warning(
            "No active trace found. Please create a span using `mlflow.start_span` or "
            "`@mlflow.trace` before calling `mlflow.update_current_trace`."
        )
        return
    metadata = dict(metadata) if metadata else {}
    if session_id is not None:
        metadata["mlflow.trace.session"] = session_id
    if user is not None:
        metadata["mlflow.trace.user"] = user
    if model_id:
        metadata["mlflow.modelId"] = model_id
    for field, values in (("tags", tags or {}), ("metadata", metadata)):
        if others := {k: v for k, v in values.items() if not isinstance(v, str)}:
            _hooks.logger.warning(
                "Found non-string values in %s; they are made strings when the trace is logged: %s",
                field,
                others,
            )
    for field, value in (
        ("request_preview", request_preview),
        ("response_preview", response_preview),
    ):
        if value is not None and not isinstance(value, str):
            raise _invalid(f"The `{field}` parameter must be a string.")
    code = 0
    if state is not None:
        code = {"OK": 1, "ERROR": 2}.get(str(getattr(state, "value", state)), 0)
        if not code:
            raise _invalid(f"State must be either 'OK' or 'ERROR', but got '{state}'.")
    span._update_trace(
        dict(tags) if tags else None,
        metadata or None,
        request_preview or None,
        response_preview or None,
        code,
        None if client_request_id is None else str(client_request_id),
    )


# ---- where traces go ----


def set_tracking_uri(uri: str | os.PathLike[str]) -> None:
    """Set the tracking URI; traces that start from now on go there."""
    _runtime.set_tracking_uri(uri)


def get_tracking_uri() -> str:
    """The tracking URI in force."""
    return _runtime.tracking_uri()


class _UnresolvedExperiment:
    """Stands for an experiment whose server did not answer: the sender makes it. Its other fields
    are looked up when they are asked for."""

    def __init__(self, name: str):
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(_pure_mlflow("get_experiment_by_name")(self.name), attribute)

    def __repr__(self) -> str:
        return f"<Experiment: name={self.name!r}, not resolved yet>"


def _server_answers(uri: str) -> bool:
    """Whether something listens there. Only asked for http: a database is opened anyway."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return True
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=2.0).close()
    except OSError:
        return False
    return True


def set_experiment(
    experiment_name: str | None = None, experiment_id: str | None = None, **options: Any
) -> Any:
    """Set the experiment that traces (and runs) go to, and make it if it is missing.

    Where the server cannot be reached the name is kept, traces are recorded, and the sender makes
    the experiment when it delivers them.

    Returns:
        The ``mlflow.entities.Experiment``.

    Raises:
        MlflowException: neither or both of name and id are given, or the server refuses.
    """
    uri = _runtime.tracking_uri()
    if experiment_name is not None and experiment_id is None and not options:
        if not _server_answers(uri):
            _hooks.warn(
                f"The tracking server does not answer; experiment {experiment_name!r} will be "
                "looked up when its traces are delivered."
            )
            _runtime.set_experiment(name=experiment_name)
            return _UnresolvedExperiment(experiment_name)
    experiment = _pure_mlflow("set_experiment")(
        experiment_name=experiment_name, experiment_id=experiment_id, **options
    )
    _runtime.set_experiment(experiment_id=experiment.experiment_id)
    return experiment


# ---- reading what was written ----


def flush_trace_async_logging(terminate: bool = False) -> None:
    """Wait until everything that has ended is delivered (30 s at most).

    Args:
        terminate: Accepted as MLflow does; this process has no logging threads to end.
    """
    if not _runtime.flush(_FLUSH_SECONDS):
        _hooks.warn(
            f"Not everything was delivered within {_FLUSH_SECONDS:g} s; delivery goes on in the "
            "background, nothing is lost."
        )


def get_trace(trace_id: str, silent: bool = False, flush: bool = False) -> Any:
    """A trace by its id, as the server has it; what this process recorded is delivered first.

    Returns:
        The ``mlflow.entities.Trace``, or None.
    """
    _runtime.flush(_FLUSH_SECONDS)
    return _pure_mlflow("get_trace")(trace_id, silent=silent, flush=flush)


def after_flush(name: str) -> Callable[..., Any]:
    """MLflow's function of that name, seeing what this process recorded before the call."""
    function = _pure_mlflow(name)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _runtime.flush(_FLUSH_SECONDS)
        return function(*args, **kwargs)

    return call
