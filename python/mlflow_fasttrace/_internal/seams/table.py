"""What answers in MLflow's place while the core is installed, see ``install.py``.

Most functions of MLflow's tracing lead to this package's own of the same name. What is here besides:
the trace manager, tracer provider and context that MLflow's code and its integrations reach for,
over the core, and a span processor for spans that OpenTelemetry's SDK made.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import threading
import types
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import mlflow
from mlflow.entities import Assessment, Trace, TraceData, TraceInfo
from mlflow.entities.span import LiveSpan as MlflowLiveSpan
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.tracing import provider as mlflow_provider
from mlflow.tracing.client import TracingClient
from mlflow.tracing.config import TracingConfig
from mlflow.tracing.export.mlflow_v3 import MlflowV3SpanExporter
from mlflow.tracing.processor import base_mlflow
from mlflow.tracing.processor.mlflow_v3 import MlflowV3SpanProcessor
from mlflow.tracing.trace_manager import InMemoryTraceManager, ManagerTrace, _Trace
from mlflow.tracing.utils.truncation import set_request_response_preview
from opentelemetry import trace as trace_api
from opentelemetry.context.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor

from mlflow_fasttrace import _core, fluent, otel, traces, tracing
from mlflow_fasttrace._internal.base import hooks
from mlflow_fasttrace._internal.base.patching import (
    at_undo,
    original,
    replace,
    replace_attribute,
    replace_class,
    when_loaded,
)
from mlflow_fasttrace._internal.recording import destination, flush
from mlflow_fasttrace._internal.recording.root_context import root_context
from mlflow_fasttrace._internal.recording.supervisor import supervisor
from mlflow_fasttrace._internal.seams.moved import MovedSeam
from mlflow_fasttrace._internal.spans import copies, otel_context
from mlflow_fasttrace._internal.spans.no_op import NoOpSpan
from mlflow_fasttrace._internal.spans.otel_span import OWN_FLAGS, OtelSpanView, resource
from mlflow_fasttrace._internal.spool import database

_set_current = _core.current_span_var.set


# ---- what is current ----


def set_span_in_context(span: Any) -> tuple[Any, None]:
    kind = type(span)
    if kind is _core.LiveSpan:
        return _set_current(span), None
    if kind is NoOpSpan:
        return _set_current(span._non_recording), None
    return _set_current(otel_context.parent_of(span._span)), None


def detach_span_from_context(token: tuple[Any, Any]) -> None:
    own, other = token
    if getattr(own, "var", None) is not _core.current_span_var:
        original(mlflow_provider.detach_span_from_context)((own, other))
        return
    try:
        own.var.reset(own)
    except ValueError as error:
        # As in MLflow: what was attached in another task or thread ends with that.
        if "different Context" not in str(error):
            raise


@contextlib.contextmanager
def safe_set_span_in_context(span: Any) -> Iterator[None]:
    token = set_span_in_context(span)
    try:
        yield
    finally:
        detach_span_from_context(token)


@contextlib.contextmanager
def with_active_span(span: Any) -> Iterator[None]:
    try:
        with safe_set_span_in_context(span):
            yield
    except Exception as error:
        span.record_exception(error)
        raise


class _Token:
    __slots__ = ("current", "own")

    def __init__(self, own: Any, current: Any):
        self.own = own
        self.current = current


class LinkedMlflowContext(ContextVarsRuntimeContext):
    """``provider.mlflow_runtime_context``: its current span is the core's."""

    def get_current(self) -> Context:
        context = self._current_context.get()
        current = _core.current()
        if current is None:
            return context
        return Context({**context, otel_context.SPAN_KEY: otel_context.otel_span_of(current)})

    def attach(self, context: Context) -> Any:
        parent = otel_context.parent_of(trace_api.get_current_span(context))
        return _Token(super().attach(context), _set_current(parent))

    def detach(self, token: Any) -> None:
        if not isinstance(token, _Token):  # from before the core was installed
            super().detach(token)
            return
        try:
            super().detach(token.own)
        finally:
            _core.current_span_var.reset(token.current)


# ---- spans of OpenTelemetry's SDK ----

