"""MLflow's names for spans, without importing MLflow.

``SpanType`` and ``NoOpSpan`` are this package's own; any other name of ``mlflow.entities`` comes
from MLflow itself when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from mlflow_fasttrace._core import LiveSpan

NO_OP_SPAN_TRACE_ID = "MLFLOW_NO_OP_SPAN_TRACE_ID"


class SpanType:
    """Predefined types of spans; any other string is a type as well."""

    LLM = "LLM"
    CHAIN = "CHAIN"
    AGENT = "AGENT"
    TOOL = "TOOL"
    CHAT_MODEL = "CHAT_MODEL"
    RETRIEVER = "RETRIEVER"
    PARSER = "PARSER"
    EMBEDDING = "EMBEDDING"
    RERANKER = "RERANKER"
    MEMORY = "MEMORY"
    UNKNOWN = "UNKNOWN"
    WORKFLOW = "WORKFLOW"
    TASK = "TASK"
    GUARDRAIL = "GUARDRAIL"
    EVALUATOR = "EVALUATOR"


class NoOpSpan:
    """What a program holds where its span is not recorded: takes everything, keeps nothing."""

    trace_id = request_id = NO_OP_SPAN_TRACE_ID
    span_id = name = start_time_ns = end_time_ns = parent_id = status = None
    inputs = outputs = span_type = description = log_level = None
    attributes: dict[str, Any] = {}
    events: list[Any] = []

    def _ignore(self, *args: Any, **kwargs: Any) -> None:
        pass

    set_inputs = set_outputs = set_attribute = set_attributes = set_status = _ignore
    set_span_type = set_description = set_log_level = _ignore
    add_event = add_link = record_exception = end = get_attribute = _ignore

    def __repr__(self) -> str:
        return f"NoOpSpan(name=None, trace_id={self.trace_id!r}, span_id=None, parent_id=None)"


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(importlib.import_module("mlflow.entities"), name)


__all__ = ["LiveSpan", "NoOpSpan", "SpanType"]
