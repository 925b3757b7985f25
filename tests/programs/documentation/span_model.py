"""What a span holds: fields, attributes and those that mean something, types, events, documents, chats, cost."""

from __future__ import annotations

import collections
import datetime
import decimal

from programs import Programs
from programs.documentation import last, of, raised_by, read, tree

PROGRAMS = Programs()
program = PROGRAMS.add


@program
def every_field_of_a_span(mlflow):
    with mlflow.start_span("outer"), mlflow.start_span("inner", span_type="TOOL") as live:
        live.set_inputs({"a": [1, None]})
        live.set_outputs("b")
        open_fields = [live.end_time_ns, live.status.status_code.value, live.start_time_ns > 0]
    trace = last(mlflow)
    (span,) = trace.search_spans(name="inner")
    (outer,) = trace.search_spans(name="outer")
    return [
        open_fields,
        [span.span_id, span.trace_id, span.parent_id == outer.span_id, span.request_id],
        [span.name, span.span_type, span.inputs, span.outputs, span.events, span.links],
        [
            span.status.status_code.value,
            span.status.description,
            span.end_time_ns > span.start_time_ns,
        ],
        sorted(span.attributes),
        type(span).__name__,
        repr(span.status),
    ]


@program
def a_span_as_text(mlflow):
    with mlflow.start_span("shown", span_type="TOOL") as live:
        texts = [repr(live).replace(live.span_id, "<span>"), type(live).__name__]
    span = last(mlflow).data.spans[0]
    return [texts, repr(span), sorted(span.to_dict())]


@program
def attributes_by_topic(mlflow):
    with mlflow.start_span("call", span_type="LLM") as span:
        span.set_attributes(
            {
                "ai.model.name": "tiny-3",
                "ai.model.version": "2025-06-01",
                "ai.model.temperature": 0.7,
                "ai.model.max_tokens": 1000,
                "machine.gpu": "none",
                "machine.memory_mb": 2048,
            }
        )
        span.set_attributes(
            {
                "shop.operation": "describe",
                "shop.customer.tier": "gold",
                "shop.cost_usd": 0.02,
                "cache.hit": True,
                "retries": 0,
                "confidence": 0.95,
                "nothing": None,
                "list": [1, "two", {"three": 3}],
            }
        )
        live = {key: span.get_attribute(key) for key in ("retries", "cache.hit", "list", "missing")}
    found = last(mlflow).data.spans[0]
    mine = {key: value for key, value in found.attributes.items() if not key.startswith("mlflow.")}
    return [live, mine]


@program
def attributes_that_are_no_mapping(mlflow):
    with mlflow.start_span("span") as span:
        return [
            raised_by(lambda: span.set_attributes("a=1")),
            raised_by(lambda: span.set_attributes(None)),
            raised_by(lambda: span.set_attributes([1])),
            raised_by(lambda: span.set_attribute(1, 2)),
            sorted(str(key) for key in span.attributes),
        ]


@program
def types_of_ones_own(mlflow):
    @mlflow.trace(span_type="CREDIT_CHECK")
    def check(customer):
        return customer["score"] > 3

    @mlflow.trace(span_type="STOCK")
    def stock(item):
        with mlflow.start_span(name="add", span_type="MATH") as span:
            span.set_inputs({"x": 2, "y": 3})
            span.set_outputs({"z": 5})
            print(span.span_type)
        return check({"score": 5})

    stock("nails")
    trace = last(mlflow)
    return [tree(trace), [span.name for span in trace.search_spans(span_type="MATH")]]


@program
def a_type_that_is_changed(mlflow):
    with mlflow.start_span("span") as span:
        before = span.span_type
        span.set_span_type("ROUTER")
        span.set_status("OK")
    return [before, span.span_type, last(mlflow).data.spans[0].span_type]


@program
def documents_of_a_retriever(mlflow):
    Document = mlflow.entities.Document
    shelf = [
        ("Granite is hard.", "stones/granite.md"),
        ("Chalk is soft.", "stones/chalk.md"),
    ]

    @mlflow.trace(span_type=mlflow.entities.SpanType.RETRIEVER)
    def retrieve(query: str):
        span = mlflow.get_current_active_span()
        documents = [Document(page_content=text, metadata={"doc_uri": uri}) for text, uri in shelf]
        span.set_outputs(documents)
        return shelf

    result = retrieve("Which stone is soft?")
    (span,) = last(mlflow).search_spans(span_type="RETRIEVER")
    return [
        result,
        span.outputs,
        [Document.from_dict(one).page_content for one in span.outputs]
        if hasattr(Document, "from_dict")
        else None,
    ]


