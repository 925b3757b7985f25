"""The functions of MLflow's tracing API: argument checks and documentation over the C core.

Signatures and behaviour are those of ``mlflow.tracing.fluent`` in MLflow 3.17. None of these functions raises
into the program but where ``Raises`` says so.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log, patching
from mlflow_fasttrace._internal.base.imports import imported
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.parameters import given, of_installed_mlflow
from mlflow_fasttrace._internal.base.version import is_mlflow
from mlflow_fasttrace._internal.config import engine
from mlflow_fasttrace._internal.config.uris import why_no_store
from mlflow_fasttrace._internal.recording import destination, experiments
from mlflow_fasttrace._internal.spans import entities, wrappers
from mlflow_fasttrace._internal.spans.entities import RootOptions
from mlflow_fasttrace._internal.spans.no_op import NO_OP_SPAN, NO_OP_SPAN_TRACE_ID, NoOpSpan
from mlflow_fasttrace.entities import SpanType

if TYPE_CHECKING:
    from mlflow.entities import (
        Experiment,
        Link,
        MlflowExperimentLocation,
        Span,
        SpanLogLevel,
        TraceState,
    )

    from mlflow_fasttrace._core import LiveSpan, SpanScope
    from mlflow_fasttrace._internal.recording.experiments import FoundExperiment

#: Tags that only MLflow itself sets (``IMMUTABLE_TAGS`` of its store).
IMMUTABLE_TAGS = frozenset({"mlflow.artifactLocation", "mlflow.user"})
if is_mlflow(3, 13):
    IMMUTABLE_TAGS |= {
        "mlflow.trace.archivalFailure",
        "mlflow.trace.archiveLocation",
        "mlflow.trace.spansLocation",
    }


def _usable_log_level(level: SpanLogLevel | str | None) -> int | None:
    """The level's number. A bad level costs a log line and not the span."""
    if level is None:
        return None
    try:
        return entities.log_level_number(level)
    except Exception as error:
        let_pass(error)
        log.warn(f"The span is recorded without its log level: {error}")
        return None


def _usable_attributes(attributes: Any) -> list[tuple[str, Any]]:
    """The items of a mapping, or a list of pairs, whose keys can be recorded. Anything else costs a log
    line."""
    if not attributes:
        return []
    try:
        items = list(dict(attributes).items())
    except Exception as error:
        let_pass(error)
        log.warn(f"attributes must be a dictionary, not {attributes!r:.100}; none are recorded.")
        return []
    if others := [key for key, _ in items if not isinstance(key, str) or not key]:
        log.warn(f"Keys of attributes must be non-empty strings; left out: {others!r:.100}")
    return [(key, value) for key, value in items if isinstance(key, str) and key]


def _parameters(function: Callable[..., Any]) -> list[tuple] | None:
    """A function's parameters as the core takes them: (name, kind) or (name, kind, default). None, with a
    log line, where the function tells no signature."""
    try:
        signature = inspect.signature(function)
    except Exception as error:
        let_pass(error)
        log.warn(
            f"The inputs of {wrappers.name_of(function)} are not recorded: it tells no signature."
        )
        return None
    return [
        (p.name, int(p.kind))
        if p.default is inspect.Parameter.empty
        else (p.name, int(p.kind), p.default)
        for p in signature.parameters.values()
    ]


def pure_mlflow(name: str) -> Any:
    """MLflow's own function of that name, looked up now: programs and tests put others in its place."""
    return patching.original(getattr(imported("mlflow"), name))


def _experiment_of(destination: MlflowExperimentLocation | None) -> str | None:
    """The id of a location's experiment. A location that has none counts as not given, as in MLflow."""
    experiment_id = getattr(destination, "experiment_id", None)
    return None if experiment_id is None else str(experiment_id)


