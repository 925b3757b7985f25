"""``mlflow.tracing`` on the core: switching it, scopes, span processors, destinations, traces over several
processes.

Other names of ``mlflow.tracing`` (notebook display, Databricks) are MLflow's own, imported when one is asked
for.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import locks, log, mlflow_names, patching
from mlflow_fasttrace._internal.config import engine
from mlflow_fasttrace._internal.recording import tracing_state
from mlflow_fasttrace._internal.recording.destination import reset as reset_destination
from mlflow_fasttrace._internal.recording.destination import set_location
from mlflow_fasttrace._internal.recording.tracing_state import SpanProcessor
from mlflow_fasttrace._internal.spans import entities

if TYPE_CHECKING:
    from mlflow.entities.trace_location import TraceLocationBase
    from mlflow.tracing.destination import TraceDestination

    from mlflow_fasttrace._core import LiveSpan, NonRecordingSpan
    from mlflow_fasttrace.otel import TracerProvider

_OWN = (
    "configure",
    "context",
    "disable",
    "enable",
    "get_bridged_tracer_provider",
    "get_tracing_context_headers_for_http_request",
    "is_tracing_enabled",
    "reset",
    "set_destination",
    "set_tracing_context_from_http_request_headers",
    "trace_disabled",
)

#: Empty, so that modules below are looked for: ``_internal/seams/aliases.py`` finds MLflow's.
__path__: list[str] = []


_Function = TypeVar("_Function", bound=Callable[..., Any])


def _mlflows_where_it_records(function: _Function) -> _Function:
    """Has a function lead to MLflow's of that name where MLflow's own code records: it may be held from before that
    was chosen."""

    @functools.wraps(function)
    def lead(*args: Any, **kwargs: Any) -> Any:
        if not engine.mlflow_records():
            return function(*args, **kwargs)
        patching.wait_for_mlflow()
        import mlflow.tracing

        return patching.original(getattr(mlflow.tracing, function.__name__))(*args, **kwargs)

    return cast(_Function, lead)


# ---- on and off ----


@_mlflows_where_it_records
def disable() -> None:
    """Stop recording, in the whole process, until ``enable()`` or ``reset()``. Spans that are open go on to their
    end.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> mlflow.tracing.disable()
        >>> with mlflow.start_span("not recorded") as span:
        ...     span.trace_id
        'MLFLOW_NO_OP_SPAN_TRACE_ID'
        >>> mlflow.tracing.enable()
    """
    _core.set_enabled(False)


@_mlflows_where_it_records
def enable() -> None:
    """Record again.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> mlflow.tracing.disable()
        >>> mlflow.tracing.enable()
        >>> mlflow.tracing.is_tracing_enabled()
        True
    """
    if _core.enabled():
        log.logger.info("Tracing is already enabled")
    _core.set_enabled(True)


def is_tracing_enabled() -> bool:
    """Whether spans are recorded.

    Returns:
        False after ``disable()``, and while a function with ``trace_disabled`` runs.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> mlflow.tracing.is_tracing_enabled()
        True
    """
    return _core.enabled()


def trace_disabled(f: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator by which nothing is recorded, in the whole process, while the function runs.

    Args:
        f: The function.

    Returns:
        A function of the same signature.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> @mlflow.tracing.trace_disabled
        ... def probe():
        ...     return mlflow.tracing.is_tracing_enabled()
        >>> probe()
        False
    """

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = object()
        try:
            with locks.brief:
                if tracing_state.disabling or _core.enabled():
                    tracing_state.disabling.add(call)
                    _core.set_enabled(False)
            return f(*args, **kwargs)
        finally:
            with locks.brief:
                if call in tracing_state.disabling:
                    tracing_state.disabling.remove(call)
                    if not tracing_state.disabling:
                        _core.set_enabled(True)

    return wrapper


@_mlflows_where_it_records
@contextlib.contextmanager
def context(
    metadata: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    enabled: bool | None = None,
    session_id: str | list[str] | None = None,
    user: str | None = None,
) -> Iterator[None]:
    """Give metadata and tags to every trace that begins inside, or record nothing inside. Contexts nest; the
    inner one's values win.

    Args:
        metadata: Metadata of the traces.
        tags: Tags of the traces.
        enabled: False records nothing inside; True undoes an outer False; None leaves it.
        session_id: Session of the traces; a list names it level by level, the outermost first.
        user: User of the traces.

    Returns:
        A context manager without a value.

    Raises:
        MlflowException: a level of the session is no string, or there is none.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.context(tags={"stage": "beta"}, session_id="s-1"):
        ...     with mlflow.start_span("work") as span:
        ...         pass
        >>> mlflow.get_trace(span.trace_id).info.tags["stage"]
        'beta'
    """
    _core.use_scopes()
    own = dict(metadata or {})
    if session_id is not None:
        own["mlflow.trace.session"] = entities.session_text(session_id)
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
    """A change that ``configure`` made; as a context manager it takes the change back at its end.

    Args:
        previous: The span processors from before.
    """

    def __init__(self, previous: list[SpanProcessor]):
        self._previous = previous

    def __enter__(self) -> _Configuration:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tracing_state.use_span_processors(self._previous)


