"""The functions on traces by their ids: reading them, tags, assessments, adding one to another.

A trace of this process that is still in flight is changed in memory. Any other is left to MLflow's own function,
which is called when what this process recorded is delivered.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log, patching
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.version import is_mlflow
from mlflow_fasttrace._internal.config import engine
from mlflow_fasttrace._internal.recording import changes, flush
from mlflow_fasttrace._internal.spans import entities
from mlflow_fasttrace._internal.spans.copies import TRACE_ID_KEY, copy_contents
from mlflow_fasttrace._internal.spans.no_op import NO_OP_SPAN_TRACE_ID
from mlflow_fasttrace.fluent import (
    IMMUTABLE_TAGS,
    get_active_trace_id,
    get_current_active_span,
    pure_mlflow,
    start_span_no_context,
)

if TYPE_CHECKING:
    from mlflow.entities import (
        Assessment,
        AssessmentError,
        AssessmentSource,
        Span,
        Trace,
    )

    from mlflow_fasttrace._core import LiveSpan
    from mlflow_fasttrace._internal.spans.no_op import NoOpSpan

_Function = TypeVar("_Function", bound=Callable[..., Any])

_ARCHIVAL_FAILURE = "mlflow.trace.archivalFailure"
#: Those of a trace in flight; before 3.13, MLflow lets a program change them.
_IMMUTABLE_IN_FLIGHT = IMMUTABLE_TAGS if is_mlflow(3, 13) else frozenset()


def _also_as_request_id(function: _Function) -> _Function:
    """A decorator that takes a trace's id under its former name too, with a warning, as MLflow does."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "request_id" in kwargs:
            warnings.warn(
                f"Parameter 'request_id' of {function.__name__}() is deprecated; use 'trace_id'.",
                category=FutureWarning,
                stacklevel=2,
            )
            request_id = kwargs.pop("request_id")
            if "trace_id" in kwargs:
                raise ValueError("Cannot specify both 'request_id' and 'trace_id'")
            kwargs["trace_id"] = request_id
        return function(*args, **kwargs)

    return cast(_Function, call)


def flush_trace_async_logging(terminate: bool = False) -> None:
    """Wait until everything that has ended is delivered, as long as anything is (30 s without that at most).

    Args:
        terminate: Accepted as MLflow does; this process has no logging threads to end.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     pass
        >>> mlflow.flush_trace_async_logging()
        >>> mlflow.MlflowClient().get_trace(span.trace_id).info.state.value
        'OK'
    """
    if not flush.flush():
        log.warn(
            f"Not everything is delivered yet: {flush.what_waits()}. "
            "This process goes on, and so does delivery."
        )


#: Of functions of MLflow that ``after_flush`` hands out: a parameter's former name, and its present one.
_FORMER_PARAMETERS = {"search_traces": ("experiment_ids", "locations")}

