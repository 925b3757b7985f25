"""05. A span's type: one of MLflow's, or any word of your own.

The UI draws an icon for a type that it knows, and gives some of them a view of their own: a RETRIEVER's
documents, a CHAT_MODEL's messages.
"""

import mlflow_fasttrace as mlflow
from mlflow_fasttrace.entities import SpanType
from tutorial import show, tracking_uri

mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 05")


@mlflow.trace(span_type=SpanType.RETRIEVER)
def find(query):
    # The UI shows what a retriever returns as documents when it has this form.
    return [{"page_content": "Tea is a drink.", "metadata": {"source": "drinks.txt"}}]


@mlflow.trace(span_type=SpanType.PARSER)
def parse(text):
    return text.strip("?").split()


@mlflow.trace(span_type="REDACTION")  # a type of one's own is any string
def redact(text):
    return text.replace("Ada", "<name>")


@mlflow.trace  # without one it is UNKNOWN
def count(words):
    return len(words)


@mlflow.trace(span_type=SpanType.AGENT)
def answer(question):
    words = parse(redact(question))
    count(words)
    return find(" ".join(words))


answer("Does Ada drink tea?")

print("MLflow's types:", ", ".join(sorted(t for t in vars(SpanType) if t.isupper())))
mlflow.flush_trace_async_logging()
trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
show(trace, "inputs")
for span_type in (SpanType.RETRIEVER, "REDACTION"):
    found = trace.search_spans(span_type=span_type)
    print(f"of type {span_type}: {[span.name for span in found]}")