@of_installed_mlflow
def trace(
    func: Callable[..., Any] | None = None,
    name: str | None = None,
    span_type: str = SpanType.UNKNOWN,
    attributes: dict[str, Any] | None = None,
    output_reducer: Callable[[list[Any]], Any] | None = None,
    trace_destination: MlflowExperimentLocation | None = None,
    sampling_ratio_override: float | None = None,
    log_level: SpanLogLevel | str | None = None,
    links: list[Link] | None = None,
    description: str | None = None,
) -> Callable[..., Any]:
    """Record a span for every call of a function: its arguments, its result, its exception.

    Used as ``@trace``, as ``@trace(name=..., ...)``, or as ``trace(function)`` on a function that is not yours.
    Synchronous functions, coroutine functions, generators and async generators keep being what they are.

    Args:
        func: The function, when used without arguments.
        name: Name of the span; by default the function's.
        span_type: A :py:class:`SpanType` or any string.
        attributes: Attributes of every span, copied at decoration.
        output_reducer: For generators: makes the outputs of the list of items.
        trace_destination: Where the trace goes that the function begins. Ignored, with a log line, where it
            is called inside of another span.
        sampling_ratio_override: The share, from 0 to 1, of the traces that the function begins which are
            recorded, instead of ``MLFLOW_TRACE_SAMPLING_RATIO``.
        log_level: The level of every span, or its name.
        links: Links that every span carries.
        description: Human-readable description of the span.

    Returns:
        The traced function; a decorator where ``func`` is not given. Of a class method, a static method or
        a property, the same kind of descriptor. What cannot be called comes back as it is, with a log line.

    Raises:
        MlflowException: ``output_reducer`` with a function that is no generator, or a sampling ratio outside
            0 to 1.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> @mlflow.trace(span_type=mlflow.SpanType.TOOL)
        ... def add(a, b):
        ...     return a + b
        >>> add(1, b=2)
        3
        >>> span = mlflow.get_trace(mlflow.get_last_active_trace_id()).data.spans[0]
        >>> span.name, span.span_type, span.inputs, span.outputs
        ('add', 'TOOL', {'a': 1, 'b': 2}, 3)
    """
    if engine.settle() is not None:  # this is MLflow's own function, which led here
        return pure_mlflow("trace")(
            func,
            name,
            span_type,
            attributes,
            output_reducer,
            **given(
                trace_destination=trace_destination,
                sampling_ratio_override=sampling_ratio_override,
                log_level=log_level,
                links=links,
                description=description,
            ),
        )
    if sampling_ratio_override is not None and not 0.0 <= sampling_ratio_override <= 1.0:
        raise entities.invalid(
            f"sampling_ratio_override must be between 0.0 and 1.0, got {sampling_ratio_override}"
        )
    experiment_id = _experiment_of(trace_destination)
    options = (
        RootOptions(experiment_id, None, links) if experiment_id is not None or links else None
    )

    def decorator(fn: Any) -> Any:
        descriptor = wrappers.of_descriptor(fn, decorator)
        if descriptor is not None:
            return descriptor
        if not callable(fn):
            log.warn(f"{type(fn).__name__} objects cannot be traced: it works on untraced.")
            return fn
        if output_reducer is not None and not wrappers.is_stream(fn):
            raise entities.invalid(
                "The output_reducer argument is only supported for generator functions."
            )
        traced = _core.Traced(
            fn,
            str(name or wrappers.name_of(fn)),
            _prepared_attributes(fn, span_type, attributes, description, log_level),
            _parameters(fn),
            output_reducer,
            options,
            sampling_ratio_override,
        )
        return wrappers.wrap(traced, fn)

    return decorator if func is None else decorator(func)


def _prepared_attributes(
    function: Callable[..., Any],
    span_type: str,
    attributes: dict[str, Any] | None,
    description: str | None,
    log_level: SpanLogLevel | str | None,
) -> list[tuple[str, Any]]:
    """The attributes that every span of a traced function begins with, in MLflow's order."""
    prepared: list[tuple[str, Any]] = [("mlflow.spanType", span_type)]
    prepared += _usable_attributes(attributes)
    if description is not None:
        prepared.append(("mlflow.spanDescription", description))
    if (level := _usable_log_level(log_level)) is not None:
        prepared.append(("mlflow.spanLogLevel", level))
    if not wrappers.is_stream(function):
        prepared.append(("mlflow.spanFunctionName", wrappers.name_of(function)))
    return prepared