#: What ``after_flush`` says of each until MLflow's own documentation is there: a summary and an example.
_ABOUT = {
    "delete_assessment": """Delete an assessment of a trace.

    Args:
        *args: As of ``mlflow.delete_assessment``.
        **kwargs: As of ``mlflow.delete_assessment``.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     pass
        >>> feedback = mlflow.log_feedback(trace_id=span.trace_id, name="correct", value=True)
        >>> mlflow.delete_assessment(span.trace_id, feedback.assessment_id)
        >>> mlflow.get_trace(span.trace_id).info.assessments
        []
    """,
    "get_assessment": """An assessment of a trace, by its id.

    Args:
        *args: As of ``mlflow.get_assessment``.
        **kwargs: As of ``mlflow.get_assessment``.

    Returns:
        The ``Assessment``: a ``Feedback``, an ``Expectation`` or another one.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     pass
        >>> feedback = mlflow.log_feedback(trace_id=span.trace_id, name="correct", value=True)
        >>> mlflow.get_assessment(span.trace_id, feedback.assessment_id).value
        True
    """,
    "log_issue": """Log that a trace shows an issue that is known.

    Args:
        *args: As of ``mlflow.log_issue``.
        **kwargs: As of ``mlflow.log_issue``.

    Returns:
        The ``Assessment``.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     pass
        >>> mlflow.log_issue(trace_id=span.trace_id, issue_id="iss-1")
        Traceback (most recent call last):
        mlflow.exceptions.MlflowException: Issue with ID 'iss-1' not found
    """,
    "override_feedback": """Put feedback in the place of other feedback, which is kept as overridden.

    Args:
        *args: As of ``mlflow.override_feedback``.
        **kwargs: As of ``mlflow.override_feedback``.

    Returns:
        The new ``Feedback``, whose ``overrides`` is the id of the other one.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     pass
        >>> first = mlflow.log_feedback(trace_id=span.trace_id, name="correct", value=True)
        >>> second = mlflow.override_feedback(
        ...     trace_id=span.trace_id, assessment_id=first.assessment_id, value=False
        ... )
        >>> second.overrides == first.assessment_id
        True
    """,
    "search_sessions": """The sessions of an experiment, each with its traces.

    Args:
        *args: As of ``mlflow.search_sessions``.
        **kwargs: As of ``mlflow.search_sessions``.

    Returns:
        A list of ``Session``, each of which is a list of traces with an ``id``.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> experiment = mlflow.set_experiment("sessions")
        >>> with mlflow.context(session_id="s-1"):
        ...     with mlflow.start_span("turn"):
        ...         pass
        >>> [session.id for session in mlflow.search_sessions()]
        ['s-1']
    """,
    "search_traces": """The traces that a filter finds, as a data frame or a list.

    Args:
        *args: As of ``mlflow.search_traces``.
        **kwargs: As of ``mlflow.search_traces``.

    Returns:
        A ``pandas.DataFrame``, or a list of ``Trace``, as ``return_type`` says.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> experiment = mlflow.set_experiment("searched")
        >>> with mlflow.start_span("work"):
        ...     mlflow.update_current_trace(tags={"stage": "beta"})
        >>> found = mlflow.search_traces(filter_string="tags.stage = 'beta'", return_type="list")
        >>> [trace.data.spans[0].name for trace in found]
        ['work']
    """,
    "update_assessment": """Change an assessment of a trace.

    Args:
        *args: As of ``mlflow.update_assessment``.
        **kwargs: As of ``mlflow.update_assessment``.

    Returns:
        The ``Assessment`` as it is now.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> from mlflow_fasttrace.entities import Feedback
        >>> with mlflow.start_span("work") as span:
        ...     pass
        >>> feedback = mlflow.log_feedback(trace_id=span.trace_id, name="correct", value=True)
        >>> mlflow.update_assessment(
        ...     span.trace_id, feedback.assessment_id, Feedback(name="correct", value=False)
        ... ).value
        False
    """,
}

#: By name, what ``after_flush`` returned.
_after_flush: dict[str, Callable[..., Any]] = {}


def after_flush(name: str) -> Callable[..., Any]:
    """MLflow's function of that name, which sees what this process recorded before a call. Only a call
    imports MLflow; the signature and the documentation are MLflow's from then on, or from when MLflow
    runs on the core.

    Args:
        name: Its name in ``mlflow``.
    """

    former, present = _FORMER_PARAMETERS.get(name, ("", ""))

    def call(*args: Any, **kwargs: Any) -> Any:
        if former in kwargs and present not in kwargs:
            # MLflow would say so of this line, not of the program's.
            warnings.warn(
                f"Parameter '{former}' is deprecated. Please use '{present}' instead.",
                category=FutureWarning,
                stacklevel=2,
            )
            kwargs[present] = kwargs.pop(former)
        function = _mlflow(name)
        _describe(call, function)
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = _ABOUT[name]
    call = _after_flush.setdefault(name, call)
    if "mlflow" in sys.modules:
        describe_after_flush()
    return call


def describe_after_flush() -> None:
    """Gives the functions of ``after_flush`` the signatures and documentation of MLflow's, which is
    loaded."""
    for name, call in list(_after_flush.items()):
        if (function := getattr(sys.modules["mlflow"], name, None)) is not None:
            _describe(call, patching.original(function))


def _describe(call: Callable[..., Any], function: Callable[..., Any]) -> None:
    if getattr(call, "__wrapped__", None) is not function:
        functools.update_wrapper(call, function)


def _mlflow(name: str) -> Callable[..., Any]:
    """MLflow's function of that name, after what this process recorded is delivered."""
    flush.before_reading()
    return pure_mlflow(name)


