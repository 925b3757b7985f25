"""Calls that are wrong: each line that says so is one of which a type checker says it, or both. Checked as right.py."""

from __future__ import annotations

import math

import mlflow
import mlflow.genai
import mlflow.tracing
from mlflow import start_span, trace
from mlflow.entities import Link, LiveSpan, SpanType, Trace
from mlflow.tracing import nothing  # wrong


@mlflow.trace
def bare(x: int, y: str = "") -> float:
    return x + len(y)


@trace(name="async")
async def coroutine(x: int) -> str:
    return str(x)


class Agent:
    @mlflow.trace
    def method(self, a: int) -> int:
        return a

    @classmethod
    @mlflow.trace
    def made(cls, a: int) -> Agent:
        return cls()


bare("no number")  # wrong
bare()  # wrong
bare(1, z=2)  # wrong
wrong_result: str = bare(1)  # wrong
Agent().method("no number")  # wrong
Agent.made("no number")  # wrong
mlflow.trace(math.sqrt)("no number")  # wrong


@mlflow.trace(nam="misspelt")  # wrong
def with_wrong_option() -> None: ...


@trace(links=["no link"])  # wrong
def with_wrong_links() -> None: ...


@trace(attributes=["no", "dictionary"])  # wrong
def with_wrong_attributes() -> None: ...


async def use() -> None:
    text: int = await coroutine(1)  # wrong
    await coroutine("no number")  # wrong


def use_scopes() -> None:
    with start_span(1):  # wrong
        pass
    with start_span("a") as span:
        span.set_outputs()  # wrong
        span.name = 1  # wrong
        wrong_id: int = span.trace_id  # wrong


def use_misspelt_option() -> None:
    with start_span("a", span_types=SpanType.LLM):  # wrong
        pass


@start_span("every call")
def in_scope(a: int) -> int:
    return a


in_scope("no number")  # wrong
mlflow.start_span_no_context()  # wrong
mlflow.start_span_no_context("a", start_time_ns="now")  # wrong
mlflow.get_current_active_span().trace_id  # wrong
mlflow.update_current_trace(tag={"a": "b"})  # wrong
mlflow.update_current_trace(tags=["a"])  # wrong
mlflow.log_feedback("tr-1", value=1)  # wrong
mlflow.genai.evaluate()  # wrong
mlflow.tracing.configure(processors=[])  # wrong
mlflow.nothing  # wrong
mlflow.start_spam("a")  # wrong
mlflow.log_metric(1, "no number")  # wrong
link: Link = "no link"  # wrong


def read(found: Trace, span: LiveSpan) -> None:
    found.data.span  # wrong
    nothing()
    span.input
