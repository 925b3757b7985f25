"""MLflow's names for spans, without importing MLflow.

``LiveSpan``, ``NoOpSpan`` and ``SpanType`` are this package's own; any other name of ``mlflow.entities`` comes
from MLflow itself when it is asked for.
"""

from __future__ import annotations

from typing import Any

from mlflow_fasttrace._core import LiveSpan
from mlflow_fasttrace._internal.base import patching
from mlflow_fasttrace._internal.spans.no_op import NoOpSpan

#: Empty, so that modules below are looked for: ``_internal/seams/aliases.py`` finds MLflow's.
__path__: list[str] = []


class SpanType:
    """Predefined types of spans. Any other string is a type as well."""

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
    if name.startswith(
        "_"
    ):  # what looks at modules asks for such names, and must not import MLflow
        raise AttributeError(f"module 'mlflow_fasttrace.entities' has no attribute {name!r}")
    patching.wait_for_mlflow()
    import mlflow.entities

    return getattr(mlflow.entities, name)


__all__ = ["LiveSpan", "NoOpSpan", "SpanType"]
