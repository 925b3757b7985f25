"""17. A pipeline of retrieval and generation: AGENT -> RETRIEVER, CHAIN, and the model's call by autolog.

The larger example beside this folder, rag_pipeline.py, does without the integration.
"""

import re

import mlflow_fasttrace as mlflow
from mlflow_fasttrace.entities import SpanType
from openai import OpenAI
from tutorial import EXAMPLES, show, tracking_uri, use_loopback_models

use_loopback_models()
mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 17")
mlflow.openai.autolog()
client = OpenAI()

FABLES = [
    block.strip().split("\n", 1)
    for block in (EXAMPLES / "fables.txt").read_text(encoding="utf-8").split("\n\n")[1:]
]


def words(text):
    return {word for word in re.findall("[a-z]+", text.lower()) if len(word) > 3}


@mlflow.trace(span_type=SpanType.RETRIEVER)
def retrieve(query, k=2):
    best = sorted(FABLES, key=lambda fable: len(words(query) & words(fable[1])), reverse=True)
    return [{"page_content": text, "metadata": {"title": title}} for title, text in best[:k]]


@mlflow.trace(span_type=SpanType.CHAIN)
def build_prompt(question, documents):
    context = "\n\n".join(document["page_content"] for document in documents)
    return [{"role": "user", "content": f"Context:\n{context}\n\nQuestion: {question}"}]


@mlflow.trace(name="RAG", span_type=SpanType.AGENT)
def answer(question):
    prompt = build_prompt(question, retrieve(question))
    completion = client.chat.completions.create(model="gpt-4o-mini", messages=prompt)
    text = completion.choices[0].message.content
    mlflow.update_current_trace(request_preview=question, response_preview=text)
    return text


print(answer("Who gnawed the rope and set the lion free?"))
mlflow.flush_trace_async_logging()
trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
show(trace)
print("request:", trace.info.request_preview)
print("tokens: ", trace.info.token_usage["total_tokens"])