@_also_as_request_id
def get_trace(trace_id: str, silent: bool = False, flush: bool = False) -> Trace | None:
    """A trace by its id, as the server has it; what this process recorded is delivered first.

    Args:
        trace_id: Id of the trace.
        silent: Whether a trace that is not found costs no warning.
        flush: Accepted as MLflow does; delivery is waited for in any case.

    Returns:
        The trace; None where it is not found.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     span.set_outputs(1)
        >>> trace = mlflow.get_trace(span.trace_id)
        >>> [(span.name, span.outputs) for span in trace.data.spans]
        [('work', 1)]
    """
    return _mlflow("get_trace")(trace_id, silent=silent, flush=flush)


# ---- tags ----


@_also_as_request_id
def set_trace_tag(trace_id: str, key: str, value: str) -> None:
    """Set a tag of a trace, in flight or delivered. Where another program of this machine may have it in flight, the
    tag waits until it is at the server.

    Args:
        trace_id: Id of the trace.
        key: Key, up to 250 characters. MLflow's own tags are left alone, with a log line.
        value: Value; anything but a string is made one, with a log line.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     pass
        >>> mlflow.set_trace_tag(span.trace_id, "reviewed", "yes")
        >>> mlflow.get_trace(span.trace_id).info.tags["reviewed"]
        'yes'
    """
    trace = _core.live_trace(trace_id)
    if trace is None or changes.is_inherited(trace_id):

        def attempt() -> None:
            _mlflow("set_trace_tag")(trace_id, key, value)

        if key in IMMUTABLE_TAGS:
            attempt()  # says so
        else:
            changes.set_trace_tag(trace_id, key, value, attempt)
        return
    if not isinstance(value, str):
        log.logger.warning(
            "Received non-string value for trace tag. Please note that non-string tag values will "
            "automatically be stringified when the trace is logged."
        )
    if key in _IMMUTABLE_IN_FLIGHT:
        log.logger.warning("Tag '%s' is immutable and cannot be set on a trace.", key)
        return
    trace.tags[key] = str(value)


@_also_as_request_id
def delete_trace_tag(trace_id: str, key: str) -> None:
    """Delete a tag of a trace, in flight or delivered.

    Args:
        trace_id: Id of the trace.
        key: Key of the tag. MLflow's own tags are left alone, with a log line.

    Raises:
        MlflowException: the trace has no such tag.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     mlflow.set_trace_tag(span.trace_id, "draft", "yes")
        ...     mlflow.delete_trace_tag(span.trace_id, "draft")
        >>> "draft" in mlflow.get_trace(span.trace_id).info.tags
        False
    """
    trace = _core.live_trace(trace_id)
    if trace is None:
        _mlflow("delete_trace_tag")(trace_id, key)
        return
    if key in _IMMUTABLE_IN_FLIGHT - {_ARCHIVAL_FAILURE}:
        log.logger.warning("Tag '%s' is immutable and cannot be deleted on a trace.", key)
        return
    if key not in trace.tags:
        patching.wait_for_mlflow()
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

        raise MlflowException(
            f"Tag with key {key} not found in trace with ID {trace_id}.",
            error_code=RESOURCE_DOES_NOT_EXIST,
        )
    del trace.tags[key]


# ---- assessments ----


def log_assessment(trace_id: str, assessment: Assessment) -> Assessment:
    """Log a ``Feedback``, an ``Expectation`` or another ``Assessment`` to a trace.

    An assessment of the current span's trace travels with the trace; any other goes to the server now, or, where
    another program of this machine may have the trace in flight, when it is there.

    Args:
        trace_id: Id of the trace.
        assessment: The assessment; its ``trace_id`` is set.

    Returns:
        The assessment; the server's, where it went there.

    Raises:
        MlflowException: the server refuses it, or has no such trace.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> from mlflow_fasttrace.entities import Feedback
        >>> with mlflow.start_span("work") as span:
        ...     pass
        >>> mlflow.log_assessment(span.trace_id, Feedback(name="polite", value=True)).name
        'polite'
    """
    assessment.trace_id = trace_id
    if trace_id is None or trace_id == NO_OP_SPAN_TRACE_ID:
        return assessment
    trace = _core.live_trace(trace_id)
    if (
        trace is None
        or trace.remote
        or changes.is_inherited(trace_id)
        or trace_id != get_active_trace_id()
    ):
        return changes.log_assessment(
            trace_id, assessment, lambda: _mlflow("log_assessment")(trace_id, assessment)
        )
    try:
        trace.assessments.append(assessment.to_dictionary())
        if trace.info is not None:
            trace.info.assessments.append(assessment)
    except Exception as error:
        let_pass(error)
        log.warn(f"An assessment cannot be logged to {trace_id}: {error}")
    return assessment


