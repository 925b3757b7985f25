"""MLflow's names for spans, without importing MLflow.

``SpanType`` and ``NoOpSpan`` are this package's own; any other name of ``mlflow.entities`` comes
from MLflow itself when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from mlflow_fasttrace._core import LiveSpan
from mlflow_fasttrace._internal.spans.no_op import NoOpSpan

#: Modules below it are MLflow's, see _internal/seams/aliases.py.
__path__: list[str] = []


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


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(importlib.import_module("mlflow.entities"), name)


__all__ = ["LiveSpan", "NoOpSpan", "SpanType"]