@of_installed_mlflow
def start_span(
    name: str = "span",
    span_type: str | None = SpanType.UNKNOWN,
    attributes: dict[str, Any] | None = None,
    trace_destination: MlflowExperimentLocation | None = None,
    log_level: SpanLogLevel | str | None = None,
    run_id: str | None = None,
    links: list[Link] | None = None,
    description: str | None = None,
) -> SpanScope:
    """A context manager that records a span around its body and makes it current.

    An exception that leaves the body sets the status to ERROR and is recorded as an event, and is raised on,
    untouched.

    Args:
        name: Name of the span.
        span_type: A :py:class:`SpanType` or any string.
        attributes: Attributes of the span.
        trace_destination: Where the trace goes, for a root span.
        log_level: The level of the span, or its name.
        run_id: Id of the run that the trace belongs to, for a root span.
        links: Links that the span carries.
        description: Human-readable description of the span.

    Returns:
        A context manager whose value is the span, a :py:class:`NoOpSpan` where nothing is recorded; also a
        decorator.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("look up", span_type="RETRIEVER") as span:
        ...     span.set_inputs({"question": "where?"})
        ...     span.set_outputs(["here"])
        >>> span.outputs, str(span.status.status_code)
        (['here'], 'SpanStatusCode.OK')
    """
    if not engine.on_core and engine.settle() is not None:
        return pure_mlflow("start_span")(
            name,
            span_type,
            attributes,
            **given(
                trace_destination=trace_destination,
                log_level=log_level,
                run_id=run_id,
                links=links,
                description=description,
            ),
        )
    level = None if log_level is None else _usable_log_level(log_level)
    if name.__class__ is not str:
        name = str(name)
    if trace_destination is None and run_id is None and not links:
        return _core.SpanScope(name, span_type, attributes, description, level, NO_OP_SPAN)
    options = RootOptions(_experiment_of(trace_destination), run_id, links)
    return _core.SpanScope(name, span_type, attributes, description, level, NO_OP_SPAN, options)


