"""Types of the C core, ext/. Its docstrings say what each does; here are the types of what it takes
and returns."""

from collections.abc import Callable
from contextvars import ContextVar
from os import PathLike
from types import TracebackType
from typing import Any, NoReturn, final

from mlflow.entities import Link, Span, SpanEvent, SpanLogLevel, SpanStatus

#: (end position, kind, trace id, record); the kinds are those of _internal/spool/records.py.
_Item = tuple[int, int, bytes, bytes]
_Path = str | bytes | PathLike[str] | PathLike[bytes]

current_span_var: ContextVar[LiveSpan | NonRecordingSpan | None]
last_trace_id_var: ContextVar[str | None]
scope_var: ContextVar[tuple[dict[str, Any], dict[str, Any], bool | None] | None]

@final
class LiveSpan:
    """A span that is being recorded. Made by ``start_span`` and ``@trace``, never by its class.

    Its methods are those of ``mlflow.entities.LiveSpan``. None of them raises into the program but where ``Raises``
    says so.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> with mlflow.start_span("answer", span_type="AGENT") as span:
        ...     span.set_inputs({"question": "why?"})
        ...     with mlflow.start_span("look up") as below:
        ...         pass
        >>> span.name, span.span_type, span.inputs
        ('answer', 'AGENT', {'question': 'why?'})
        >>> below.parent_id == span.span_id, below.trace_id == span.trace_id == span.request_id
        (True, True)
        >>> span.start_time_ns <= below.start_time_ns <= below.end_time_ns <= span.end_time_ns
        True
        >>> str(span.status.status_code), span.outputs, span.events, span.links
        ('SpanStatusCode.OK', None, [], [])
        >>> span.description, span.model_name, span.llm_cost
        (None, None, None)
    """

    @property
    def trace_id(self) -> str:
        """The id of the trace, ``tr-`` and 32 hexadecimal digits."""
    @property
    def request_id(self) -> str:
        """The former name of ``trace_id``. Deprecated in MLflow."""
    @property
    def span_id(self) -> str:
        """The id of the span, 16 hexadecimal digits."""
    @property
    def parent_id(self) -> str | None:
        """The id of the span above it; None of a root."""
    @property
    def name(self) -> str:
        """The name of the span."""
    @property
    def start_time_ns(self) -> int:
        """When it started, in nanoseconds since the Unix epoch."""
    @property
    def end_time_ns(self) -> int | None:
        """When it ended, in nanoseconds since the Unix epoch; None while it is open."""
    @property
    def inputs(self) -> Any:
        """The inputs, as they were when they were set; None where there are none."""
    @property
    def outputs(self) -> Any:
        """The outputs, as they were when they were set; None where there are none."""
    @property
    def span_type(self) -> str | None:
        """The type, a name of ``SpanType`` or any other string."""
    @property
    def description(self) -> str | None:
        """The description; None where there is none."""
    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of all attributes, those of MLflow (``mlflow.spanInputs``, ...) among them."""
    @property
    def status(self) -> SpanStatus:
        """A copy of the status; its code is UNSET while the span is open and nobody has set one."""
    @property
    def events(self) -> list[SpanEvent]:
        """Copies of the events, in the order in which they were added."""
    @property
    def log_level(self) -> SpanLogLevel | None:
        """The log level; None where there is none. From MLflow 3.13 on."""
    @property
    def _status_pair(self) -> tuple[str, str]: ...
    @property
    def _event_tuples(self) -> list[tuple[str, int, dict[str, Any]]]: ...
    def set_inputs(self, inputs: Any) -> None:
        """Set the inputs, which are copied now.

        Args:
            inputs: Any value. What JSON does not have becomes what MLflow makes of it.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("answer") as span:
            ...     span.set_inputs({"question": "why?"})
            >>> span.inputs
            {'question': 'why?'}
        """

    def set_outputs(self, outputs: Any) -> None:
        """Set the outputs, which are copied now.

        Args:
            outputs: Any value. What JSON does not have becomes what MLflow makes of it.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("answer") as span:
            ...     span.set_outputs("because")
            >>> span.outputs
            'because'
        """

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute, which is copied now. A span that has ended takes none: there is a log line.

        Args:
            key: A string that is not empty. Anything else costs a log line.
            value: Any value. What JSON does not have becomes what MLflow makes of it.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("answer") as span:
            ...     span.set_attribute("temperature", 0.2)
            >>> span.attributes["temperature"]
            0.2
        """

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        """Set several attributes, each as by ``set_attribute``.

        Args:
            attributes: The values by their keys. Anything but a dictionary costs a log line.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("answer") as span:
            ...     span.set_attributes({"temperature": 0.2, "top_k": 5})
            >>> span.get_attribute("top_k")
            5
        """

    def set_span_type(self, span_type: str | None) -> None:
        """Set the type.

        Args:
            span_type: A name of ``SpanType``, any other string, or None.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("search") as span:
            ...     span.set_span_type(mlflow.SpanType.RETRIEVER)
            >>> span.span_type
            'RETRIEVER'
        """

    def set_description(self, description: str) -> None:
        """Set the description: what the span is there for.

        Args:
            description: A text for people.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("search") as span:
            ...     span.set_description("Looks in the handbook")
            >>> span.description
            'Looks in the handbook'
        """

    def set_log_level(self, level: SpanLogLevel | str) -> None:
        """Set the log level. From MLflow 3.13 on.

        Args:
            level: A ``SpanLogLevel``, or its name.

        Raises:
            MlflowException: it is neither.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("search") as span:
            ...     span.set_log_level("WARNING")
            >>> span.log_level.name
            'WARNING'
        """

    def set_status(self, status: SpanStatus | str) -> None:
        """Set the status. Without it the span ends as OK, or as ERROR where an exception leaves it.

        Args:
            status: ``OK``, ``ERROR`` or ``UNSET``, or a ``SpanStatus``, which may have a text.

        Raises:
            MlflowException: it is none of these.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("search") as span:
            ...     span.set_status("ERROR")
            >>> span.status.status_code.name
            'ERROR'
        """

    def add_event(self, event: Any) -> None:
        """Add an event: something that happened at a point in time.

        Args:
            event: A ``SpanEvent``, or another object with its ``name``, ``timestamp`` (nanoseconds since the
                Unix epoch) and ``attributes``.

        Raises:
            AttributeError: the object lacks one of them.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> from mlflow_fasttrace.entities import SpanEvent
            >>> with mlflow.start_span("search") as span:
            ...     span.add_event(SpanEvent("cache miss", attributes={"key": "handbook"}))
            >>> span.events[0].name, span.events[0].attributes
            ('cache miss', {'key': 'handbook'})
        """

    def record_exception(self, exception: Exception | str) -> None:
        """Add an exception as an event, and set the status to ERROR.

        Args:
            exception: The exception, or a text in its place.

        Raises:
            MlflowException: it is neither.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("search") as span:
            ...     span.record_exception(ValueError("no such page"))
            >>> span.status.description
            'ValueError: no such page'
        """

    def get_attribute(self, key: str) -> Any:
        """The value of an attribute.

        Args:
            key: Key of the attribute.

        Returns:
            A copy of its value; None where it is not set.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("search") as span:
            ...     span.set_attribute("pages", [3, 5])
            >>> span.get_attribute("pages")
            [3, 5]
        """

    def end(
        self,
        outputs: Any = None,
        attributes: dict[str, Any] | None = None,
        status: SpanStatus | str | None = None,
        end_time_ns: int | None = None,
    ) -> None:
        """End the span. Nothing happens where it has ended already.

        Args:
            outputs: Its outputs; None leaves those that were set.
            attributes: More attributes.
            status: ``OK``, ``ERROR`` or ``UNSET``, or a ``SpanStatus``. Anything else costs a log line.
            end_time_ns: Nanoseconds since the Unix epoch; by default now.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> span = mlflow.start_span_no_context("job")
            >>> span.end(outputs=3, status="OK")
            >>> span.outputs, span.end_time_ns >= span.start_time_ns
            (3, True)
        """

    def add_link(self, link: Link) -> None:
        """Add a link to another span, of this trace or of another one. From MLflow 3.13 on.

        Args:
            link: The link, which is copied.

        Raises:
            MlflowException: it is no ``Link``, or one of its ids is none.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> from mlflow_fasttrace.entities import Link
            >>> with mlflow.start_span("ask") as first:
            ...     pass
            >>> with mlflow.start_span("ask again") as second:
            ...     second.add_link(Link(first.trace_id, first.span_id))
            >>> second.links[0].span_id == first.span_id
            True
        """

    def to_dict(self) -> dict[str, Any]:
        """The span as a dictionary that JSON can hold.

        Returns:
            What ``mlflow.entities.Span.to_dict()`` makes: ids in base64, times in nanoseconds since the Unix epoch,
            attributes as JSON texts.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("search") as span:
            ...     span.set_inputs({"page": 3})
            >>> span.to_dict()["attributes"]["mlflow.spanInputs"]
            '{"page": 3}'
        """

    def to_immutable_span(self) -> Span:
        """A copy that stays as it is, and can be pickled.

        Returns:
            A span that holds what this one holds now.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("search") as span:
            ...     span.set_outputs(3)
            >>> copy = span.to_immutable_span()
            >>> type(copy).__name__, copy.outputs
            ('Span', 3)
        """

    def to_otel_proto(self) -> Any:
        """The span as a message of OTLP.

        Returns:
            An ``opentelemetry.proto.trace.v1.trace_pb2.Span``.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("search") as span:
            ...     pass
            >>> span.to_otel_proto().name
            'search'
        """

    @classmethod
    def from_immutable_span(
        cls,
        span: Span,
        parent_span_id: str | None = None,
        trace_id: str | None = None,
        experiment_id: str | None = None,
        otel_trace_id: str | None = None,
    ) -> LiveSpan:
        """An open span that holds what another one holds: id, name, start, attributes, status and events, not links.

        Args:
            span: The span that is copied.
            parent_span_id: Id of the span that it goes under, in the trace of ``trace_id``.
            trace_id: Id of the trace of this process, in flight, that it joins. Without it, it begins one.
            experiment_id: Id of the experiment of the trace that it begins.
            otel_trace_id: Taken as MLflow takes it; ``trace_id`` decides.

        Returns:
            The span, to be ended by ``end()``; a ``NoOpSpan`` where nothing is recorded.

        Example:
            >>> import mlflow_fasttrace as mlflow
            >>> with mlflow.start_span("search") as span:
            ...     span.set_outputs(3)
            >>> copy = type(span).from_immutable_span(span.to_immutable_span())
            >>> copy.end()
            >>> copy.outputs, copy.trace_id == span.trace_id
            (3, False)
        """

    @property
    def links(self) -> list[Link]:
        """Copies of the links. From MLflow 3.13 on."""
    @property
    def model_name(self) -> str | None:
        """The name of the language model (``mlflow.llm.model``); None where nobody has set it."""
    @property
    def llm_cost(self) -> dict[str, float] | None:
        """What the call of a language model cost, in US dollars: ``input_cost``, ``output_cost``, ``total_cost``; None where
        nobody has set it.
        """
    @property
    def _trace(self) -> Trace: ...
    @property
    def _trace_id(self) -> str: ...
    @property
    def _span(self) -> Any: ...
    @property
    def _links(self) -> list[Link]: ...
    @property
    def _attachments(self) -> dict[str, Any]: ...
    @property
    def _attribute_texts(self) -> dict[str, str]: ...
    def _append_link(
        self, trace_id: str, span_id: str, attributes: dict[str, Any] | None, /
    ) -> None: ...
    @property
    def _remote(self) -> bool: ...
    _kind: int
    def _is_recording(self) -> bool: ...
    @property
    def get(self) -> NoReturn:
        """Absent, as in MLflow: ``hasattr`` is False, and the ``AttributeError`` says what to use."""

    @classmethod
    def from_dict(cls, data: Any, /) -> NoReturn:
        """Not supported, as in MLflow: ``mlflow.entities.Span.from_dict`` reads a span that has ended.

        Args:
            data: Anything.

        Raises:
            NotImplementedError: always.
        """

    @classmethod
    def from_dict_v2(cls, data: Any, /) -> NoReturn:
        """Not supported, as in MLflow: ``mlflow.entities.Span.from_dict_v2`` reads a span that has ended.

        Args:
            data: Anything.

        Raises:
            NotImplementedError: always.
        """

    @classmethod
    def from_otel_proto(cls, data: Any, /) -> NoReturn:
        """Not supported, as in MLflow: ``mlflow.entities.Span.from_otel_proto`` reads a span that has ended.

        Args:
            data: Anything.

        Raises:
            NotImplementedError: always.
        """

    def __copy__(self) -> LiveSpan: ...
    def __deepcopy__(self, memo: Any, /) -> NoReturn: ...
    __iter__: None
    def _end_at(self, end_time_ns: int | None, /) -> None: ...
    def _move(self, parent_id: int, /) -> None: ...
    def _set_twin(self, span: Any, /) -> None: ...
    def _remove_attribute(self, key: str, /) -> None: ...
    def _rename(self, name: str, /) -> None: ...