_mirrors: dict[tuple[int, int], Any] = {}  # the core's span for another library's that is open


def find_mirror(trace_id: int, span_id: int) -> Any:
    return _mirrors.get((trace_id, span_id))


def is_recorded_elsewhere(trace_id: str) -> bool:
    manager = InMemoryTraceManager._instance
    return isinstance(manager, CoreTraceManager) and trace_id in manager._own


def create_mlflow_span(otel_span: Any, trace_id: str, span_type: str | None = None) -> Any:
    if isinstance(otel_span, OtelSpanView):
        if span_type is not None:
            otel_span._live.set_span_type(span_type)
        return otel_span._live
    return original(mlflow.entities.span.create_mlflow_span)(otel_span, trace_id, span_type)


class CoreSpanExporter(MlflowV3SpanExporter):
    """What ``_get_trace_exporter()`` returns. Delivery is the sender's; this stands for it."""

    def __init__(self) -> None:
        self._is_async_enabled = True
        self._store_supports_log_spans = True
        self._deferred_root_spans = {}
        self._deferred_lock = threading.Lock()
        self._async_queue = self

    @property
    def _client(self) -> TracingClient:
        return TracingClient()

    @property
    def _display_handler(self) -> Any:
        from mlflow.tracing.display import get_display_handler

        return get_display_handler()

    def export(self, spans: Any) -> None:
        """Nothing: what ends is recorded when it ends."""

    def flush(self, terminate: bool = False) -> None:
        traces.flush_trace_async_logging()

    def put(self, task: Any) -> None:
        task.handle()

    def is_active(self) -> bool:
        return True

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return flush.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Nothing: no thread of this process delivers."""


class CoreSpanProcessor(MlflowV3SpanProcessor):
    """Records the spans that integrations let OpenTelemetry's SDK make (Strands, Haystack, Semantic
    Kernel): a mirror in the core starts and ends with each, and takes what it holds at its end."""

    def __init__(self) -> None:
        self.span_exporter = CoreSpanExporter()
        self._batch_delegate = None
        self._export_metrics = False

    @property
    def _trace_manager(self) -> InMemoryTraceManager:
        return InMemoryTraceManager.get_instance()

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if isinstance(span, OtelSpanView):
            return
        context = span.get_span_context()
        parent = None
        if span.parent is not None:
            parent = otel_context.parent_of(trace_api.NonRecordingSpan(span.parent))
            if type(parent) is not _core.LiveSpan:
                return
        mirror = _core.start_span(
            span.name,
            parent,
            None,
            span.start_time,
            context.span_id,
            None,
            None if parent is not None else context.trace_id.to_bytes(16, "big"),
        )
        if type(mirror) is not _core.LiveSpan:
            return
        mirror._remove_attribute("mlflow.spanStartTimeNs")
        # Not by mlflow.entities' name: this makes the span that MLflow's own processor would make.
        mirror._set_twin(MlflowLiveSpan(span, mirror.trace_id, None))
        _mirrors[context.trace_id, context.span_id] = mirror

    def on_end(self, span: Any) -> None:
        context = span.get_span_context()
        mirror = _mirrors.pop((context.trace_id, context.span_id), None)
        if mirror is None:
            return
        source = mirror._twin._span
        view = OtelSpanView(mirror)
        mirror._rename(source.name)
        for key in [key for key in view.attributes if key not in source.attributes]:
            mirror._remove_attribute(key)
        view.set_attributes(source.attributes)
        for event in span.events:
            view.add_event(event.name, event.attributes, event.timestamp)
        for link in span.links:
            view.add_link(link.context, link.attributes)
        view.set_status(span.status)
        mirror._close(span.end_time)

    def shutdown(self) -> None:
        """Nothing to end."""

    def force_flush(self, timeout_millis: float = 30000) -> bool:
        return flush.flush(timeout_millis / 1000)


class CoreTracerProvider(otel.TracerProvider):
    """What MLflow's ``provider.provider`` holds."""

    def __init__(self) -> None:
        super().__init__(resource())
        processors = SynchronousMultiSpanProcessor()
        processors.add_span_processor(CoreSpanProcessor())
        self._active_span_processor = processors


_core_provider: CoreTracerProvider | None = None