def log_feedback(
    *,
    trace_id: str,
    name: str = "feedback",
    value: Any = None,
    source: AssessmentSource | None = None,
    error: Exception | AssessmentError | None = None,
    rationale: str | None = None,
    metadata: dict[str, Any] | None = None,
    span_id: str | None = None,
) -> Assessment:
    """Log feedback to a trace: what a judge, a person or a program thinks of it.

    Args:
        trace_id: Id of the trace.
        name: Name of the assessment.
        value: A number, string, bool, or a list or dictionary of them.
        source: Who gives it; by default code.
        error: What the assessment ran into.
        rationale: Why.
        metadata: Additional data.
        span_id: Id of the span that it is about.

    Returns:
        The ``Feedback``.

    Raises:
        MlflowException: the server refuses it.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     pass
        >>> mlflow.log_feedback(trace_id=span.trace_id, name="correct", value=0.9).value
        0.9
    """
    patching.wait_for_mlflow()
    from mlflow.entities import Feedback

    return log_assessment(
        trace_id,
        Feedback(
            name=name,
            value=value,
            source=source,
            error=error,
            rationale=rationale,
            metadata=metadata,
            span_id=span_id,
        ),
    )


def log_expectation(
    *,
    trace_id: str,
    name: str,
    value: Any,
    source: AssessmentSource | None = None,
    metadata: dict[str, Any] | None = None,
    span_id: str | None = None,
) -> Assessment:
    """Log what a trace was expected to give.

    Args:
        trace_id: Id of the trace.
        name: Name of the assessment.
        value: Any JSON value.
        source: Who expects it; by default a person.
        metadata: Additional data.
        span_id: Id of the span that it is about.

    Returns:
        The ``Expectation``.

    Raises:
        MlflowException: the server refuses it.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("work") as span:
        ...     pass
        >>> mlflow.log_expectation(trace_id=span.trace_id, name="answer", value="here").value
        'here'
    """
    patching.wait_for_mlflow()
    from mlflow.entities import Expectation

    return log_assessment(
        trace_id,
        Expectation(name=name, value=value, source=source, metadata=metadata, span_id=span_id),
    )


# ---- whole traces ----


def add_trace(trace: Trace | dict[str, Any], target: LiveSpan | None = None) -> None:
    """Put a completed trace, of a remote service say, under a span of this process.

    Args:
        trace: The trace, or its dictionary. Parents come before their children.
        target: The span that it goes under; by default the current one; without any, a trace "Remote Trace
            <name>" is made for it.

    Raises:
        MlflowException: it is no trace, has not ended, or a parent is missing.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("of a service") as span:
        ...     pass
        >>> remote = mlflow.get_trace(span.trace_id).to_dict()
        >>> with mlflow.start_span("call") as call:
        ...     mlflow.add_trace(remote)
        >>> [span.name for span in mlflow.get_trace(call.trace_id).data.spans]
        ['call', 'of a service']
    """
    if engine.settle() is not None:
        pure_mlflow("add_trace")(trace, target)
        return
    if not _core.enabled():
        return
    trace = _completed(trace)
    if span := target or get_current_active_span():
        _merge(trace, span)
        return
    root = trace.data.spans[0]
    around = start_span_no_context(
        name=f"Remote Trace <{root.name}>",
        inputs=root.inputs,
        attributes={key: value for key, value in root.attributes.items() if key != TRACE_ID_KEY},
        start_time_ns=root.start_time_ns - 1,  # it sorts before what it holds
    )
    _merge(trace, around)
    around.end(status=trace.info.status, outputs=root.outputs, end_time_ns=root.end_time_ns)