@final
class Trace:
    """A trace in flight. Changes to its containers are the trace's."""

    request_preview: str | None
    response_preview: str | None
    client_request_id: str | None
    state: int
    @property
    def trace_id(self) -> str: ...
    @property
    def remote(self) -> bool: ...
    info: Any
    @property
    def start_time_ns(self) -> int: ...
    @property
    def complete(self) -> bool: ...
    @property
    def destination(self) -> bytes | None: ...
    @property
    def tags(self) -> dict[str, Any]: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    @property
    def inherited_metadata(self) -> dict[str, Any]: ...
    @property
    def assessments(self) -> list[dict[str, Any]]: ...
    def keep_spans(self) -> None: ...
    def rewrite(self) -> None: ...
    def spans(self) -> list[LiveSpan]: ...

@final
class NonRecordingSpan:
    """Stands where a span would be current that is not recorded."""

    @property
    def not_sampled(self) -> bool: ...

def set_hook(name: str, callable: Callable[..., Any] | None, /) -> None: ...
def follow_mlflow(major: int, minor: int, /) -> None: ...
def set_enabled(enabled: bool, /) -> None: ...
def enabled() -> bool: ...
def set_sampling(ratio: float, /) -> None: ...
def use_scopes() -> None: ...
def start_span(
    name: str,
    parent: LiveSpan | None,
    experiment_id: str | None,
    start_ns: int | None,
    span_id: int | None,
    parent_id: int | None,
    trace_id: bytes | None = ...,
    /,
) -> LiveSpan | NonRecordingSpan | None: ...
def remote_span(trace_id: bytes, span_id: int, own_info: bool, /) -> LiveSpan | None: ...
def non_recording_span(not_sampled: bool, /) -> NonRecordingSpan: ...
def enter(current: LiveSpan | NonRecordingSpan, /) -> None: ...
def leave(current: LiveSpan | NonRecordingSpan, /) -> None: ...
def set_last_trace_id(trace_id: str | None, /) -> None: ...
def live_trace(trace_id: str, /) -> Trace | None: ...
def live_traces() -> list[Trace]: ...
@final
class SpanScope:
    """What ``start_span()`` returns: a context manager whose value is the span, and a decorator.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> scope = mlflow.start_span("work")
        >>> with scope as span:
        ...     span.name
        'work'
        >>> @mlflow.start_span("work of a function")
        ... def work():
        ...     return mlflow.get_current_active_span().name
        >>> work()
        'work of a function'
    """

    def __new__(
        cls,
        name: str,
        span_type: Any,
        attributes: dict[str, Any] | None,
        description: str | None,
        log_level: int | None,
        no_op: Any,
        root_options: tuple[str | None, str | None, list[Link] | None] | None = None,
        /,
    ) -> SpanScope: ...
    def __call__(self, function: Callable[..., Any], /) -> Callable[..., Any]: ...
    def again(self) -> SpanScope:
        """A scope like this one, not entered.

        Returns:
            The scope.
        """

    def __enter__(self) -> LiveSpan: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool: ...

