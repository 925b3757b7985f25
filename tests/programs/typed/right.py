"""Calls that are right, and what type checkers make of them: in tests/package/test_types.py these lines are checked
under MLflow and under mlflow_fasttrace."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, overload

import mlflow
import mlflow.entities
import mlflow.genai
import mlflow.genai.scorers
import mlflow.langchain
import mlflow.openai
import mlflow.tracing
import mlflow.types.llm
from mlflow import MlflowClient, MlflowException, start_span, trace
from mlflow.entities import (
    Document,
    Feedback,
    Link,
    LiveSpan,
    NoOpSpan,
    Span,
    SpanEvent,
    SpanLogLevel,
    SpanStatus,
    SpanStatusCode,
    SpanType,
    Trace,
    TraceInfo,
)
from mlflow.entities.span import LiveSpan as SameLiveSpan
from mlflow.genai.scorers import scorer
from mlflow.openai import autolog as openai_autolog
from mlflow.tracing import configure, disable, enable
from mlflow.tracing.fluent import get_trace
from mlflow.types.llm import ChatMessage


@mlflow.trace
def bare(x: int, y: str = "") -> float:
    return x + len(y)


@mlflow.trace(
    name="named",
    span_type=SpanType.TOOL,
    attributes={"a": 1},
    log_level=SpanLogLevel.INFO,
    links=[Link(trace_id="tr-1", span_id="2")],
    description="text",
    sampling_ratio_override=0.5,
)
def named(x: int, *rest: int, key: str, **options: float) -> str:
    return key


@trace
async def coroutine(x: int) -> str:
    return str(x)


@trace(name="async")
async def named_coroutine(x: int) -> str:
    return str(x)


@trace
def items(n: int) -> Iterator[int]:
    yield n


@trace(output_reducer=lambda values: sum(values))
def sent(n: int) -> Generator[int, str, float]:
    text = yield n
    return float(text)


@trace
async def stream(n: int) -> AsyncIterator[int]:
    yield n


class Agent:
    @mlflow.trace
    def method(self, a: int) -> int:
        return a

    @classmethod
    @mlflow.trace
    def made(cls, a: int) -> Agent:
        return cls()

    @mlflow.trace
    @classmethod
    def outside_of_classmethod(cls, a: int) -> int:
        return a

    @staticmethod
    @mlflow.trace(span_type="CUSTOM")
    def static(a: int) -> int:
        return a

    @mlflow.trace
    @staticmethod
    def outside_of_staticmethod(a: int) -> int:
        return a

    @property
    @mlflow.trace
    def size(self) -> int:
        return 1

    @mlflow.trace
    def __call__(self, question: str) -> str:
        return question

    @overload
    def either(self, a: int) -> int: ...
    @overload
    def either(self, a: str) -> str: ...
    @mlflow.trace
    def either(self, a: int | str) -> int | str:
        return a


reveal_type(bare)
reveal_type(named)
reveal_type(coroutine)
reveal_type(named_coroutine)
reveal_type(items)
reveal_type(sent)
reveal_type(stream)
reveal_type(Agent().method)
reveal_type(Agent.made)
reveal_type(Agent.outside_of_classmethod)
reveal_type(Agent.static)
reveal_type(Agent.outside_of_staticmethod)
reveal_type(Agent().size)
reveal_type(Agent()("question"))
reveal_type(Agent().either("a"))
reveal_type(mlflow.trace(math.sqrt))
reveal_type(mlflow.trace(math.sqrt, name="root")(2.0))
reveal_type(mlflow.trace(functools.partial(bare, 1)))
reveal_type(mlflow.trace(Agent()))
reveal_type(mlflow.trace(lambda: 1))

with mlflow.start_span("outer", span_type=SpanType.CHAIN, attributes={"a": 1}) as span:
    reveal_type(span)
    span.set_inputs({"a": 1})
    span.set_outputs([1])
    span.set_attribute("key", object())
    span.set_status(SpanStatusCode.OK)
    span.set_status(SpanStatus(SpanStatusCode.ERROR, "text"))
    span.add_event(SpanEvent("event", attributes={"a": 1}))
    span.record_exception(ValueError("text"))
    reveal_type(span.inputs)
    reveal_type(span.attributes)
    reveal_type(span.events)
    reveal_type(span.links)
    reveal_type(span.status)
    reveal_type(span.trace_id)
    reveal_type(span.parent_id)
    reveal_type(span.start_time_ns)
    reveal_type(span.log_level)
    reveal_type(span.to_dict())


@start_span("every call")
def in_scope(a: int) -> int:
    return a


reveal_type(in_scope)

by_hand = mlflow.start_span_no_context("by hand", parent_span=span, inputs=1, tags={"a": "b"})
reveal_type(by_hand)
by_hand.end(outputs=1, status="OK")

reveal_type(mlflow.get_current_active_span())
reveal_type(mlflow.get_active_trace_id())
reveal_type(mlflow.get_last_active_trace_id(thread_local=True))
reveal_type(mlflow.update_current_trace)
mlflow.update_current_trace(
    tags={"a": "b"}, metadata={"a": "b"}, client_request_id="id", request_preview="p", state="OK"
)
reveal_type(mlflow.get_trace("tr-1"))
reveal_type(mlflow.search_traces)
reveal_type(mlflow.search_sessions)
reveal_type(mlflow.log_feedback(trace_id="tr-1", value=1.0))
reveal_type(mlflow.log_expectation(trace_id="tr-1", name="n", value={}))
reveal_type(mlflow.log_assessment)
reveal_type(mlflow.add_trace)
reveal_type(mlflow.log_trace)
mlflow.set_trace_tag("tr-1", "key", "value")
mlflow.delete_trace_tag("tr-1", "key")
mlflow.flush_trace_async_logging()

with mlflow.context(tags={"a": "b"}, session_id="s", user="u", enabled=True):
    pass


def change(span: LiveSpan) -> None:
    span.set_outputs(None)


with configure(span_processors=[change]):
    pass
disable()
enable()
reveal_type(mlflow.tracing.configure)
reveal_type(mlflow.tracing.set_destination)
reveal_type(mlflow.tracing.get_bridged_tracer_provider)
reveal_type(mlflow.tracing.get_tracing_context_headers_for_http_request())
with mlflow.tracing.set_tracing_context_from_http_request_headers({"traceparent": ""}):
    pass

# MLflow's other names.
reveal_type(mlflow.set_experiment("e"))
reveal_type(mlflow.set_tracking_uri)
reveal_type(mlflow.get_tracking_uri())
reveal_type(mlflow.autolog)
reveal_type(mlflow.log_metric)
reveal_type(mlflow.start_run())
reveal_type(mlflow.active_run())
reveal_type(mlflow.Image)
reveal_type(mlflow.test)
reveal_type(mlflow.__version__)
reveal_type(mlflow.evaluate)
reveal_type(mlflow.genai.evaluate)
reveal_type(mlflow.genai.scorers.Correctness)
reveal_type(MlflowClient().get_trace("tr-1"))
reveal_type(MlflowException("text").error_code)
reveal_type(openai_autolog)
reveal_type(get_trace("tr-1"))
reveal_type(ChatMessage(role="user", content="text").content)


@scorer
def is_short(outputs: str) -> bool:
    return len(outputs) < 10


reveal_type(is_short)


def read(found: Trace, info: TraceInfo, other: NoOpSpan, same: SameLiveSpan) -> Any:
    reveal_type(found.data.spans)
    reveal_type(found.search_spans)
    reveal_type(info.request_preview)
    reveal_type(info.assessments)
    reveal_type(same.span_id)
    one: LiveSpan = same
    base: Span = one
    return [base, Feedback(name="f", value=True), Document(page_content="text"), other.trace_id]
