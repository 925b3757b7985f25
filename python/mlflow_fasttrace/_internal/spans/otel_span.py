"""A span of the core as an OpenTelemetry span: ``span._span``, and the spans that tracers of
``mlflow_fasttrace.otel`` start.

Reading shows what the core's span holds now; writing arrives in it. An attribute of MLflow's is a JSON text
here, as in MLflow's own spans; one that another library set reads back as it was set.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, Span
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from mlflow_fasttrace._internal.base import patching
from mlflow_fasttrace._internal.base.version import is_mlflow
from mlflow_fasttrace._internal.config import otlp
from mlflow_fasttrace._internal.spans.event_attributes import with_tuples

if TYPE_CHECKING:
    from mlflow_fasttrace._core import LiveSpan


@functools.cache
def resource() -> Resource:
    """The resource of MLflow's provider, with the attributes that OpenTelemetry's variables add."""
    return Resource(otlp.resource())


_SCOPE = InstrumentationScope("mlflow_fasttrace")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)

#: The flags of the core's own traces. Their ids are random, which newer versions of OpenTelemetry say.
OWN_FLAGS = TraceFlags(TraceFlags.SAMPLED | getattr(TraceFlags, "RANDOM_TRACE_ID", 0))

#: The attribute of a span that keeps what other libraries set: (their value, its JSON text) by key.
_RAW = "_otel_attributes"


class _AttributeView(MutableMapping[str, Any]):
    """The attributes of a span as OpenTelemetry's SDK has them.

    Args:
        span: The core's span.
    """

    def __init__(self, span: LiveSpan):
        self._live = span

    def _as_set(self, key: str, text: str) -> Any:
        """The value that another library set, if the attribute has not changed since; else its text."""
        raw = getattr(self._live, _RAW, {}).get(key)
        return raw[0] if raw is not None and raw[1] == text else text

    def __getitem__(self, key: str) -> Any:
        return self._as_set(key, self._live._attribute_texts[key])

    def __setitem__(self, key: str, value: Any) -> None:
        live = self._live
        if isinstance(value, str):
            try:
                live.set_attribute(key, json.loads(value))
                return
            except ValueError:
                pass  # a plain text, as other libraries set them
        live.set_attribute(key, value)
        if (text := live._attribute_texts.get(key)) is not None:
            if not hasattr(live, _RAW):
                setattr(live, _RAW, {})
            getattr(live, _RAW)[key] = (value, text)

    def __delitem__(self, key: str) -> None:
        self._live._remove_attribute(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._live._attribute_texts)

    def __len__(self) -> int:
        return len(self._live._attribute_texts)

    def __repr__(self) -> str:
        return repr(self.copy())

    def copy(self) -> dict[str, Any]:
        return {key: self._as_set(key, text) for key, text in self._live._attribute_texts.items()}


def number_of_kind(kind: Any) -> int:
    """The number of a ``SpanKind``; that of INTERNAL for anything else, which libraries pass, too."""
    return kind.value if isinstance(kind, SpanKind) else SpanKind.INTERNAL.value


class OtelSpanView(Span):
    """A view of a span of the core; it holds nothing of its own but what OpenTelemetry alone knows.

    Args:
        span: The core's span.
    """

    _record_exception = True
    _set_status_on_exception = True
    _instrumentation_scope = _SCOPE
    _instrumentation_info = None

    def __new__(cls, span: LiveSpan) -> OtelSpanView:
        return object.__new__(cls)

    def __init__(self, span: LiveSpan):
        self._live = span

    @property
    def _kind(self) -> SpanKind:
        return SpanKind(self._live._kind)

    @_kind.setter
    def _kind(self, kind: Any) -> None:
        self._live._kind = number_of_kind(kind)

    @property
    def _resource(self) -> Resource:  # type: ignore[override]  # every span's is the same
        return resource()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OtelSpanView) and other._live is self._live

    def __hash__(self) -> int:
        return id(self._live)

    def _context_of(self, span_id: str) -> SpanContext:
        return SpanContext(
            trace_id=int(self._live._trace_id, 16),
            span_id=int(span_id, 16),
            is_remote=False,
            trace_flags=_SAMPLED if self._live._trace.remote else OWN_FLAGS,
        )

    @property
    def context(self) -> SpanContext:
        return self._context_of(self._live.span_id)

    _context = context

    def get_span_context(self) -> SpanContext:
        return self.context

    @property
    def parent(self) -> SpanContext | None:
        parent_id = self._live.parent_id
        return None if parent_id is None else self._context_of(parent_id)

    @property
    def _parent(self) -> SpanContext | None:
        return self.parent

    @_parent.setter
    def _parent(self, parent: SpanContext | None) -> None:
        self._live._move(0 if parent is None else parent.span_id)

    @property
    def name(self) -> str:
        return self._live.name

    @property
    def _name(self) -> str:
        return self._live.name

    @_name.setter
    def _name(self, name: str) -> None:
        self._live._rename(name)

    def update_name(self, name: str) -> None:
        if self.is_recording():
            self._live._rename(name)

    @property
    def attributes(self) -> _AttributeView:
        return _AttributeView(self._live)

    _attributes = attributes

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def set_attributes(self, attributes: Any) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    @property
    def events(self) -> list[Event]:
        return [
            Event(name, with_tuples(attributes), time_ns)
            for name, time_ns, attributes in self._live._event_tuples
        ]

    _events = events

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        live = self._live
        has_level = "mlflow.spanLogLevel" in live._attribute_texts
        # The core reads name, attributes and timestamp, which both kinds of event have.
        event: Any = Event(name, dict(attributes or {}), timestamp)
        live.add_event(event)
        if not has_level and "mlflow.spanLogLevel" in live._attribute_texts:
            # An error's log level is an attribute of MLflow's spans alone.
            live._remove_attribute("mlflow.spanLogLevel")

    @property
    def links(self) -> list[Link]:
        return [
            Link(
                SpanContext(
                    trace_id=int(link.trace_id.rpartition("/")[2].removeprefix("tr-"), 16),
                    span_id=int(link.span_id, 16),
                    is_remote=False,
                ),
                link.attributes,
            )
            for link in self._live._links
        ]

    _links = links

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        if not is_mlflow(3, 13):  # which keeps no links of spans
            return
        patching.wait_for_mlflow()
        from mlflow.entities import Link as MlflowLink

        self._live.add_link(
            MlflowLink(  # type: ignore[abstract]  # MLflow makes its links so
                f"tr-{context.trace_id:032x}",
                f"{context.span_id:016x}",
                dict(attributes) if attributes else None,
            )
        )

    @property
    def status(self) -> Status:
        code, message = self._live._status_pair
        return Status(StatusCode[code], message or None)

    _status = status

    def set_status(self, status: Any, description: str | None = None) -> None:
        patching.wait_for_mlflow()
        from mlflow.entities import SpanStatus

        if isinstance(status, Status):
            status, description = status.status_code, status.description
        self._live.set_status(SpanStatus(status.name, description or ""))

    @property
    def start_time(self) -> int:
        return self._live.start_time_ns

    _start_time = start_time

    @property
    def end_time(self) -> int | None:
        return self._live.end_time_ns

    @property
    def _end_time(self) -> int | None:
        return self._live.end_time_ns

    @_end_time.setter
    def _end_time(self, time_ns: int | None) -> None:
        """Do nothing: a span that has ended stays so, since its record has left."""

    def is_recording(self) -> bool:
        return self._live._is_recording()

    def end(self, end_time: int | None = None) -> None:
        """End the span as OpenTelemetry does: status and attributes stay as they were set.

        Args:
            end_time: Nanoseconds since the Unix epoch; by default now.
        """
        self._live._end_at(end_time)

    def _readable_span(self) -> Any:
        return self._live.to_immutable_span()._span

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, context={self.context!r})"
