"""MLflow's entities made of what a span holds, and checks that need them.

The C core calls these functions by name (``SPANS_ENTITIES`` in ``ext/base/python_side.h``): name and place
stay. MLflow is imported when one of its entities is needed, never before.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from mlflow_fasttrace._internal.base import log
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.version import is_mlflow
from mlflow_fasttrace._internal.spans.event_attributes import with_tuples

if TYPE_CHECKING:
    from mlflow.entities import Link, Span, SpanEvent, SpanLogLevel, SpanStatus
    from mlflow.exceptions import MlflowException
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtelProtoSpan

    from mlflow_fasttrace._core import LiveSpan
    from mlflow_fasttrace._internal.spans.otel_span import OtelSpanView

_KINDS = ("INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")  # by OpenTelemetry's number
_LOG_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


def invalid(message: str) -> MlflowException:
    """An ``MlflowException`` with the code INVALID_PARAMETER_VALUE."""
    from mlflow.exceptions import MlflowException

    return MlflowException.invalid_parameter_value(message)


def _check_known(member: str) -> None:
    """Raises:
    AttributeError: it is a member of spans that MLflow has from 3.13 on, and has not yet.
    """
    if not is_mlflow(3, 13):
        raise AttributeError(f"'LiveSpan' object has no attribute {member!r}")


def log_level_number(level: SpanLogLevel | str) -> int:
    """The number of a ``SpanLogLevel`` or of its name.

    Raises:
        AttributeError: MLflow has none yet.
        MlflowException: it is neither.
    """
    _check_known("set_log_level")
    if isinstance(level, str) and level.strip().upper() in _LOG_LEVELS:
        return _LOG_LEVELS[level.strip().upper()]
    from mlflow.entities import SpanLogLevel

    return int(SpanLogLevel.from_value(level))


def session_text(session_id: str | list[str]) -> str:
    """A session as metadata; from MLflow 3.18 on, one of several levels as a JSON list.

    Args:
        session_id: The session, or its levels, the outermost first.

    Raises:
        MlflowException: a level is no string, or there is none.
    """
    if not isinstance(session_id, list) or not is_mlflow(3, 18):
        return session_id  # type: ignore[return-value]  # metadata becomes text when it is recorded
    if session_id and all(isinstance(level, str) for level in session_id):
        return json.dumps(session_id, separators=(",", ":"), ensure_ascii=False)
    raise invalid(
        "The `session_id` parameter must be a string or a non-empty list of strings, "
        f"but got {session_id!r}."
    )


# ---- reading ----


def status(span: LiveSpan) -> SpanStatus:
    """``LiveSpan.status``."""
    from mlflow.entities import SpanStatus, SpanStatusCode

    code, message = span._status_pair
    return SpanStatus(SpanStatusCode(code), message)


def events(span: LiveSpan) -> list[SpanEvent]:
    """``LiveSpan.events``."""
    from mlflow.entities import SpanEvent

    return [
        SpanEvent(name=name, timestamp=time_ns, attributes=with_tuples(attributes))  # type: ignore[abstract]  # MLflow makes its events so
        for name, time_ns, attributes in span._event_tuples
    ]


def log_level(span: LiveSpan) -> SpanLogLevel | None:
    """``LiveSpan.log_level``."""
    _check_known("log_level")
    from mlflow.entities import SpanLogLevel

    level = span.get_attribute("mlflow.spanLogLevel")
    return None if level is None else SpanLogLevel(level)


def links(span: LiveSpan) -> list[Link]:
    """``LiveSpan.links``: copies; a change of one does not change the span."""
    _check_known("links")
    return [_link(link.trace_id, link.span_id, link.attributes) for link in span._links]


def _link(trace_id: str, span_id: str, attributes: Mapping[str, Any] | None) -> Link:
    """A ``Link`` with attributes of its own.

    Args:
        trace_id: Id of the trace, as MLflow writes it.
        span_id: Id of the span, 16 hexadecimal digits.
        attributes: Attributes of the link; they are copied.
    """
    from mlflow.entities import Link

    own = dict(attributes) if attributes else None
    return Link(trace_id, span_id, own)  # type: ignore[abstract]  # MLflow makes its links so


def to_dict(span: LiveSpan) -> dict[str, Any]:
    """``LiveSpan.to_dict``: ids in base64, times in nanoseconds, attributes as JSON texts."""
    code, message = span._status_pair

    def encoded(hexadecimal: str | None) -> str | None:
        if hexadecimal is None:
            return None
        return base64.b64encode(bytes.fromhex(hexadecimal)).decode()

    kind = {"kind": f"SPAN_KIND_{_KINDS[span._kind]}"} if is_mlflow(3, 18) else {}
    links = {"links": [link.to_dict() for link in span._links]} if is_mlflow(3, 13) else {}
    return {
        "trace_id": encoded(span._trace_id),
        "span_id": encoded(span.span_id),
        "parent_span_id": encoded(span.parent_id),
        "name": span.name,
        **kind,
        "start_time_unix_nano": span.start_time_ns,
        "end_time_unix_nano": span.end_time_ns,
        "events": [
            {"name": name, "time_unix_nano": time_ns, "attributes": with_tuples(attributes)}
            for name, time_ns, attributes in span._event_tuples
        ],
        "status": {"code": f"STATUS_CODE_{code}", "message": message},
        "attributes": span._attribute_texts,
        **links,
    }


def to_immutable_span(span: LiveSpan) -> Span:
    """``LiveSpan.to_immutable_span``: a copy, with the attachments."""
    from mlflow.entities import Span

    made = Span.from_dict(to_dict(span))
    made._attachments = dict(span._attachments)
    return made


def to_otel_proto(span: LiveSpan) -> OtelProtoSpan:
    """``LiveSpan.to_otel_proto``."""
    return to_immutable_span(span).to_otel_proto()


def no_subscript(span: LiveSpan, item: Any) -> NoReturn:
    """``span[item]``: refused with a hint, as in MLflow.

    Raises:
        TypeError: always.
    """
    hint = "Use attribute access instead, e.g. `span.inputs`, `span.outputs`, or `span.attributes`."
    if isinstance(item, str):
        if item.isidentifier() and not item.startswith("_") and hasattr(span, item):
            hint = f"Use attribute access instead, e.g. `span.{item}`."
        elif item in span.attributes:
            hint = (
                f"To access span attributes, use `span.get_attribute({item!r})` or "
                f"`span.attributes[{item!r}]`."
            )
    raise TypeError(f"'LiveSpan' object is not subscriptable. {hint}")


def no_pickle(span: LiveSpan) -> NoReturn:
    """``pickle.dumps(span)``: refused with a hint, as in MLflow.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        "'LiveSpan' cannot be pickled while active. "
        "Call `span.to_immutable_span()` to serialize finished span data."
    )