def _completed(trace: Any) -> Trace:
    """The trace that was given, or that a dictionary stands for.

    Raises:
        MlflowException: it is no trace, or has not ended.
    """
    patching.wait_for_mlflow()
    from mlflow.entities import Trace
    from mlflow.entities.trace_status import TraceStatus

    if isinstance(trace, dict):
        try:
            trace = Trace.from_dict(trace)
        except Exception as error:
            let_pass(error)
            raise entities.invalid(
                "Failed to load a trace object from the given dictionary. Please ensure the "
                f"dictionary is in the correct MLflow Trace format. Error: {error}"
            ) from error
    elif not isinstance(trace, Trace):
        raise entities.invalid(
            f"Invalid trace object: {type(trace)}. Please provide a valid MLflow Trace object to "
            "use it as a remote trace. You can create a Trace object from its json format by using "
            "the Trace.from_dict() method."
        )
    if trace.info.status not in TraceStatus.end_statuses():
        raise entities.invalid(
            "The trace must be ended before adding it to another trace. "
            f"Current status: {trace.info.status}."
        )
    return trace


def _merge(trace: Trace, target: LiveSpan | NoOpSpan) -> None:
    """Record a trace's spans, tags and metadata in the target's trace. A warning, and nothing else, where that
    is not in flight.

    Raises:
        MlflowException: a span comes before its parent.
    """
    if not isinstance(target, _core.LiveSpan) or target._trace.complete:
        log.logger.warning("Parent trace with ID %s not found. Skipping merge.", target.trace_id)
        return
    into = target._trace
    known = {span.span_id for span in into.spans()}
    for span in trace.data.spans:
        parent_id = span.parent_id or target.span_id
        if parent_id not in known:
            raise entities.invalid(
                f"Span with ID {parent_id} not found. Please make sure the spans in the trace are "
                "ordered correctly i.e. the parent span comes before its children."
            )
        known.add(span.span_id)
        _add_clone(span, target, parent_id)
    for key, value in trace.info.tags.items():
        if key not in IMMUTABLE_TAGS:  # they say where the other trace is stored
            into.tags.setdefault(key, value)
    for key, value in trace.info.request_metadata.items():
        into.inherited_metadata.setdefault(key, value)


def _add_clone(span: Span, target: LiveSpan, parent_id: str) -> None:
    """Record a span of another trace, with its own id, in the target's trace."""
    clone = _core.start_span(
        span.name, target, None, span.start_time_ns, int(span.span_id, 16), int(parent_id, 16)
    )
    if isinstance(clone, _core.LiveSpan):
        copy_contents(span, clone)
        clone.end(end_time_ns=span.end_time_ns)


def log_trace(
    name: str = "Task",
    request: Any | None = None,
    response: Any | None = None,
    intermediate_outputs: dict[str, Any] | None = None,
    attributes: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
    start_time_ms: int | None = None,
    execution_time_ms: int | None = None,
) -> str:
    """Record a trace of one span. Deprecated in MLflow; use :py:func:`start_span_no_context`.

    Args:
        name: Name of the span.
        request: Its inputs.
        response: Its outputs.
        intermediate_outputs: By name, what came in between; an attribute of the span.
        attributes: Attributes of the span.
        tags: Tags of the trace.
        start_time_ms: Milliseconds since the Unix epoch; by default now.
        execution_time_ms: Duration in milliseconds; without it, or without a start, the span ends now.

    Returns:
        The id of the trace.

    Example:
        >>> import warnings
        >>> import mlflow_fasttrace as mlflow
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", FutureWarning)
        ...     trace_id = mlflow.log_trace(name="done elsewhere", request=1, response=2)
        >>> mlflow.get_trace(trace_id).data.spans[0].outputs
        2
    """
    warnings.warn(
        "``mlflow.tracing.fluent.log_trace`` is deprecated since 3.6.0. This method will be removed in a future "
        "release.",
        category=FutureWarning,
        stacklevel=2,
    )
    attributes = dict(attributes or {})
    if intermediate_outputs:
        attributes["mlflow.trace.intermediate_outputs"] = intermediate_outputs
    start_ns = start_time_ms * 1_000_000 if start_time_ms else None
    end_ns = None
    if start_time_ms and execution_time_ms:
        end_ns = (start_time_ms + execution_time_ms) * 1_000_000
    span = start_span_no_context(
        name=name, inputs=request, attributes=attributes, tags=tags, start_time_ns=start_ns
    )
    span.end(outputs=response, end_time_ns=end_ns)
    return span.trace_id
