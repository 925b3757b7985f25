"""MLflow's names for spans, without importing MLflow.

``LiveSpan``, ``NoOpSpan`` and ``SpanType`` are this package's own; any other name of ``mlflow.entities`` comes
from MLflow itself when it is asked for.
"""

from __future__ import annotations

from mlflow_fasttrace._core import LiveSpan as LiveSpan
from mlflow_fasttrace._internal.base import mlflow_names
from mlflow_fasttrace._internal.spans.no_op import NoOpSpan as NoOpSpan

#: Empty, so that modules below are looked for: ``_internal/seams/aliases.py`` finds MLflow's.
__path__: list[str] = []


class SpanType:
    """Predefined types of spans. Any other string is a type as well.

    Example:
        >>> from mlflow_fasttrace.entities import SpanType
        >>> SpanType.RETRIEVER
        'RETRIEVER'
    """

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


_OWN = ("LiveSpan", "NoOpSpan", "SpanType")
__getattr__, __dir__ = mlflow_names.take_over(globals(), "mlflow.entities")