@final
class Traced:
    """A traced callable."""

    def __new__(
        cls,
        function: Callable[..., Any],
        span_name: str,
        attributes: list[tuple[str, Any]],
        parameters: list[tuple] | None,
        reducer: Callable[[list[Any]], Any] | None,
        root_options: tuple[str | None, str | None, list[Link] | None] | None = None,
        sampling: float | None = None,
        /,
    ) -> Traced: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    @property
    def _arguments(self) -> tuple: ...
    def _set_signature_function(self, function: Callable[..., Any], /) -> None: ...
    def _begin(
        self, held: list[LiveSpan | NonRecordingSpan | None], args: tuple, kwargs: dict[str, Any], /
    ) -> None: ...
    def _finish(self, held: list[LiveSpan | NonRecordingSpan | None], result: Any, /) -> None: ...
    def _fail(
        self, held: list[LiveSpan | NonRecordingSpan | None], error: BaseException, /
    ) -> None: ...
    def _stream(self, args: tuple, kwargs: dict[str, Any], /) -> Stream: ...

@final
class Stream:
    """The steps of a traced generator. A step returns the stream itself when the body has ended."""

    @property
    def iterator(self) -> Any: ...
    @property
    def value(self) -> Any: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, error: BaseException, /) -> Any: ...
    def enter(self) -> None: ...
    def leave(self) -> None: ...
    def abandon(self) -> None: ...
    def item(self, item: Any, /) -> None: ...
    def end(self, error: BaseException | None, /) -> None: ...