def core_provider() -> CoreTracerProvider:
    """The provider behind ``get_bridged_tracer_provider()``: one for the process."""
    global _core_provider
    if _core_provider is None:
        _core_provider = CoreTracerProvider()
    return _core_provider


class CoreProviderWrapper(mlflow_provider._TracerProviderWrapper):
    """``provider.provider``: hands out the core's tracers."""

    def get(self) -> Any:
        return core_provider() if _core.enabled() else trace_api.NoOpTracerProvider()

    def get_or_init_tracer(self, module_name: str) -> Any:
        self.once._done = True
        return self.get().get_tracer(module_name)

    def _retire_current_batch_processors(self) -> None:
        pass

    def set(self, tracer_provider: Any) -> None:
        _core.set_enabled(not isinstance(tracer_provider, trace_api.NoOpTracerProvider))

    def _swap_raw(self, tracer_provider: Any) -> Any:
        old = self.get()
        self.set(tracer_provider)
        return old

    def reset(self) -> None:
        self.once._done = False
        _core.set_enabled(True)
        destination.reset()


# ---- traces in flight ----


class _Traces(MutableMapping[str, _Trace]):
    """``manager._traces``: the core's, and those of MLflow's own that are not complete yet."""

    def __init__(self, manager: CoreTraceManager):
        self._manager = manager

    @property
    def timeout(self) -> Any:
        return getattr(self._manager._own, "timeout", None)

    def __getitem__(self, trace_id: str) -> _Trace:
        if (trace := self._manager._trace_of_core(trace_id)) is not None:
            return self._manager._handed_out(trace)
        return self._manager._own[trace_id]

    def __setitem__(self, trace_id: str, trace: _Trace) -> None:
        self._manager._own[trace_id] = trace

    def __delitem__(self, trace_id: str) -> None:
        if _core.live_trace(trace_id) is None:
            del self._manager._own[trace_id]

    def __iter__(self) -> Iterator[str]:
        yield from [trace.trace_id for trace in _core.live_traces()]
        yield from list(self._manager._own)

    def __len__(self) -> int:
        return len(_core.live_traces()) + len(self._manager._own)

    def clear(self) -> None:
        self._manager._own.clear()