@program
def documents_with_much_metadata(mlflow):
    @mlflow.trace(span_type=mlflow.entities.SpanType.RETRIEVER)
    def retrieve(query: str, top_k: int = 2):
        documents = [
            {
                "page_content": f"page {n}",
                "metadata": {
                    "doc_uri": f"book/{n}",
                    "chunk_id": str(n),
                    "similarity_score": 0.9 - n / 10,
                    "author": None,
                },
                "id": f"d{n}",
            }
            for n in range(top_k)
        ]
        span = mlflow.get_current_active_span()
        span.set_attributes(
            {"retrieval.query_length": len(query), "retrieval.results_count": len(documents)}
        )
        span.set_outputs(documents)
        return documents

    retrieve("moss")
    span = last(mlflow).data.spans[0]
    return [span.outputs, span.attributes["retrieval.results_count"]]


MESSAGES = [
    {"role": "system", "content": "Use the tool."},
    {"role": "user", "content": "How much is 2 + 5?"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds two numbers.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
                "required": ["a", "b"],
            },
        },
    }
]


@program
def tools_of_a_chat(mlflow):
    key = of(mlflow, "tracing.constant").SpanAttributeKey
    set_tools = of(mlflow, "tracing").set_span_chat_tools

    @mlflow.trace(span_type=mlflow.entities.SpanType.CHAT_MODEL)
    def chat(messages, tools):
        call = {"arguments": '{"a": 2, "b": 5}', "name": "add"}
        set_tools(mlflow.get_current_active_span(), tools)
        return {
            "role": "assistant",
            "tool_calls": [{"id": "1", "function": call, "type": "function"}],
        }

    chat(MESSAGES, TOOLS)
    span = last(mlflow).data.spans[0]
    print("Tools:", span.get_attribute(key.CHAT_TOOLS))
    return [span.inputs, span.outputs]


@program
def tools_that_are_none(mlflow):
    set_tools = of(mlflow, "tracing").set_span_chat_tools
    with mlflow.start_span("chat", span_type="CHAT_MODEL") as span:
        return [
            raised_by(lambda: set_tools(span, "add")).partition(":")[0],
            raised_by(lambda: set_tools(span, [{"type": "function"}])),
            raised_by(lambda: set_tools(span, [{"kind": "unknown"}])).partition(":")[0],
            span.get_attribute("mlflow.chat.tools"),
        ]


@program
def a_helper_that_is_no_more(mlflow):
    # The page still names it; MLflow took it away.
    return raised_by(lambda: of(mlflow, "tracing").set_span_chat_messages).replace(
        mlflow.__name__, "mlflow"
    )


@program
def usage_and_model_by_hand(mlflow):
    key = of(mlflow, "tracing.constant").SpanAttributeKey

    @mlflow.trace(span_type=mlflow.entities.SpanType.LLM)
    def complete(prompt, tokens):
        span = mlflow.get_current_active_span()
        span.set_attribute(key.MODEL, "gpt-4o-mini")
        span.set_attribute(key.MODEL_PROVIDER, "openai")
        usage = {"input_tokens": tokens, "output_tokens": 4, "total_tokens": tokens + 4}
        span.set_attribute(key.CHAT_USAGE, usage)
        return prompt

    @mlflow.trace
    def both():
        complete("a", 10)
        complete("b", 20)

    both()
    trace = last(mlflow)
    spans = sorted(trace.data.spans, key=lambda span: span.start_time_ns)
    return [
        trace.info.token_usage,
        trace.info.cost,
        [[span.model_name, span.llm_cost, span.get_attribute(key.CHAT_USAGE)] for span in spans],
    ]


@program
def cost_by_hand(mlflow):
    key = of(mlflow, "tracing.constant").SpanAttributeKey
    with mlflow.start_span("root"):
        for cents in (1, 2):
            with mlflow.start_span("call", span_type="LLM") as span:
                cost = {
                    "input_cost": cents / 100,
                    "output_cost": cents / 50,
                    "total_cost": cents * 3 / 100,
                }
                span.set_attribute(key.LLM_COST, cost)
                span.set_attribute(key.MODEL, "a model of ours")
    trace = last(mlflow)
    totals = {name: round(value, 9) for name, value in trace.info.cost.items()}
    return [
        totals,
        sorted(round(s.llm_cost["total_cost"], 9) for s in trace.data.spans if s.llm_cost),
    ]