@final
class RingWriter:
    """The program's end of a ring.

    Args:
        path: Of its file, which must not exist. None: memory of this process alone, which is no file
            and spills nothing.
        capacity: Bytes, 64 KiB to 1 GiB in whole pages.
        spill_prefix: The path of the spill segments on disk, up to their numbers.
        spool_max_bytes: What their folder may hold, in bytes; 0: nothing is written there.
        memory_prefix: The path, up to their numbers, of the segments on tmpfs that are written before
            those on disk, up to eight times the capacity. None: there are none.

    Raises:
        ValueError: no ring has that capacity.
        OSError: the ring cannot be made.
    """

    def __new__(
        cls,
        path: _Path | None,
        capacity: int,
        spill_prefix: _Path,
        spool_max_bytes: int = ...,
        memory_prefix: _Path | None = ...,
    ) -> RingWriter: ...
    def close(self) -> None: ...
    def let_spares_go(self) -> None: ...
    def request_flush(self) -> int: ...
    def append(self, records: list[bytes], /) -> int: ...
    def heartbeat(self) -> tuple[int, int] | None: ...
    def progress(self) -> tuple[int, int, int, int, int, int, int, int] | None:
        """(head, tail, delivered, spilled, spill_delivered, server_state, refused records, refused
        traces); None when the ring is closed or a parent process's."""