def no_deepcopy(span: LiveSpan) -> NoReturn:
    """``copy.deepcopy(span)``: refused with a hint, as in MLflow.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        "'LiveSpan' cannot be deepcopied while active. "
        "Call `span.to_immutable_span()` to copy finished span data."
    )


# ---- starting ----


class RootOptions(NamedTuple):
    """Options of a new span that few spans have: two of a root span alone, and the links of any. The
    core takes it as a tuple, in this order."""

    #: Id of the experiment that the trace goes to.
    experiment_id: str | None = None
    #: Id of the run that the trace belongs to.
    run_id: str | None = None
    links: list[Link] | None = None


def apply_root_options(
    span: LiveSpan, options: tuple[str | None, str | None, list[Link] | None]
) -> None:
    """Give a new span its links; and say so, in a log line, where a span that is no root was given options
    of a root.

    Args:
        span: The new span.
        options: ``RootOptions``.
    """
    experiment_id, run_id, given_links = options
    if span.parent_id is not None:
        for parameter, value in (("experiment_id", experiment_id), ("run_id", run_id)):
            if value is not None:
                log.warn(
                    f"The `{parameter}` parameter can only be used for root spans, but the span "
                    f"`{span.name}` is not a root span. The specified value `{value}` will be "
                    "ignored."
                )
    for link in given_links or ():
        try:
            add_link(span, link)
        except Exception as error:
            let_pass(error)
            log.logger.warning("Skipping invalid link: %s", link)


def add_link(span: LiveSpan, link: Link) -> None:
    """``LiveSpan.add_link``. A link to another location of Unity Catalog is left out, with a log line.

    Raises:
        AttributeError: MLflow has no links yet.
        MlflowException: it is no link, or one of its ids is none.
    """
    _check_known("add_link")
    from mlflow.entities import Link

    if not isinstance(link, Link):
        raise invalid(f"The `link` parameter must be a Link instance, but got {type(link)}.")
    try:
        trace_id, location = link.trace_id, None
        if trace_id.startswith("trace:/"):
            location, _, trace_id = trace_id[len("trace:/") :].rpartition("/")
        for text, size in ((trace_id.removeprefix("tr-"), 16), (link.span_id, 8)):
            int(text, 16).to_bytes(size, "big")
    except (ValueError, OverflowError, AttributeError, TypeError) as error:
        raise invalid(
            f"Invalid link: trace_id={link.trace_id!r}, span_id={link.span_id!r}. trace_id must be "
            "a valid MLflow trace ID or hex string, and span_id must be a hex string."
        ) from error
    if location:
        log.warn(
            f"Cross-location span links are not supported. The link from trace '{span.trace_id}' "
            f"to trace '{link.trace_id}' will be skipped."
        )
        return
    own = _link(link.trace_id, link.span_id, link.attributes)
    span._links.append(own)
    span._append_link(own.trace_id, own.span_id, own.attributes)


# ---- a span as OpenTelemetry's, for code that reaches for `span._span` ----


def otel_span(span: LiveSpan) -> OtelSpanView:
    """``span._span``."""
    from mlflow_fasttrace._internal.spans.otel_span import OtelSpanView

    return OtelSpanView(span)


class _AttributeRegistry:
    """``span._attributes`` of MLflow: ``get``, ``get_all`` and ``set``."""

    def __init__(self, span: LiveSpan):
        self._live = span

    def get(self, key: str) -> Any:
        return self._live.get_attribute(key)

    def get_all(self) -> dict[str, Any]:
        return self._live.attributes

    def set(self, key: str, value: Any) -> None:
        self._live.set_attribute(key, value)


def attribute_registry(span: LiveSpan) -> _AttributeRegistry:
    """``span._attributes``."""
    return _AttributeRegistry(span)


# ---- inputs and outputs that need a second look ----


def _plain(value: Any) -> Any:
    """The value with tuples made lists, at every depth."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def payload_repr(value: Any) -> str:
    """The text of inputs or outputs that are not JSON. MLflow rebuilds their containers while it
    looks for attachments, so tuples show as lists."""
    try:
        value = _plain(value)
    except Exception as error:
        let_pass(error)
        # Otherwise it is too deep, or a cycle, and is shown as it is.
    return repr(value)


def extract_attachments(span: LiveSpan, value: Any) -> Any:
    """Inputs or outputs without the binary content, which ``span._attachments`` gets."""
    from mlflow_fasttrace._internal.spans.attachments import extract

    return extract(span, value)
