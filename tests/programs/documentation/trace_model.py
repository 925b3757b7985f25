"""What a trace is: its info, its data, what can be asked of it, and its forms."""

from __future__ import annotations

import json

from programs import Programs
from programs.documentation import last, raised_by, read, tree

PROGRAMS = Programs()
program = PROGRAMS.add


def pipeline(mlflow):
    """A trace of a small pipeline, read back."""
    SpanType = mlflow.entities.SpanType

    @mlflow.trace(span_type=SpanType.EMBEDDING)
    def embed(words):
        return [len(word) for word in words.split()]

    @mlflow.trace(span_type=SpanType.RETRIEVER)
    def retrieve(question, k=2):
        embed(question)
        with mlflow.start_span("search", span_type=SpanType.TOOL) as span:
            span.set_inputs({"k": k})
            span.set_outputs(["doc 1", "doc 2"])
        return [{"page_content": "doc 1", "metadata": {"doc_uri": "a"}}]

    @mlflow.trace(span_type=SpanType.CHAT_MODEL)
    def generate(question, documents):
        return {"answer": question.upper(), "sources": len(documents)}

    @mlflow.trace(name="Answer", span_type=SpanType.CHAIN)
    def answer(question):
        return generate(question, retrieve(question))

    answer("which way is north")
    return last(mlflow)


@program
def info_of_a_trace(mlflow):
    trace = pipeline(mlflow)
    info = trace.info
    return [
        [info.trace_id, info.client_request_id, str(info.state), info.request_preview],
        [info.response_preview, info.execution_duration >= 0, info.request_time > 1.6e12],
        [str(info.trace_location.type), sorted(info.tags), sorted(info.trace_metadata)],
        [info.request_id == info.trace_id, info.status == info.state, info.assessments],
        [info.timestamp_ms == info.request_time, info.execution_time_ms == info.execution_duration],
        sorted(info.to_dict()),
    ]


@program
def data_of_a_trace(mlflow):
    trace = pipeline(mlflow)
    data = trace.data
    return [data.request, data.response, len(data.spans), sorted(data.to_dict()), tree(trace)]


@program
def a_trace_as_json(mlflow):
    Trace = mlflow.entities.Trace
    trace = pipeline(mlflow)
    again = Trace.from_json(trace.to_json())
    whole = json.loads(trace.to_json())
    return [
        json.loads(again.to_json())["data"] == whole["data"],
        tree(again) == tree(trace),
        again.info.trace_id == trace.info.trace_id,
        whole["info"],
        [
            span["attributes"]
            for span in sorted(whole["data"]["spans"], key=lambda s: s["start_time_unix_nano"])
        ],
        sorted(json.loads(trace.to_json(pretty=True))),
    ]


@program
def a_trace_as_a_row(mlflow):
    Trace = mlflow.entities.Trace
    trace = pipeline(mlflow)
    row = trace.to_pandas_dataframe_row()
    return [
        sorted(row),
        Trace.pandas_dataframe_columns(),
        row["request"],
        row["response"],
        row["state"],
    ]


@program
def spans_of_a_trace(mlflow):
    import re

    SpanType = mlflow.entities.SpanType
    trace = pipeline(mlflow)
    (chain,) = trace.search_spans(span_type=SpanType.CHAIN)

    def names(**wanted):
        return [span.name for span in trace.search_spans(**wanted)]

    return [
        names(span_type=SpanType.RETRIEVER),
        names(name="embed"),
        names(name=re.compile("^e.*d$")),
        names(span_id=chain.span_id),
        names(span_type=SpanType.TOOL, name="search"),
        names(name="no such span"),
        names(),
        raised_by(lambda: trace.search_spans(span_type=3)),
    ]


@program
def assessments_of_a_trace(mlflow):
    trace = pipeline(mlflow)
    trace_id = trace.info.trace_id
    mlflow.log_feedback(trace_id=trace_id, name="clear", value=True)
    mlflow.log_feedback(trace_id=trace_id, name="length", value=3)
    mlflow.log_expectation(trace_id=trace_id, name="expected", value="NORTH")
    trace = read(mlflow, trace_id)

    def found(**wanted):
        return sorted(f"{one.name}={one.value}" for one in trace.search_assessments(**wanted))

    return [found(), found(name="clear"), found(type="feedback"), found(type="expectation")]


