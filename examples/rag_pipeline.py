"""A small retrieval-augmented pipeline, traced: AGENT -> RETRIEVER, CHAIN, CHAT_MODEL.

It answers questions over ``fables.txt`` with the real ``openai`` client, against OPENAI_BASE_URL if
that is set and otherwise against a little server on loopback. Traces go to MLFLOW_TRACKING_URI, or
to ``mlflow.db`` in the project's folder.

    python examples/rag_pipeline.py ["a question of yours" ...]
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections import Counter
from pathlib import Path

import loopback_llm
import mlflow_fasttrace as mlflow
from mlflow_fasttrace.entities import SpanType
from openai import OpenAI

HERE = Path(__file__).resolve().parent
QUESTIONS = [
    "Why did the fox say that the grapes are sour?",
    "How did the crow reach the water in the pitcher?",
    "Who gnawed the rope and set the lion free?",
    "What did the grasshopper do during the summer?",
    "Which was stronger, the wind or the sun?",
]
MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")


def load_fables() -> list[dict[str, str]]:
    blocks = (HERE / "fables.txt").read_text(encoding="utf-8").split("\n\n")[1:]
    return [
        dict(zip(("title", "text"), block.strip().split("\n", 1), strict=True)) for block in blocks
    ]


def words(text: str) -> Counter[str]:
    return Counter(word for word in re.findall(r"[a-z]+", text.lower()) if len(word) > 2)


FABLES = load_fables()
FREQUENCY = Counter(word for fable in FABLES for word in words(fable["title"] + fable["text"]))


@mlflow.trace(span_type=SpanType.RETRIEVER, attributes={"collection": "fables.txt"})
def retrieve_documents(query: str, k: int = 2) -> list[dict]:
    """The k fables that share the rarest words with the query."""

    def score(fable: dict[str, str]) -> float:
        have = words(fable["title"] + " " + fable["text"])
        return sum(1 / math.log2(1 + FREQUENCY[word]) for word in words(query) if word in have)

    best = sorted(FABLES, key=score, reverse=True)[:k]
    return [
        {"page_content": fable["text"], "metadata": {"title": fable["title"]}} for fable in best
    ]


@mlflow.trace(span_type=SpanType.CHAIN)
def build_prompt(query: str, documents: list[dict]) -> list[dict[str, str]]:
    context = "\n\n".join(document["page_content"] for document in documents)
    return [
        {"role": "system", "content": "Answer from the context only, in one sentence."},
        {"role": "user", "content": f"Context:\n{context}\n\nQuestion: {query}"},
    ]


@mlflow.trace(span_type=SpanType.CHAT_MODEL)
def chat(client: OpenAI, messages: list[dict[str, str]]) -> dict:
    span = mlflow.get_current_active_span()
    span.set_inputs({"model": MODEL, "messages": messages})
    completion = client.chat.completions.create(model=MODEL, messages=messages)
    usage = completion.usage
    span.set_attributes(
        {
            "mlflow.llm.model": completion.model,
            "mlflow.message.format": "openai",
            "mlflow.chat.tokenUsage": {
                "input_tokens": usage.prompt_tokens,
                "output_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            },
        }
    )
    return completion.model_dump()


@mlflow.trace(name="RAG Pipeline", span_type=SpanType.AGENT)
def answer(client: OpenAI, question: str) -> str:
    mlflow.get_current_active_span().set_inputs({"question": question})
    documents = retrieve_documents(question)
    completion = chat(client, build_prompt(question, documents))
    text = completion["choices"][0]["message"]["content"]
    mlflow.update_current_trace(
        tags={"example": "rag"}, request_preview=question, response_preview=text
    )
    return text


def print_tree(trace) -> None:
    children: dict[str | None, list] = {}
    for span in sorted(trace.data.spans, key=lambda span: span.start_time_ns):
        children.setdefault(span.parent_id, []).append(span)

    def show(span, indent: str) -> None:
        milliseconds = (span.end_time_ns - span.start_time_ns) / 1e6
        line = f"{indent}{span.name} [{span.span_type}]"
        print(f"  {line:<44} {milliseconds:9.3f} ms  {span.status.status_code.value}")
        for child in children.get(span.span_id, []):
            show(child, indent + "  ")

    for root in children.get(None, []):
        show(root, "")


def main() -> None:
    base_url = os.environ.get("OPENAI_BASE_URL") or loopback_llm.start()
    client = OpenAI(base_url=base_url, api_key=os.environ.get("OPENAI_API_KEY", "not needed"))
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(f"sqlite:///{HERE.parent / 'mlflow.db'}")
    mlflow.set_experiment("RAG demo")

    finished = []
    for question in sys.argv[1:] or QUESTIONS:
        text = answer(client, question)
        finished.append((question, text, mlflow.get_last_active_trace_id()))

    mlflow.flush_trace_async_logging()
    for question, text, trace_id in finished:
        print(f"\nQ: {question}\nA: {text}\n{trace_id}")
        print_tree(mlflow.get_trace(trace_id))

    uri = mlflow.get_tracking_uri()
    print(f"\n{len(finished)} traces are in experiment 'RAG demo' at {uri}")
    if uri.startswith("http"):
        print(f"Open {uri}")
    else:
        print(
            f"Open them in MLflow's UI:\n\n    {sys.prefix}/bin/mlflow ui --backend-store-uri {uri}\n"
        )


if __name__ == "__main__":
    main()