class CoreTraceManager(InMemoryTraceManager):
    """``InMemoryTraceManager`` over the core. A trace's info that was handed out is the one that
    counts from then on; see ``take_info``."""

    def __init__(self, before: InMemoryTraceManager | None = None):
        super().__init__()
        self._own: Any = self._traces
        if before is not None and not isinstance(before, CoreTraceManager):
            self._own = before._traces  # of spans that MLflow started and that are still open
            self._otel_id_to_mlflow_trace_id = before._otel_id_to_mlflow_trace_id
            self._lock = before._lock
        self._traces = _Traces(self)
        self.prompts: dict[str, list[Any]] = {}

    def _trace_of_core(self, trace_id: str) -> _core.Trace | None:
        """A trace that the core records; what it adds to one of MLflow's own is not."""
        return None if trace_id in self._own else _core.live_trace(trace_id)

    def _handed_out(self, trace: _core.Trace) -> _Trace:
        if trace.info is None:
            trace.info = info_of(trace)
        return _Trace(
            trace.info,
            {span.span_id: _as_known(span) for span in trace.spans()},
            self.prompts.setdefault(trace.trace_id, []),
            is_remote_trace=trace.remote,
        )

    @contextlib.contextmanager
    def get_trace(self, trace_id: str) -> Iterator[_Trace | None]:
        trace = self._trace_of_core(trace_id)
        if trace is None:
            with self._lock:
                yield self._own.get(trace_id)
            return
        try:
            yield self._handed_out(trace)
        finally:
            take_info(trace, trace.info)

    def get_span_from_id(self, trace_id: str, span_id: str) -> Any:
        trace = self._trace_of_core(trace_id)
        if trace is not None:
            for span in trace.spans():
                if span.span_id == span_id:
                    return _as_known(span)
        with self._lock:
            found = self._own.get(trace_id)
        return found.span_dict.get(span_id) if found else None

    def get_root_span_id(self, trace_id: str) -> str | None:
        trace = self._trace_of_core(trace_id)
        spans = trace.spans() if trace is not None else []
        if trace is None and (found := self._own.get(trace_id)):
            spans = found.span_dict.values()
        return next((span.span_id for span in spans if span.parent_id is None), None)

    def get_mlflow_trace_id_from_otel_id(self, otel_trace_id: int) -> str | None:
        if (trace := self._trace_of_core(_trace_id_of(otel_trace_id))) is not None:
            return trace.trace_id
        return self._otel_id_to_mlflow_trace_id.get(otel_trace_id)

    def register_trace(
        self, otel_trace_id: int, trace_info: TraceInfo, is_remote_trace: bool = False
    ) -> None:
        with self._lock:
            self._own[trace_info.trace_id] = _Trace(trace_info, is_remote_trace=is_remote_trace)
            self._otel_id_to_mlflow_trace_id[otel_trace_id] = trace_info.trace_id

    def register_span(self, span: Any) -> None:
        if type(span) is _core.LiveSpan or not isinstance(span, MlflowLiveSpan):
            return
        if _mirrors:
            context = span._span.get_span_context()
            if (mirror := find_mirror(context.trace_id, context.span_id)) is not None:
                mirror._set_twin(span)
                return
        with self._lock:
            if (trace := self._own.get(span.trace_id)) is not None:
                trace.span_dict[span.span_id] = span

    def pop_trace(self, otel_trace_id: int) -> ManagerTrace | None:
        trace = self._trace_of_core(_trace_id_of(otel_trace_id))
        if trace is not None:
            handed_out = self._handed_out(trace)
            return ManagerTrace(
                handed_out.to_mlflow_trace(), handed_out.prompts, handed_out.is_remote_trace
            )
        with self._lock:
            trace_id = self._otel_id_to_mlflow_trace_id.pop(otel_trace_id, None)
            found = self._own.pop(trace_id, None) if trace_id else None
        if found is None:
            return None
        return ManagerTrace(
            found.to_mlflow_trace(), found.prompts, found.is_remote_trace, found.workspace
        )

    def _check_timeout_update(self) -> None:
        pass


def _trace_id_of(otel_trace_id: Any) -> str:
    # Not always a number: a test's may be anything.
    return f"tr-{otel_trace_id:032x}" if isinstance(otel_trace_id, int) else str(otel_trace_id)


def _as_known(span: Any) -> Any:
    """The span as the program knows it: a mirror's is another one."""
    return getattr(span, "_twin", span)


def get_instance(cls: type) -> InMemoryTraceManager:
    """``InMemoryTraceManager.get_instance``."""
    if not isinstance(InMemoryTraceManager._instance, CoreTraceManager):
        with InMemoryTraceManager._instance_lock:
            if not isinstance(InMemoryTraceManager._instance, CoreTraceManager):
                InMemoryTraceManager._instance = CoreTraceManager(InMemoryTraceManager._instance)
    return InMemoryTraceManager._instance


_STATES = {1: TraceState.OK, 2: TraceState.ERROR}
_STATE_NUMBERS = {state: number for number, state in _STATES.items()}


def info_of(trace: _core.Trace) -> TraceInfo:
    """A ``TraceInfo`` of what the core knows; tags and metadata are the trace's own dictionaries."""
    experiment = _core.decode(trace.destination)["experiment"].get("id")
    return TraceInfo(
        trace_id=trace.trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=trace.start_time_ns // 1_000_000,
        state=_STATES.get(trace.state, TraceState.IN_PROGRESS),
        request_preview=trace.request_preview,
        response_preview=trace.response_preview,
        client_request_id=trace.client_request_id,
        trace_metadata=trace.metadata,
        tags=trace.tags,
        assessments=[Assessment.from_dictionary(dict(item)) for item in trace.assessments],
    )