@of_installed_mlflow
def start_span_no_context(
    name: str,
    span_type: str = SpanType.UNKNOWN,
    parent_span: LiveSpan | Span | NoOpSpan | None = None,
    inputs: Any | None = None,
    attributes: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    experiment_id: str | None = None,
    start_time_ns: int | None = None,
    log_level: SpanLogLevel | str | None = None,
    links: list[Link] | None = None,
    description: str | None = None,
) -> LiveSpan | NoOpSpan:
    """Start a span that does not become current. It is ended by its ``end()``.

    Args:
        name: Name of the span.
        span_type: A :py:class:`SpanType` or any string.
        parent_span: The span above it: a ``LiveSpan``, a copy of one whose trace is in flight, or a
            ``NoOpSpan``. Without one it goes under the span that is current, if any, and otherwise begins a
            trace.
        inputs: Inputs of the span.
        attributes: Attributes of the span.
        tags: Tags of the trace. MLflow's own tags are left out.
        metadata: Metadata of the trace.
        experiment_id: Id of the experiment that the trace goes to, for a root span.
        start_time_ns: Nanoseconds since the Unix epoch; by default now.
        log_level: The level of the span, or its name.
        links: Links that the span carries.
        description: Human-readable description of the span.

    Returns:
        The span; one that takes everything and records nothing where tracing is off, the trace is not
        sampled, or the parent is such a span.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> job = mlflow.start_span_no_context("job", inputs={"n": 1}, tags={"queue": "short"})
        >>> step = mlflow.start_span_no_context("step", parent_span=job)
        >>> step.end(outputs=2)
        >>> job.end(outputs=2)
        >>> step.parent_id == job.span_id
        True
    """
    on_core = engine.on_core or engine.settle() is None
    if on_core and type(parent_span) is not _core.LiveSpan:
        parent_span = _live_span(parent_span) or parent_span or None
    foreign = None if type(parent_span) is _core.LiveSpan else parent_span
    if on_core and foreign is not None and foreign.trace_id == NO_OP_SPAN_TRACE_ID:
        return NO_OP_SPAN
    # The tree of a span that MLflow itself started goes on there.
    if not on_core or (foreign is not None and not patching.is_in_force()):
        return pure_mlflow("start_span_no_context")(
            name,
            span_type,
            parent_span,
            inputs,
            **given(
                attributes=attributes,
                tags=tags,
                metadata=metadata,
                experiment_id=experiment_id,
                start_time_ns=start_time_ns,
                log_level=log_level,
                links=links,
                description=description,
            ),
        )
    if foreign is not None:
        parent_span = _parent_in_core(foreign)
        if type(parent_span) is _core.NonRecordingSpan:
            return NoOpSpan(parent_span)
    experiment = None if experiment_id is None else str(experiment_id)
    span = _core.start_span(
        str(name),
        parent_span,  # type: ignore[arg-type]  # a LiveSpan, or none
        experiment,
        _usable_time(start_time_ns),
        None,
        None,
    )
    if type(span) is not _core.LiveSpan:
        return NO_OP_SPAN if span is None else NoOpSpan(span)
    try:
        span.set_span_type(span_type)
        if inputs is not None:
            span.set_inputs(inputs)
        if attributes:
            span.set_attributes(attributes)
        if description is not None:
            span.set_description(description)
        if (level := _usable_log_level(log_level)) is not None:
            span.set_attribute("mlflow.spanLogLevel", level)
        if tags:
            span._trace.tags.update({k: v for k, v in tags.items() if k not in IMMUTABLE_TAGS})
        if metadata:
            span._trace.metadata.update(metadata)
        if links or experiment is not None:
            entities.apply_root_options(span, RootOptions(experiment, None, links))
    except BaseException:  # a signal handler's, say: nobody else has the span to end it
        span.end()
        raise
    return span


def _live_span(span: Any) -> LiveSpan | None:
    """The span of a trace in flight that an immutable copy stands for; None for anything else."""
    trace_id = getattr(span, "trace_id", None)
    trace = _core.live_trace(trace_id) if isinstance(trace_id, str) else None
    if trace is None:
        return None
    return next((live for live in trace.spans() if live.span_id == span.span_id), None)


def _parent_in_core(span: Any) -> Any:
    """What stands in the core for a span that MLflow itself started before the core was installed: the new
    span joins its trace."""
    from mlflow_fasttrace._internal.spans.otel_context import parent_of

    return parent_of(span._span)


def _usable_time(time_ns: Any) -> int | None:
    """A time in nanoseconds since the Unix epoch; None, with a log line, where it is no such number."""
    if time_ns is None or (isinstance(time_ns, int) and 0 <= time_ns < 1 << 64):
        return time_ns
    log.warn(f"A span's start time is no number of nanoseconds: {time_ns!r}; it starts now.")
    return None


def get_current_active_span() -> LiveSpan | None:
    """The span that is current in this context.

    Returns:
        The span; None where there is none, or it is not recorded.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> @mlflow.trace
        ... def answer(question):
        ...     mlflow.get_current_active_span().set_attribute("model", "small")
        >>> answer("why?")
        >>> mlflow.get_current_active_span() is None
        True
    """
    span = _core.current_span()
    if span is None and engine.mlflow_records():
        return pure_mlflow("get_current_active_span")()
    return span


def get_active_trace_id() -> str | None:
    """The id of the current span's trace.

    Returns:
        The id, ``tr-`` and 32 hexadecimal digits; None where no span is current.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     mlflow.get_active_trace_id() == span.trace_id
        True
    """
    span = get_current_active_span()
    return None if span is None else span.trace_id