@_mlflows_where_it_records
def configure(span_processors: list[SpanProcessor] | None = None) -> _Configuration:
    """Set the functions that every span passes through before anything of it leaves the process.

    Args:
        span_processors: Functions of one argument, the span, which may change it; their results are
            ignored. An empty list removes them, None leaves them.

    Returns:
        A context manager that undoes the change; used as a plain call the change stays.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> def redact(span):
        ...     span.set_inputs("(redacted)")
        >>> with mlflow.tracing.configure(span_processors=[redact]):
        ...     with mlflow.start_span("work") as span:
        ...         span.set_inputs("secret")
        >>> span.inputs
        '(redacted)'
    """
    previous = tracing_state.span_processors
    if span_processors is not None:
        tracing_state.use_span_processors(list(span_processors))
    return _Configuration(previous)


def span_processors() -> list[SpanProcessor]:
    """The span processors in force."""
    return list(tracing_state.span_processors)


# ---- where traces go ----


@_mlflows_where_it_records
def set_destination(
    destination: TraceLocationBase | TraceDestination, *, context_local: bool = False
) -> None:
    """Send the traces that begin from now on to an experiment, and switch tracing on, as in MLflow.

    Args:
        destination: A ``MlflowExperimentLocation``, or the older ``MlflowExperiment``. Locations of Databricks
            run on MLflow itself.
        context_local: For this thread or task alone.

    Raises:
        MlflowException: it is no trace location.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> from mlflow_fasttrace.entities import MlflowExperimentLocation
        >>> experiment = mlflow.set_experiment("elsewhere")
        >>> mlflow.tracing.set_destination(MlflowExperimentLocation(experiment.experiment_id))
        >>> with mlflow.start_span("work") as span:
        ...     pass
        >>> mlflow.tracing.reset()
        >>> trace = mlflow.get_trace(span.trace_id)
        >>> trace.info.experiment_id == experiment.experiment_id
        True
    """
    patching.wait_for_mlflow()
    from mlflow.entities import MlflowExperimentLocation
    from mlflow.entities.trace_location import TraceLocationBase
    from mlflow.tracing.destination import TraceDestination

    if isinstance(destination, TraceDestination):
        destination = destination.to_location()
    if not isinstance(destination, TraceLocationBase):
        raise entities.invalid(
            f"Invalid destination type: {type(destination)}. "
            "The destination must be an instance of TraceLocation."
        )
    if not isinstance(destination, MlflowExperimentLocation):
        log.warn(
            f"{type(destination).__name__} is a location of Databricks: only what MLflow itself "
            "records goes there."
        )
        import mlflow.tracing

        mlflow_function = patching.original(mlflow.tracing.set_destination)
        mlflow_function(destination, context_local=context_local)
        return
    experiment_id = destination.experiment_id
    set_location(None if experiment_id is None else str(experiment_id), context_local=context_local)


@_mlflows_where_it_records
def reset() -> None:
    """Forget destinations and span processors, switch tracing on, and read the environment again at the
    next span.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> mlflow.tracing.disable()
        >>> mlflow.tracing.reset()
        >>> mlflow.tracing.is_tracing_enabled()
        True
    """
    forget()
    _core.set_enabled(True)


def forget() -> None:
    """Do what ``reset()`` does, but leave tracing off where it is."""
    set_location(None)
    tracing_state.use_span_processors([])
    reset_destination()


# ---- traces over several processes ----

#: The trace of another process that this context continues: its id, and W3C Trace Context's state and flags.
_continued: contextvars.ContextVar[tuple[str, Any, int]] = contextvars.ContextVar(
    "mlflow_fasttrace.continued", default=("", None, 0)
)


def flags_of(span: LiveSpan, own: int) -> int:
    """The flags of W3C Trace Context for a recorded span.

    Args:
        span: The span.
        own: The flags of a trace that this process began.

    Returns:
        Those that the span's trace came with; ``own`` where it began here.
    """
    trace_id, _state, flags = _continued.get()
    if trace_id == span._trace_id:
        return flags
    return 1 if span._trace.remote else own