def take_info(trace: _core.Trace, info: TraceInfo) -> None:
    """Brings what the program changed of an info that was handed out into the trace. The core calls
    this before it records what it knows of the trace."""
    for field, kept in (("tags", trace.tags), ("trace_metadata", trace.metadata)):
        given = getattr(info, field)
        if given is not kept:
            kept.clear()
            kept.update(given)
            setattr(info, field, kept)
    for field in ("request_preview", "response_preview", "client_request_id"):
        if (value := getattr(info, field)) is not None:
            setattr(trace, field, str(value))
    state = getattr(info.state, "value", info.state)
    for known, number in _STATE_NUMBERS.items():
        if state == known.value:
            trace.state = number
    if info.assessments or trace.assessments:
        trace.assessments[:] = [assessment.to_dictionary() for assessment in info.assessments]
    manager = InMemoryTraceManager._instance
    if trace.complete and isinstance(manager, CoreTraceManager):
        if prompts := manager.prompts.pop(trace.trace_id, None):
            threading.Thread(
                target=_link_prompts,
                args=(trace.trace_id, prompts),
                name="mlflow-fasttrace-prompts",
            ).start()


def _link_prompts(trace_id: str, prompts: list[Any]) -> None:
    from mlflow.tracing.export.utils import try_link_prompts_to_trace

    flush.flush()
    try_link_prompts_to_trace(TracingClient(), trace_id, prompts)


# ---- traces that MLflow's own code has to do with ----

_notebook_display: Any = None  # the class of MLflow's handler, in a notebook
_members_of_client = vars(TracingClient)
_own_start_trace = TracingClient.start_trace
_own_log_spans = TracingClient.log_spans


def wants_whole() -> bool:
    """In notebooks, which show traces, and where a program has put a function of its own in the
    place of one that exports. Evaluation wants them too, see root_context()."""
    return (
        _members_of_client["start_trace"] is not _own_start_trace
        or _members_of_client["log_spans"] is not _own_log_spans
        or (_notebook_display is not None and not _notebook_display.disabled)
    )


def whole_trace_ended(trace: _core.Trace, spans: list[Any]) -> None:
    """Called by the core when a trace that wants_whole() spoke of is complete."""
    info = trace.info or info_of(trace)
    spans = sorted(spans, key=lambda span: span.start_time_ns)
    data = TraceData([span.to_immutable_span() for span in spans])
    root = next((span for span in spans if span.parent_id is None), spans[0])
    if info.state == TraceState.IN_PROGRESS:
        info.state = _STATES.get(trace.state, TraceState.OK)
    info.request_time = root.start_time_ns // 1_000_000
    info.execution_duration = (root.end_time_ns - root.start_time_ns) // 1_000_000
    set_request_response_preview(info, data)
    whole = Trace(info, data)
    if request_id := info.tags.get("mlflow.eval.requestId"):
        flush.flush()
        mlflow.tracing.fluent._EVAL_REQUEST_ID_TO_TRACE_ID[request_id] = info.trace_id
    elif _notebook_display is not None:
        _notebook_display.get_instance().display_traces([whole])
    if TracingClient.log_spans is not _own_log_spans:
        TracingClient().log_spans(info.experiment_id, data.spans)
    if TracingClient.start_trace is not _own_start_trace:
        TracingClient().start_trace(info)


def _display_of_notebook() -> Any:
    if "IPython" not in sys.modules:
        return None
    from mlflow.tracing.display import display_handler

    return display_handler.IPythonTraceDisplayHandler if display_handler._is_jupyter() else None


# ---- switches, destinations, reading ----


def reset() -> None:
    mlflow_provider.provider.once._done = False
    mlflow_provider._MLFLOW_TRACE_USER_DESTINATION.reset()
    destination.follow_tracking_uri()
    tracing.reset()


def set_destination(destination: Any, *, context_local: bool = False) -> None:
    tracing.set_destination(destination, context_local=context_local)
    to_location = getattr(destination, "to_location", None)
    mlflow_provider._MLFLOW_TRACE_USER_DESTINATION.set(
        to_location() if to_location else destination, context_local=context_local
    )


def set_experiment(
    experiment_name: str | None = None,
    experiment_id: str | None = None,
    trace_location: Any | None = None,
) -> Any:
    options = {} if trace_location is None else {"trace_location": trace_location}
    return fluent.set_experiment(experiment_name, experiment_id, **options)


def get_config() -> TracingConfig:
    config = TracingConfig()
    config.span_processors = list(tracing._span_processors)
    return config