def get_last_active_trace_id(thread_local: bool = False) -> str | None:
    """The id of the trace whose root ended last.

    Args:
        thread_local: Look at this thread's (this context's) traces only.

    Returns:
        The id; None before a trace has ended.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     pass
        >>> mlflow.get_last_active_trace_id() == span.trace_id
        True
    """
    if engine.mlflow_records():
        return pure_mlflow("get_last_active_trace_id")(thread_local)
    return _core.last_trace_id_var.get() if thread_local else _core.last_trace_id()


def update_current_trace(
    tags: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    client_request_id: str | None = None,
    request_preview: str | None = None,
    response_preview: str | None = None,
    state: TraceState | str | None = None,
    model_id: str | None = None,
    session_id: str | list[str] | None = None,
    user: str | None = None,
) -> None:
    """Set what the current trace as a whole carries. A warning, and nothing else, when there is no current
    trace.

    Args:
        tags: Tags to add.
        metadata: Metadata to add.
        client_request_id: The program's own id of the request.
        request_preview: Text that is shown for the inputs.
        response_preview: Text that is shown for the outputs.
        state: ``OK`` or ``ERROR``, in the place of the root span's status.
        model_id: Id of the model that the trace belongs to.
        session_id: Session of the trace; a list names it level by level, the outermost first.
        user: User of the trace.

    Raises:
        MlflowException: a preview is no string, ``state`` is neither OK nor ERROR, or a level of the session
            is no string.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     mlflow.update_current_trace(tags={"stage": "beta"}, session_id="s-1", user="u-1")
        >>> mlflow.get_trace(span.trace_id).info.tags["stage"]
        'beta'
    """
    span = _core.current_span()
    if span is None and engine.mlflow_records():
        pure_mlflow("update_current_trace")(
            tags,
            metadata,
            client_request_id,
            request_preview,
            response_preview,
            state,
            model_id,
            session_id=session_id,
            user=user,
        )
        return
    if span is None:
        log.logger.warning(
            "No active trace found. Please create a span using `mlflow.start_span` or "
            "`@mlflow.trace` before calling `mlflow.update_current_trace`."
        )
        return
    metadata = _with_metadata_of(metadata, session_id, user, model_id)
    for field, values in (("tags", tags or {}), ("metadata", metadata)):
        # Not .items(), whose iterator CPython frees wrongly, with a crash, where memory ends while it is made.
        if others := {key: values[key] for key in values if not isinstance(values[key], str)}:
            log.logger.warning(
                "Found non-string values in %s; they are made strings when the trace is logged: %s",
                field,
                others,
            )
    previews = {"request_preview": request_preview, "response_preview": response_preview}
    for field, value in previews.items():
        if value is not None and not isinstance(value, str):
            raise entities.invalid(f"The `{field}` parameter must be a string.")
    trace = span._trace
    if tags:
        trace.tags.update(tags)
    if metadata:
        trace.metadata.update(metadata)
    for field, value in previews.items():
        if value:
            _set_of_trace(trace, field, value)
    if state is not None:
        code = {"OK": 1, "ERROR": 2}.get(str(getattr(state, "value", state)))
        if code is None:
            raise entities.invalid(f"State must be either 'OK' or 'ERROR', but got '{state}'.")
        trace.state = code
        if trace.info is not None:
            trace.info.state = state
    if client_request_id is not None:
        _set_of_trace(trace, "client_request_id", str(client_request_id))
    if trace.complete:
        trace.rewrite()


def _with_metadata_of(
    metadata: dict[str, str] | None,
    session_id: str | list[str] | None,
    user: str | None,
    model_id: str | None,
) -> dict[str, str]:
    """A copy of the metadata, with that of the parameters that stand for some."""
    metadata = dict(metadata) if metadata else {}
    if session_id is not None:
        metadata["mlflow.trace.session"] = entities.session_text(session_id)
    if user is not None:
        metadata["mlflow.trace.user"] = user
    if model_id:
        metadata["mlflow.modelId"] = model_id
    return metadata