@program
def attributes_of_an_event(mlflow):
    from mlflow.entities import SpanEvent

    class Point:
        def __str__(self):
            return "(1, 2)"

    attributes = {
        "list": [1, [2.5, None]],
        "tuple": ("a", True),
        "range": range(3),
        "deque": collections.deque(["x"]),
        "bytes in a list": bytearray(b"ab"),
        "dictionary": {"inner": [1], "2": {"deep": ()}, 3: "number", (1, 2): "pair"},
        "mapping": collections.UserDict(a=[1]),
        "set": {1},
        "date": datetime.date(2020, 1, 1),
        "decimal": decimal.Decimal("1.50"),
        "object": Point(),
        "type": int,
        "large": 2**70,
    }
    with mlflow.start_span("with an event") as span:
        span.add_event(SpanEvent("filled", timestamp=1, attributes=attributes))
        live = repr([event.attributes for event in span.events])
    copied = repr([event.attributes for event in span.to_immutable_span().events])
    dictionary = repr(span.to_dict()["events"])
    found = last(mlflow).data.spans[0]
    return [live, copied, dictionary, repr([event.attributes for event in found.events])]


@program
def events_of_ones_own(mlflow):
    SpanEvent = mlflow.entities.SpanEvent
    with mlflow.start_span("span") as span:
        span.add_event(SpanEvent(name="started"))
        span.add_event(SpanEvent("retried", attributes={"attempt": 2, "why": "slow", "list": [1]}))
        span.add_event(SpanEvent("dated", timestamp=1_700_000_000_000_000_000))
        span.add_event(SpanEvent.from_exception(ValueError("odd")))
        live = [event.name for event in span.events]
    found = last(mlflow).data.spans[0]
    return [
        live,
        [[event.name, sorted(event.attributes)] for event in found.events],
        found.events[1].attributes,
        found.events[2].timestamp,
        found.status.status_code.value,
    ]


@program
def statuses_of_a_span(mlflow):
    SpanStatus, Code = mlflow.entities.SpanStatus, mlflow.entities.SpanStatusCode
    results = []
    for status in ("OK", "ERROR", Code.OK, SpanStatus(Code.ERROR, "half done"), "UNSET"):
        with mlflow.start_span("span") as span:
            span.set_status(status)
            results.append([span.status.status_code.value, span.status.description])
        trace = last(mlflow)
        found = trace.data.spans[0].status
        results[-1] += [found.status_code.value, found.description, str(trace.info.state)]
    with mlflow.start_span("bad") as span:
        results.append(raised_by(lambda: span.set_status("FINE")))
    return results


@program
def an_exception_that_is_recorded(mlflow):
    with mlflow.start_span("span") as span:
        try:
            int("nine")
        except ValueError as error:
            span.record_exception(error)
        span.set_outputs("went on")
    trace = last(mlflow)
    found = trace.data.spans[0]
    return [
        found.status.status_code.value,
        [found.events[0].name, found.events[0].attributes["exception.message"]],
        str(trace.info.state),
        found.outputs,
    ]


@program
def a_live_span_as_a_dictionary(mlflow):
    Span = mlflow.entities.Span
    with mlflow.start_span("kept", span_type="TOOL", attributes={"n": 1}) as span:
        span.set_inputs({"x": 1})
        span.set_outputs([2])
    kept = Span.from_dict(span.to_dict())
    read_back = last(mlflow).data.spans[0]
    return [
        sorted(span.to_dict()),
        [kept.name, kept.span_type, kept.inputs, kept.outputs, kept.span_id == span.span_id],
        read_back.to_dict()["attributes"],
        {
            key: value
            for key, value in span.to_dict().items()
            if key in ("name", "status", "events")
        },
    ]


@program
def identifiers_of_session_and_user_on_a_span(mlflow):
    with mlflow.start_span("root") as span:
        span.set_attribute("session.id", "s-9")
        span.set_attribute("user.id", "u-9")
        with mlflow.start_span("child") as child:
            child.set_attribute("session.id", "s-10")
    info = read(mlflow, span.trace_id).info
    return [
        info.trace_metadata.get("mlflow.trace.session"),
        info.trace_metadata.get("mlflow.trace.user"),
    ]
