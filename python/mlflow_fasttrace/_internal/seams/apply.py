"""The replacements in MLflow: ``apply()`` makes them after the check of ``private_names.py``, and notes what
``uninstall()`` undoes.

Most functions of MLflow's tracing lead to this package's own of the same name. The modules beside this one
hold what answers besides: the trace manager, the tracer provider and the context that MLflow's code and its
integrations reach for.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from mlflow.entities.span import LiveSpan as MlflowLiveSpan
from mlflow.tracing import distributed
from mlflow.tracing import provider as mlflow_provider
from mlflow.tracing.config import TracingConfig
from mlflow.tracing.trace_manager import InMemoryTraceManager
from mlflow.tracking._tracking_service import utils as tracking_uris

from mlflow_fasttrace import _core, fluent, otel, traces, tracing
from mlflow_fasttrace._internal.base import hooks
from mlflow_fasttrace._internal.base.imports import imported
from mlflow_fasttrace._internal.base.patching import (
    at_undo,
    original,
    replace,
    replace_attribute,
    replace_class,
)
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.recording.root_context import root_context
from mlflow_fasttrace._internal.seams import (
    bedrock,
    changes,
    current,
    evaluation,
    experiments,
    langchain,
    llama_index,
    notebook,
    openai,
    provider,
    reading,
    sdk_spans,
    trace_manager,
    whole_traces,
)
from mlflow_fasttrace._internal.spans import copies, otel_context
from mlflow_fasttrace._internal.spans.otel_span import OWN_FLAGS
from mlflow_fasttrace._internal.spool import database

__all__ = ["FUNCTIONS", "apply"]


def set_experiment(
    experiment_name: str | None = None,
    experiment_id: str | None = None,
    trace_location: Any | None = None,
) -> Any:
    """``mlflow.set_experiment``."""
    options = {} if trace_location is None else {"trace_location": trace_location}
    return fluent.set_experiment(experiment_name, experiment_id, **options)


def get_config() -> TracingConfig:
    """``mlflow.tracing.config.get_config``."""
    config = TracingConfig()
    config.span_processors = tracing.span_processors()
    return config


def set_last_active_trace_id(trace_id: str) -> None:
    """``mlflow.tracing.fluent._set_last_active_trace_id``."""
    _core.set_last_trace_id(trace_id)


def tracing_headers_from_span(span: Any) -> dict[str, str]:
    """``mlflow.tracing.distributed._get_tracing_headers_from_span``."""
    if type(span) is _core.LiveSpan:
        flags = tracing.flags_of(span, OWN_FLAGS)
        return {"traceparent": f"00-{span._trace_id}-{span.span_id}-{flags:02x}"}
    return original(distributed._get_tracing_headers_from_span)(span)


def from_immutable_span(
    cls: type,
    span: Any,
    parent_span_id: str | None = None,
    trace_id: str | None = None,
    experiment_id: str | None = None,
    otel_trace_id: str | None = None,
) -> Any:
    """``LiveSpan.from_immutable_span``."""
    return copies.clone_span(span, parent_span_id, trace_id, experiment_id, otel_trace_id)


#: By module: MLflow's functions and methods, and the functions that they lead to.
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
        "_flush_pending_async_trace_writes": reading.flush_pending,
    },
    "mlflow.tracing.provider": {
        "set_span_in_context": current.set_span_in_context,
        "detach_span_from_context": current.detach_span_from_context,
        "safe_set_span_in_context": current.safe_set_span_in_context,
        "with_active_span": current.with_active_span,
        "set_destination": provider.set_destination,
        "enable": tracing.enable,
        "disable": tracing.disable,
        "is_tracing_enabled": tracing.is_tracing_enabled,
        "reset": provider.reset,
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
    "mlflow.tracing.client": {
        "TracingClient.log_assessment": changes.log_assessment,
        "TracingClient.set_trace_tag": changes.set_trace_tag,
    },
    "mlflow.tracing.assessment": {"_get_trace_span_ids": reading.span_ids},
    "mlflow.tracking.fluent": {
        "set_experiment": set_experiment,
        "flush_trace_async_logging": reading.flush_trace_async_logging,
    },
    "mlflow.tracking._tracking_service.client": {
        "TrackingServiceClient.get_experiment_by_name": experiments.get_experiment_by_name,
    },
    "mlflow.entities.span": {"create_mlflow_span": sdk_spans.create_mlflow_span},
}


def function_of(module: str, name: str) -> types.FunctionType | None:
    """MLflow's function or method (``Class.method``) of that name, replaced or not; None where this release has
    none."""
    holder: Any = imported(module)
    for part in name.split("."):
        holder = vars(holder).get(part)
        if holder is None:
            return None
    return holder


def apply() -> None:
    """Replace what is to be replaced. Call ``table.check()`` first: nothing here looks whether it is there.
    Where it fails halfway, ``patching.undo_all()`` takes back what was done."""
    for module, functions in FUNCTIONS.items():
        for name, target in functions.items():
            if (function := function_of(module, name)) is not None:
                replace(function, target)
    replace(reading.store_getter, reading.store)
    at_undo(provider.note_own_provider())
    replace_class(mlflow_provider.provider, provider.CoreProviderWrapper)
    replace_class(mlflow_provider.mlflow_runtime_context, current.LinkedMlflowContext)
    replace_attribute(MlflowLiveSpan, "from_immutable_span", classmethod(from_immutable_span))
    if hasattr(tracking_uris, "reset"):
        replace_attribute(tracking_uris, "reset", provider.forget)
    before = InMemoryTraceManager._instance
    at_undo(lambda: setattr(InMemoryTraceManager, "_instance", before))
    replace_attribute(InMemoryTraceManager, "get_instance", classmethod(trace_manager.get_instance))
    hooks.take_info.answer(trace_manager.take_info)
    hooks.whole_trace_ended.answer(whole_traces.whole_trace_ended)
    notebook.look_for_notebook()
    root_context.wants_whole = whole_traces.wants_whole
    otel_context.ask_mlflow(trace_manager.mlflow_records)
    otel.use_process_provider(provider.core_provider)
    destination.use_mlflow(True)
    at_undo(_let_go)
    langchain.complete_when_loaded()
    llama_index.complete_when_loaded()
    bedrock.complete_when_loaded()
    openai.complete_when_loaded()
    evaluation.count_when_loaded()
    database.guard()
    traces.describe_after_flush()


def _let_go() -> None:
    """Undo what ``apply()`` set in the layers below."""
    root_context.wants_whole = None
    otel_context.ask_mlflow(None)
    otel.use_process_provider(None)
    destination.use_mlflow(False)