def _set_of_trace(trace: _core.Trace, field: str, value: str) -> None:
    """Set a field of a trace, and of its info: one that was handed out is the one that counts."""
    setattr(trace, field, value)
    if trace.info is not None:
        setattr(trace.info, field, value)


# ---- where traces go ----


def set_tracking_uri(uri: str | os.PathLike[str]) -> None:
    """Set the tracking URI of the traces that start from now on, also for MLflow in this process and, by
    ``MLFLOW_TRACKING_URI``, for child processes.

    Args:
        uri: ``http(s)://...``, the URI of a database, or a folder.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> before = mlflow.get_tracking_uri()
        >>> mlflow.set_tracking_uri("http://127.0.0.1:5000")
        >>> mlflow.get_tracking_uri()
        'http://127.0.0.1:5000'
        >>> mlflow.set_tracking_uri(before)
    """
    destination.set_tracking_uri(uri)


def get_tracking_uri() -> str:
    """The tracking URI in force.

    Returns:
        That of ``set_tracking_uri``, else ``MLFLOW_TRACKING_URI``, else MLflow's default (``./mlruns`` where it
        holds experiments, otherwise ``sqlite:///mlflow.db``).

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> mlflow.get_tracking_uri()
        'sqlite:///...'
    """
    return destination.tracking_uri()


class _UnresolvedExperiment:
    """An experiment whose server did not answer: the sender makes it. Its other fields are looked up when they
    are asked for.

    Args:
        name: Its name.
    """

    def __init__(self, name: str):
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(pure_mlflow("get_experiment_by_name")(self.name), attribute)

    def __repr__(self) -> str:
        return f"<Experiment: name={self.name!r}, not resolved yet>"


def _server_answers(uri: str) -> bool:
    """Whether something listens at a tracking URI. Only http is tried, for two seconds at most: a database is
    opened anyway."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return True
    port = parts.port or (443 if parts.scheme == "https" else 80)
    import socket  # not for every program's first span

    try:
        socket.create_connection((parts.hostname, port), timeout=2.0).close()
    except OSError as error:
        let_pass(error)
        return False
    return True


def set_experiment(
    experiment_name: str | None = None, experiment_id: str | None = None, **options: Any
) -> Experiment | FoundExperiment | _UnresolvedExperiment:
    """Set the experiment that traces (and runs) go to, and make it if it is missing.

    Where the server cannot be reached the name is remembered, traces are recorded, and the sender makes the
    experiment when it delivers them.

    Args:
        experiment_name: Name of the experiment.
        experiment_id: Id of the experiment, in the place of its name.
        **options: Others of ``mlflow.set_experiment``: ``trace_location``.

    Returns:
        The ``mlflow.entities.Experiment``, for which MLflow is imported as soon as more than its name and id are
        asked for; one that knows its name alone where the server cannot be reached.

    Raises:
        MlflowException: neither or both of name and id are given, or the server refuses.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> mlflow.set_experiment("questions").name
        'questions'
        >>> with mlflow.start_span("of that experiment"):
        ...     pass
    """
    uri = destination.tracking_uri()
    if experiment_name is not None and experiment_id is None and not options:
        why_not = why_no_store(uri)
        if why_not is None and not _server_answers(uri):
            why_not = "the tracking server does not answer"
        if why_not is not None:
            log.warn(
                f"Experiment {experiment_name!r} will be looked up when its traces are delivered: {why_not}."
            )
            destination.set_experiment(name=experiment_name)
            return _UnresolvedExperiment(experiment_name)
    if not options:
        found = experiments.choose(uri, experiment_name, experiment_id)
        if found is not None:
            return found
    experiment = pure_mlflow("set_experiment")(
        experiment_name=experiment_name, experiment_id=experiment_id, **options
    )
    destination.set_experiment(experiment_id=experiment.experiment_id)
    return experiment