def _flush_what_was_before(terminate: bool) -> None:
    """What MLflow's own code recorded before the core was there, or records for a test."""
    if base_mlflow._batch_processor_registry:
        base_mlflow.flush_all_batch_processors(terminate=terminate)


def flush_pending(terminate: bool = False) -> None:
    flush.flush()
    _flush_what_was_before(terminate)


def flush_trace_async_logging(terminate: bool = False) -> None:
    traces.flush_trace_async_logging(terminate)
    _flush_what_was_before(terminate)


def set_last_active_trace_id(trace_id: str) -> None:
    _core.set_last_trace_id(trace_id)


def from_immutable_span(
    cls: type,
    span: Any,
    parent_span_id: str | None = None,
    trace_id: str | None = None,
    experiment_id: str | None = None,
    otel_trace_id: str | None = None,
) -> Any:
    return copies.clone_span(span, parent_span_id, trace_id, experiment_id, otel_trace_id)


#: Methods of the client that ask the store for nothing that this process may still hold.
_WRITES = frozenset({"__init__", "start_trace", "log_spans"})


def store(self: TracingClient) -> Any:
    """``TracingClient.store``: what was recorded before the call can be read."""
    caller = sys._getframe(2).f_code.co_name  # the frame between is MLflow's property
    if caller not in _WRITES and not supervisor.is_sender_thread():
        flush.flush(accept_spooled=True)
    return original(TracingClient.store.fget)(self)


def tracing_headers_from_span(span: Any) -> dict[str, str]:
    if type(span) is _core.LiveSpan:
        flags = tracing.flags_of(span, OWN_FLAGS)
        return {"traceparent": f"00-{span._trace_id}-{span.span_id}-{flags:02x}"}
    distributed = importlib.import_module("mlflow.tracing.distributed")
    return original(distributed._get_tracing_headers_from_span)(span)


#: By module: MLflow's functions, and what they lead to.
FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "mlflow.tracing.fluent": {
        "trace": fluent.trace,
        "start_span": fluent.start_span,
        "start_span_no_context": fluent.start_span_no_context,
        "get_current_active_span": fluent.get_current_active_span,
        "get_active_trace_id": fluent.get_active_trace_id,
        "get_last_active_trace_id": fluent.get_last_active_trace_id,
        "update_current_trace": fluent.update_current_trace,
        "add_trace": traces.add_trace,
        "_set_last_active_trace_id": set_last_active_trace_id,
        "_flush_pending_async_trace_writes": flush_pending,
    },
    "mlflow.tracing.provider": {
        "set_span_in_context": set_span_in_context,
        "detach_span_from_context": detach_span_from_context,
        "safe_set_span_in_context": safe_set_span_in_context,
        "with_active_span": with_active_span,
        "set_destination": set_destination,
        "enable": tracing.enable,
        "disable": tracing.disable,
        "is_tracing_enabled": tracing.is_tracing_enabled,
        "reset": reset,
    },
    "mlflow.tracing.config": {"configure": tracing.configure, "get_config": get_config},
    "mlflow.tracing.context": {"context": tracing.context},
    "mlflow.tracing.distributed": {
        "get_tracing_context_headers_for_http_request": (
            tracing.get_tracing_context_headers_for_http_request
        ),
        "set_tracing_context_from_http_request_headers": (
            tracing.set_tracing_context_from_http_request_headers
        ),
        "_get_tracing_headers_from_span": tracing_headers_from_span,
    },
    "mlflow.tracking.fluent": {
        "set_experiment": set_experiment,
        "flush_trace_async_logging": flush_trace_async_logging,
    },
    "mlflow.entities.span": {"create_mlflow_span": create_mlflow_span},
}