def get_tracing_context_headers_for_http_request() -> dict[str, str]:
    """The headers by which a service that is called continues this trace.

    Returns:
        ``traceparent`` of W3C Trace Context, and ``tracestate`` where the trace came with one. Empty, with a
        warning, where no span is current; where the trace is not sampled, headers by which the service does
        not sample it either.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("call the service"):
        ...     sorted(mlflow.tracing.get_tracing_context_headers_for_http_request())
        ['traceparent']
    """
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    from mlflow_fasttrace._internal.spans.otel_context import not_sampled_span
    from mlflow_fasttrace._internal.spans.otel_span import OWN_FLAGS

    current = _core.current()
    if not isinstance(current, _core.LiveSpan):
        log.logger.warning(
            "No active span found for fetching the trace context from. Returning an empty header."
        )
    if isinstance(current, _core.NonRecordingSpan):
        if not current.not_sampled:
            return {}
        none = not_sampled_span().get_span_context()
        ids, flags = (none.trace_id, none.span_id), TraceFlags.DEFAULT
    elif current is None:
        return {}
    else:
        ids = (int(current._trace_id, 16), int(current.span_id, 16))
        flags = flags_of(current, OWN_FLAGS)
    trace_id, state, _flags = _continued.get()
    if current is None or trace_id != getattr(current, "_trace_id", None):
        state = None
    context = SpanContext(*ids, is_remote=False, trace_flags=TraceFlags(flags), trace_state=state)
    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers, set_span_in_context(NonRecordingSpan(context)))
    return headers


@contextlib.contextmanager
def set_tracing_context_from_http_request_headers(headers: dict[str, str]) -> Iterator[None]:
    """Let the spans that start inside continue the trace of the process that sent a request.

    Args:
        headers: The request's headers, their names in capitals or not.

    Returns:
        A context manager without a value.

    Raises:
        MlflowException: there is no ``traceparent`` among them.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("call the service") as call:
        ...     headers = mlflow.tracing.get_tracing_context_headers_for_http_request()
        >>> with mlflow.tracing.set_tracing_context_from_http_request_headers(headers):
        ...     with mlflow.start_span("serve") as span:  # in the service
        ...         pass
        >>> span.trace_id == call.trace_id, span.parent_id == call.span_id
        (True, True)
    """
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {str(key).lower(): value for key, value in dict(headers).items()}
    if "traceparent" not in carrier:
        raise entities.invalid(
            "The http request headers do not contain the required key 'traceparent', "
            "please generate the request headers by "
            "'mlflow.tracing.distributed.get_tracing_context_headers_for_http_request' API."
        )
    from opentelemetry.context import Context

    # An empty context, since a span that is current here has nothing to do with the request.
    remote = get_current_span(
        TraceContextTextMapPropagator().extract(carrier, Context())
    ).get_span_context()
    current: LiveSpan | NonRecordingSpan | None = None
    if remote.is_valid and not remote.trace_flags.sampled:
        current = _core.non_recording_span(True)
    elif remote.is_valid:
        current = _core.remote_span(remote.trace_id.to_bytes(16, "big"), remote.span_id, False)
    continued = _continued.set(
        (f"{remote.trace_id:032x}", remote.trace_state, int(remote.trace_flags))
    )
    try:
        if current is None:  # what starts inside begins traces of its own
            token = _core.current_span_var.set(None)
            try:
                yield
            finally:
                with contextlib.suppress(ValueError):
                    _core.current_span_var.reset(token)
        else:
            # By the core, which looks past what it cannot put back: a span of another process that stayed
            # current would take what the next requests record.
            _core.enter(current)
            try:
                yield
            finally:
                _core.leave(current)
    finally:
        with contextlib.suppress(ValueError):  # left in another context: that ends by itself
            _continued.reset(continued)


def get_bridged_tracer_provider() -> TracerProvider:
    """An OpenTelemetry ``TracerProvider`` whose spans are recorded by the core, for instrumentors that take
    one. With ``MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT=true`` their spans and the core's own nest in each other.

    Returns:
        One provider for the whole process.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> tracer = mlflow.tracing.get_bridged_tracer_provider().get_tracer("library")
        >>> with mlflow.start_span("call the library") as call:
        ...     with tracer.start_as_current_span("of a library") as span:
        ...         span.set_attribute("key", "value")
        >>> span.is_recording(), span.name
        (False, 'of a library')
    """
    from mlflow_fasttrace import otel

    return otel.process_provider()


__getattr__, __dir__ = mlflow_names.take_over(globals(), "mlflow.tracing")
