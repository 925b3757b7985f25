"""Redaction: processors of spans."""

from __future__ import annotations

import re

from programs import Programs
from programs.documentation import last, of, openai_traced, raised_by, read, tree

PROGRAMS = Programs()
program = PROGRAMS.add

MAIL = re.compile(r"[\w.]+@[\w.]+\.\w+")
NUMBER = re.compile(r"\d{10}")


def with_processors(mlflow, *processors):
    return of(mlflow, "tracing").configure(span_processors=list(processors))


@program
def mail_addresses_are_redacted(mlflow):
    @mlflow.trace
    def predict(text: str):
        return "noted"

    def redact(span):
        span.set_inputs({"text": MAIL.sub("[REDACTED]", span.inputs.get("text"))})

    tracing = of(mlflow, "tracing")
    tracing.configure(span_processors=[redact])
    predict("Write to box.7@example.org, please.")
    tracing.configure(span_processors=[])
    trace = last(mlflow)
    return [trace.data.spans[0].inputs, trace.info.request_preview, trace.data.request]


@program
def redaction_by_type(mlflow):
    SpanType = mlflow.entities.SpanType

    @mlflow.trace(span_type=SpanType.TOOL)
    def account(user):
        return "1234567890"

    @mlflow.trace(span_type=SpanType.AGENT)
    def agent(messages):
        number = account("u-1")
        return {"messages": [*messages, {"role": "assistant", "content": f"It is {number}."}]}

    def cleaned(messages):
        return [{**one, "content": NUMBER.sub("[REDACTED]", one["content"])} for one in messages]

    def redact(span):
        if span.span_type == SpanType.TOOL:
            span.set_outputs("[REDACTED]")
            return
        if isinstance(span.inputs, dict) and (messages := span.inputs.get("messages")):
            span.set_inputs({"messages": cleaned(messages)})
        if isinstance(span.outputs, dict) and (messages := span.outputs.get("messages")):
            span.set_outputs({"messages": cleaned(messages)})

    with with_processors(mlflow, redact):
        agent([{"role": "user", "content": "Which number has 0987654321?"}])
    trace = last(mlflow)
    return [trace.info.response_preview, [[s.name, s.inputs, s.outputs] for s in trace.data.spans]]


@program
def documents_become_their_ids(mlflow):
    SpanType = mlflow.entities.SpanType

    def only_ids(span):
        if span.span_type == SpanType.RETRIEVER:
            span.set_outputs({"ids": [one["id"] for one in span.outputs]})

    @mlflow.trace(span_type=SpanType.RETRIEVER)
    def retrieve(n):
        return [{"id": i, "page_content": "long text " * 20} for i in range(n)]

    @mlflow.trace
    def answer():
        return len(retrieve(3))

    with with_processors(mlflow, only_ids):
        answer()
    (span,) = last(mlflow).search_spans(name="retrieve")
    return span.outputs


@program
def processors_one_after_another(mlflow):
    def first(span):
        span.set_attribute("order", "first")
        span.set_outputs(f"{span.outputs} 1")

    def second(span):
        span.set_attribute("order", span.get_attribute("order") + ", second")
        span.set_outputs(f"{span.outputs} 2")

    with with_processors(mlflow, first, second), mlflow.start_span("span") as span:
        span.set_outputs("0")
    found = last(mlflow).data.spans[0]
    return [found.outputs, found.attributes["order"]]


@program
def a_processor_that_fails(mlflow):
    def fails(span):
        raise RuntimeError("no such key")

    def marks(span):
        span.set_attribute("marked", True)

    with with_processors(mlflow, fails, marks):

        @mlflow.trace
        def work(n):
            return n

        result = work(3)
    span = last(mlflow).data.spans[0]
    return [result, span.attributes.get("marked"), span.outputs]


@program
def processors_that_are_none(mlflow):
    tracing = of(mlflow, "tracing")
    found = []
    for processors in ([lambda: None], [lambda span, more: None], None, ()):
        found.append(raised_by(lambda given=processors: tracing.configure(span_processors=given)))
        with mlflow.start_span("span") as span:
            span.set_outputs(1)
        found.append(last(mlflow).data.spans[0].outputs)
        tracing.reset()
    return found


@program
def processors_are_reset(mlflow):
    tracing = of(mlflow, "tracing")

    @mlflow.trace
    def work(word):
        return word

    def hide(span):
        span.set_outputs("hidden")

    results = []
    tracing.configure(span_processors=[hide])
    work("a")
    results.append(last(mlflow).data.spans[0].outputs)
    tracing.configure(span_processors=[])
    work("b")
    results.append(last(mlflow).data.spans[0].outputs)
    tracing.configure(span_processors=[hide])
    tracing.reset()
    work("c")
    results.append(last(mlflow).data.spans[0].outputs)
    with tracing.configure(span_processors=[hide]):
        work("d")
        results.append(last(mlflow).data.spans[0].outputs)
    work("e")
    results.append(last(mlflow).data.spans[0].outputs)
    return results


@program
def processors_leave_the_program_alone(mlflow):
    def hide(span):
        span.set_outputs(None)
        span.set_inputs({})
        span.set_attribute("secret", "***")
        return "ignored"

    @mlflow.trace(attributes={"secret": "key"})
    def login(password):
        return {"token": password[::-1]}

    with with_processors(mlflow, hide):
        result = login("drowssap")
    span = last(mlflow).data.spans[0]
    return [result, span.inputs, span.outputs, span.attributes["secret"]]


@program
def processors_of_a_clients_spans(mlflow):
    def hide(span):
        if span.inputs and "messages" in span.inputs:
            span.set_inputs({"messages": "[REDACTED]"})

    with with_processors(mlflow, hide), openai_traced(mlflow) as client:
        client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "My code is 1234567890"}]
        )
    trace = last(mlflow)
    return [tree(trace), trace.data.spans[0].inputs, trace.info.request_preview]


@program
def processors_of_spans_by_hand_and_of_streams(mlflow):
    def hide(span):
        span.set_attribute("seen", span.name)
        if span.name == "stream":
            span.set_outputs("cut")

    @mlflow.trace
    def stream():
        yield "a"
        yield "b"

    with with_processors(mlflow, hide):
        root = mlflow.start_span_no_context("root")
        mlflow.start_span_no_context("child", parent_span=root).end()
        root.end()
        by_hand = read(mlflow, root.trace_id)
        list(stream())
    span = last(mlflow).data.spans[0]
    return [
        sorted(one.attributes["seen"] for one in by_hand.data.spans),
        [span.outputs, [event.attributes for event in span.events]],
    ]


@program
def a_processor_renames_nothing_but_tells_the_trace(mlflow):
    seen = []

    def look(span):
        seen.append(
            [span.name, span.span_type, span.status.status_code.value, span.parent_id is None]
        )
        seen.append(span.end_time_ns is not None)

    with with_processors(mlflow, look):
        with mlflow.start_span("outer", span_type="CHAIN"):
            raised_by(lambda: mlflow.trace(lambda: 1 / 0, name="inner")())
    mlflow.flush_trace_async_logging()
    return seen