#: What MLflow's classes must have for the classes here to stand in.
_MEMBERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "mlflow.tracing.trace_manager.InMemoryTraceManager": (
        InMemoryTraceManager,
        (
            "_instance",
            "_instance_lock",
            "get_instance",
            "get_mlflow_trace_id_from_otel_id",
            "get_root_span_id",
            "get_span_from_id",
            "get_trace",
            "pop_trace",
            "register_prompt",
            "register_span",
            "register_trace",
            "set_trace_metadata",
        ),
    ),
    "mlflow.tracing.provider._TracerProviderWrapper": (
        mlflow_provider._TracerProviderWrapper,
        ("_swap_raw", "get", "get_or_init_tracer", "once", "reset", "set"),
    ),
    "mlflow.tracing.provider": (
        mlflow_provider,
        ("_MLFLOW_TRACE_USER_DESTINATION", "_get_tracer", "mlflow_runtime_context", "provider"),
    ),
    "mlflow.entities.LiveSpan": (MlflowLiveSpan, ("from_immutable_span",)),
    "mlflow.tracing.client.TracingClient": (TracingClient, ("store",)),
}


def _function(module: str, name: str) -> types.FunctionType:
    function = vars(importlib.import_module(module)).get(name)
    if not isinstance(function, types.FunctionType):
        raise MovedSeam(f"{module}.{name} is missing")
    return function


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def _check_parameters(where: str, function: Callable[..., Any], target: Callable[..., Any]) -> None:
    theirs, ours = _parameters(function), _parameters(target)
    for place, parameter in enumerate(theirs):
        own = ours[place] if place < len(ours) else None
        if own is None or own.name != parameter.name:
            raise MovedSeam(f"{where} takes {parameter.name!r}, which is not known here")


def check() -> None:
    """Raises:
    MovedSeam: MLflow has moved something that is replaced.
    """
    for module, functions in FUNCTIONS.items():
        for name, target in functions.items():
            _check_parameters(f"{module}.{name}", _function(module, name), target)
    for where, (owner, names) in _MEMBERS.items():
        for name in names:
            if not hasattr(owner, name):
                raise MovedSeam(f"{where}.{name} is missing")
    if not isinstance(TracingClient.__dict__["store"], property):
        raise MovedSeam("mlflow.tracing.client.TracingClient.store is no property")
    if type(mlflow_provider.mlflow_runtime_context) is not ContextVarsRuntimeContext:
        raise MovedSeam("mlflow.tracing.provider.mlflow_runtime_context is of another class")
    if type(mlflow_provider.provider) is not mlflow_provider._TracerProviderWrapper:
        raise MovedSeam("mlflow.tracing.provider.provider is of another class")


def apply() -> None:
    """Replaces what is to be replaced; what undoes it is noted as it goes."""
    for module, functions in FUNCTIONS.items():
        for name, target in functions.items():
            replace(_function(module, name), target)
    replace(TracingClient.store.fget, store)
    replace_class(mlflow_provider.provider, CoreProviderWrapper)
    replace_class(mlflow_provider.mlflow_runtime_context, LinkedMlflowContext)
    replace_attribute(MlflowLiveSpan, "from_immutable_span", classmethod(from_immutable_span))
    before = InMemoryTraceManager._instance
    at_undo(lambda: setattr(InMemoryTraceManager, "_instance", before))
    replace_attribute(InMemoryTraceManager, "get_instance", classmethod(get_instance))
    hooks.take_info.answer(take_info)
    hooks.whole_trace_ended.answer(whole_trace_ended)
    global _notebook_display
    _notebook_display = _display_of_notebook()
    root_context.wants_whole = wants_whole
    replace_attribute(otel_context, "_find_mirror", find_mirror)
    replace_attribute(otel_context, "_is_recorded_elsewhere", is_recorded_elsewhere)
    replace_attribute(otel, "bridged_provider", core_provider)
    destination.use_mlflow(True)
    at_undo(_forget)
    when_loaded("mlflow.llama_index.tracer", _complete_llama_index)
    database.guard()


def _complete_llama_index() -> None:
    handler = sys.modules["mlflow.llama_index.tracer"].MlflowSpanHandler
    ours = importlib.import_module("mlflow_fasttrace._internal.seams.llama_index")
    for name in ("capture_propagation_context", "restore_propagation_context"):
        if name not in vars(handler):  # MLflow's own, in a later version
            replace_attribute(handler, name, getattr(ours, name))


def _forget() -> None:
    root_context.wants_whole = None
    destination.use_mlflow(False)


__all__ = ["FUNCTIONS", "apply", "check"]