@program
def costs_by_tier(mlflow):
    for tier, cents in (("gold", 3), ("gold", 4), ("iron", 1)):
        with mlflow.start_span("request"):
            mlflow.update_current_trace(tags={"shop.tier": tier})
            with mlflow.start_span("chat", span_type="CHAT_MODEL") as span:
                span.set_attribute("response.cost_cents", cents)
    mlflow.flush_trace_async_logging()
    costs = {}
    for trace in mlflow.search_traces(return_type="list"):
        tier = trace.info.tags.get("shop.tier", "unknown")
        for span in trace.data.spans:
            if span.span_type == "CHAT_MODEL":
                costs[tier] = costs.get(tier, 0) + span.attributes.get("response.cost_cents", 0)
    return dict(sorted(costs.items()))


@program
def figures_of_retrievals(mlflow):
    for n in (1, 3):
        with mlflow.start_span("find", span_type="RETRIEVER") as span:
            span.set_attributes({"retrieval.results_count": n, "retrieval.database": "shelf"})
    mlflow.flush_trace_async_logging()
    figures = [
        [
            span.end_time_ns > span.start_time_ns,
            span.attributes.get("retrieval.results_count", 0),
            span.attributes.get("retrieval.average", -1),
            span.attributes.get("retrieval.database"),
        ]
        for trace in mlflow.search_traces(return_type="list")
        for span in trace.data.spans
        if span.span_type == "RETRIEVER"
    ]
    return sorted(figures)


@program
def patterns_of_errors(mlflow):
    @mlflow.trace
    def fetch(n):
        mlflow.get_current_active_span().set_attributes({"error_kind": f"kind {n % 2}"})
        raise OSError(f"disk {n}")

    for n in range(3):
        raised_by(lambda n=n: fetch(n))
    mlflow.flush_trace_async_logging()
    patterns = {}
    for trace in mlflow.search_traces(return_type="list"):
        if trace.info.state == "ERROR":
            for span in trace.data.spans:
                if span.status.status_code == "ERROR":
                    key = f"{span.name}:{span.attributes.get('error_kind', 'unknown')}"
                    patterns[key] = patterns.get(key, 0) + 1
    return dict(sorted(patterns.items()))


@program
def a_rag_application_with_tags(mlflow):
    @mlflow.trace
    def embed(query):
        mlflow.update_current_trace(tags={"query_length": len(query), "embedding": "letters"})
        return [ord(letter) for letter in query]

    @mlflow.trace
    def retrieve(vector, top_k=2):
        mlflow.update_current_trace(tags={"top_k": top_k, "search": "cosine"})
        documents = [{"content": "moss", "score": 0.85}, {"content": "fern", "score": 0.5}]
        mlflow.update_current_trace(tags={"found": len(documents), "mean": 0.675, "last": True})
        return documents

    @mlflow.trace
    def answer(question):
        mlflow.update_current_trace(tags={"application": "rag"})
        return retrieve(embed(question))

    answer("what is green")
    trace = last(mlflow)
    tags = {key: value for key, value in trace.info.tags.items() if not key.startswith("mlflow.")}
    return [tags, tree(trace)]


@program
def long_requests_are_cut_in_previews(mlflow):
    @mlflow.trace
    def repeat(text, times):
        return text * times

    repeat("snow ", 3000)
    info = last(mlflow).info
    lengths = [len(info.request_preview), len(info.response_preview)]
    return [lengths, info.request_preview[:30], info.response_preview[-10:]]


@program
def previews_of_chats(mlflow):
    @mlflow.trace(span_type="CHAT_MODEL")
    def chat(messages):
        return {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Eleven."}}]}

    chat([{"role": "system", "content": "Count."}, {"role": "user", "content": "How many?"}])
    info = last(mlflow).info
    return [info.request_preview, info.response_preview]


@program
def a_trace_in_flight(mlflow):
    with mlflow.start_span("open") as span:
        with mlflow.start_span("closed"):
            pass
        return [
            mlflow.get_active_trace_id() == span.trace_id,
            mlflow.get_last_active_trace_id() == span.trace_id,
            span.status.status_code.value,
        ]
