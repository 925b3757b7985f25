"""A span of the core as an OpenTelemetry span, for code that reaches for ``span._span``.

Reading shows what the span holds now; writing arrives in the span. Attribute values are the JSON
texts that MLflow keeps in OpenTelemetry's attributes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, Span
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

if TYPE_CHECKING:
    from mlflow_fasttrace._core import LiveSpan

_EMPTY_RESOURCE = Resource.get_empty()
_SCOPE = InstrumentationScope("mlflow_fasttrace")


class _AttributeView(MutableMapping[str, Any]):
    def __init__(self, span: LiveSpan):
        self._live = span

    def __getitem__(self, key: str) -> Any:
        return self._live._attribute_texts[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                pass  # a plain text, as other libraries set them
        self._live.set_attribute(key, value)

    def __delitem__(self, key: str) -> None:
        self._live._remove_attribute(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._live._attribute_texts)

    def __len__(self) -> int:
        return len(self._live._attribute_texts)

    def __repr__(self) -> str:
        return repr(self._live._attribute_texts)

    def copy(self) -> dict[str, Any]:
        return self._live._attribute_texts


class OtelSpanView(Span):
    """Not a span of its own: everything is the core span's."""

    def __new__(cls, span: LiveSpan) -> OtelSpanView:
        return object.__new__(cls)

    def __init__(self, span: LiveSpan):
        self._live = span

    def _context_of(self, span_id: str) -> SpanContext:
        return SpanContext(
            trace_id=int(self._live._trace_id, 16),
            span_id=int(span_id, 16),
            is_remote=False,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
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

    _parent = parent

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
        self._live._rename(name)

    @property
    def kind(self) -> SpanKind:
        return SpanKind.INTERNAL

    _kind = kind

    @property
    def resource(self) -> Resource:
        return _EMPTY_RESOURCE

    _resource = resource

    @property
    def instrumentation_scope(self) -> InstrumentationScope:
        return _SCOPE

    _instrumentation_scope = instrumentation_scope

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
            Event(name, attributes, time_ns)
            for name, time_ns, attributes in self._live._event_tuples
        ]

    _events = events

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        from mlflow.entities import SpanEvent

        extra = {} if timestamp is None else {"timestamp": timestamp}
        self._live.add_event(SpanEvent(name=name, attributes=dict(attributes or {}), **extra))

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
        from mlflow.entities import Link as MlflowLink

        self._live.add_link(
            MlflowLink(
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
        from mlflow.entities import SpanStatus

        if isinstance(status, Status):
            status, description = status.status_code, status.description
        self._live.set_status(SpanStatus(status.name, description or ""))

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        from mlflow.entities import SpanEvent

        self._live.add_event(SpanEvent.from_exception(exception))

    @property
    def start_time(self) -> int:
        return self._live.start_time_ns

    _start_time = start_time

    @property
    def end_time(self) -> int | None:
        return self._live.end_time_ns

    _end_time = end_time

    def is_recording(self) -> bool:
        return self._live._is_recording()

    def end(self, end_time: int | None = None) -> None:
        self._live.end(end_time_ns=end_time)

    def _readable_span(self) -> Any:
        return self._live.to_immutable_span()._span