@final
class RingReader:
    """The sender's end of a ring.

    Args:
        ring: The path of its file, or a ring of this process.

    Raises:
        OSError: the file is no ring, a symlink, or another user's.
        ValueError: the ring of this process is closed.
    """

    head: int
    tail: int
    cursor: int
    capacity: int
    pid: int
    spill_sequence: int
    refused: int
    refused_traces: int
    delivered: int
    heartbeat_ns: int
    spilled: int
    spill_delivered: int
    server_state: int
    damaged: bool
    def __new__(cls, ring: _Path | RingWriter) -> RingReader: ...
    def close(self) -> None: ...
    def drain(self, limit: int, /) -> list[_Item]: ...
    def skip_damage(self) -> int: ...
    def rewind(self, position: int, /) -> None: ...
    def look_back(self) -> bool:
        """Begins with the program's first record, delivered or not; for readers that give nothing back.

        Returns:
            False where the program has written over it.
        """

    def release(self, position: int, /) -> None: ...
    def set_delivered(self, position: int, /) -> None: ...
    def add_spill_delivered(self, count: int, /) -> None: ...
    def set_server_state(self, state: int, /) -> None: ...
    def heartbeat(self, spool_is_full: bool, /) -> None:
        """Tells the program that it has a sender, and whether new traces still find a place."""

    def take_flush(self) -> bool: ...
    def alive(self) -> bool: ...

@final
class SegmentReader:
    """Reads a segment, whole frames only."""

    damaged: bool
    offset: int
    rest: int
    reused: bool
    def __new__(cls, path: _Path) -> SegmentReader: ...
    def is_written(self) -> bool: ...
    def move(self, path: _Path, /) -> None: ...
    def read(self, limit: int, /) -> list[_Item]: ...
    def rewind(self, offset: int, /) -> None: ...

def set_destination(
    ring: RingWriter | None,
    destination: dict[str, Any] | None,
    second_ring: RingWriter | None = None,
    /,
) -> None: ...
def end_abandoned() -> None:
    """Ends the abandoned spans: their context manager is gone and was never left."""

def current() -> LiveSpan | NonRecordingSpan | None:
    """What is current: a span, also one that is recorded elsewhere, or a non-recording span; None where
    nothing is."""

def current_span() -> LiveSpan | None: ...
def after_fork() -> None:
    """Forgets, in a forked child, what other threads of the parent did."""

def is_interruption(exception: BaseException, /) -> bool:
    """Whether an exception that came out of a value's or a hook's own code belongs to the program: a signal
    handler raised it, or it is one like KeyboardInterrupt, which is no ``Exception``. A SystemExit that
    comes from no signal handler is the value's own."""

def last_trace_id() -> str | None: ...
def encode(value: Any, /) -> bytes: ...
def decode(encoded: bytes, /) -> Any: ...
def json_text(encoded: bytes, ascii: bool = False, /) -> str: ...
def span_summary(
    record: bytes, roots_under: bytes | None = ..., /
) -> tuple[
    bytes,
    bytes | None,
    int,
    Any,
    Any,
    str | tuple[str, str | None] | None,
    str | tuple[str, str | None] | None,
    int,
    int,
]: ...
def span_head(record: bytes, /) -> tuple[int, int]: ...
def span_json(record: bytes, /) -> str: ...
def write_span_json(fd: int, record: bytes, /) -> None: ...
def otlp_request(records: list[bytes], /) -> tuple[bytes | list[bytes], list[int], list[int]]: ...
def collector_request(
    spans: list[tuple[bytes, int, bytes, bytes | None]], resource: bytes, json_attributes: bool, /
) -> tuple[bytes, list[int]]: ...
def write_segment(path: _Path, records: list[bytes], level: int, /) -> int: ...
def give_memory_back() -> None: ...
