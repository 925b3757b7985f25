"""``InMemoryTraceManager`` over the core: the traces in flight as MLflow's code, its integrations and its
users look at them and change them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from mlflow.entities import Assessment, TraceInfo, TraceLocation, TraceState
from mlflow.entities.span import LiveSpan as MlflowLiveSpan
from mlflow.tracing.client import TracingClient
from mlflow.tracing.export.utils import try_link_prompts_to_trace
from mlflow.tracing.trace_manager import InMemoryTraceManager, ManagerTrace, _Trace

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import flush
from mlflow_fasttrace._internal.spans import otel_context

if TYPE_CHECKING:
    from mlflow.entities.model_registry import PromptVersion

_STATES = {1: TraceState.OK, 2: TraceState.ERROR}  # by the core's number
_STATE_NUMBERS = {state: number for number, state in _STATES.items()}


class _Traces(MutableMapping[str, _Trace]):
    """``manager._traces`` by trace id: the core's, and those of MLflow's own that are not complete yet."""

    def __init__(self, manager: CoreTraceManager):
        self._manager = manager

    @property
    def timeout(self) -> Any:
        """That of MLflow's own cache, which MLflow compares with the environment's."""
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
    """``InMemoryTraceManager`` over the core. A trace's info that was handed out is the one that counts
    from then on, see ``take_info``.

    Args:
        before: MLflow's own manager, whose traces are still open.
    """

    def __init__(self, before: InMemoryTraceManager | None = None):
        super().__init__()
        #: The traces whose spans MLflow's own code started.
        self._own: Any = self._traces
        if before is not None and not isinstance(before, CoreTraceManager):
            self._own = before._traces
            self._otel_id_to_mlflow_trace_id = before._otel_id_to_mlflow_trace_id
            self._lock = before._lock
        self._traces: Any = _Traces(self)
        #: The prompts that a program registered for a trace of the core, by its id.
        self.prompts: dict[str, list[PromptVersion]] = {}

    def records(self, trace_id: str) -> bool:
        """Whether MLflow's own code records this trace, and so sends its info."""
        return trace_id in self._own

    def _trace_of_core(self, trace_id: str) -> _core.Trace | None:
        """A trace that the core records. One that MLflow's own code records is not, although the core
        may add spans to it."""
        return None if trace_id in self._own else _core.live_trace(trace_id)

    def _handed_out(self, trace: _core.Trace) -> _Trace:
        """MLflow's view of a trace of the core. Its info and prompts are the ones that count."""
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
        if otel_context.twins and (context := span._span.get_span_context()) is not None:
            twin = otel_context.twins.get((context.trace_id, context.span_id))
            if twin is not None:
                twin._set_twin(span)
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
        workspace = [found.workspace] if hasattr(found, "workspace") else []
        return ManagerTrace(
            found.to_mlflow_trace(), found.prompts, found.is_remote_trace, *workspace
        )

    def _check_timeout_update(self) -> None:
        """Do nothing: MLflow's would put a cache in the place of the view of the core's traces."""


def _trace_id_of(otel_trace_id: Any) -> str:
    """The trace id as MLflow writes it. A test's may be of any type."""
    return f"tr-{otel_trace_id:032x}" if isinstance(otel_trace_id, int) else str(otel_trace_id)


def _as_known(span: _core.LiveSpan) -> Any:
    """The span as the program knows it: for a twin, the one that MLflow made of the SDK's span."""
    return getattr(span, "_twin", span)


def get_instance(cls: type) -> InMemoryTraceManager:
    """``InMemoryTraceManager.get_instance``."""
    manager = _current_manager()
    if manager is None:
        with InMemoryTraceManager._instance_lock:
            manager = _current_manager()
            if manager is None:
                manager = CoreTraceManager(InMemoryTraceManager._instance)
                InMemoryTraceManager._instance = manager  # type: ignore[assignment]  # MLflow's says None
    return manager


def _current_manager() -> CoreTraceManager | None:
    """The manager over the core, where one was asked for since the core was installed."""
    manager: Any = InMemoryTraceManager._instance
    return manager if isinstance(manager, CoreTraceManager) else None


def mlflow_records(trace_id: str) -> bool:
    """Whether MLflow's own code records a trace of this process, and so sends its info."""
    manager = _current_manager()
    return manager is not None and manager.records(trace_id)


# ---- the info of a trace ----


def state_of(trace: _core.Trace, unset: TraceState) -> TraceState:
    """A trace's state; ``unset`` where nothing has set one."""
    return _STATES.get(trace.state, unset)


def info_of(trace: _core.Trace) -> TraceInfo:
    """A ``TraceInfo`` of what the core knows; its tags and metadata are the trace's own dictionaries."""
    known = trace.destination  # None: it began in the middle of the start of recording
    experiment: Any = None if known is None else _core.decode(known)["experiment"].get("id")
    return TraceInfo(
        trace_id=trace.trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=trace.start_time_ns // 1_000_000,
        state=state_of(trace, TraceState.IN_PROGRESS),
        request_preview=trace.request_preview,
        response_preview=trace.response_preview,
        client_request_id=trace.client_request_id,
        trace_metadata=trace.metadata,
        tags=trace.tags,
        assessments=[Assessment.from_dictionary(dict(item)) for item in trace.assessments],
    )


def take_info(trace: _core.Trace, info: TraceInfo) -> None:
    """Bring into a trace what the program changed of an info that was handed out. The core calls it before
    it records what it knows of the trace as a whole.

    Args:
        trace: The trace, of this process and in flight.
        info: ``trace.info``.
    """
    for field, own in (("tags", trace.tags), ("trace_metadata", trace.metadata)):
        given = getattr(info, field)
        if given is not own:
            own.clear()
            own.update(given)
            setattr(info, field, own)
    for field in ("request_preview", "response_preview", "client_request_id"):
        if (value := getattr(info, field)) is not None:
            setattr(trace, field, str(value))
    state = getattr(info.state, "value", info.state)
    for known, number in _STATE_NUMBERS.items():
        if state == known.value:
            trace.state = number
    if info.assessments or trace.assessments:
        trace.assessments[:] = [assessment.to_dictionary() for assessment in info.assessments]
    if trace.complete and (manager := _current_manager()) is not None:
        if prompts := manager.prompts.pop(trace.trace_id, None):
            threading.Thread(
                target=_link_prompts,
                args=(trace.trace_id, prompts),
                name="mlflow-fasttrace-prompts",
            ).start()


def _link_prompts(trace_id: str, prompts: list[PromptVersion]) -> None:
    """Tell the server which prompts a trace used, once it has the trace. A thread of its own waits."""
    flush.flush()
    try_link_prompts_to_trace(TracingClient(), trace_id, prompts)
