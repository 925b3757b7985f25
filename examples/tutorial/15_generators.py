"""15. Generators: the span lasts until the last item, its outputs are all items, and every item is an event.

For the thousand pieces of a streamed answer `output_reducer` makes of the items what you want to see.
"""

import asyncio

import mlflow_fasttrace as mlflow
from mlflow_fasttrace.entities import SpanType
from tutorial import show, tracking_uri

mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 15")


@mlflow.trace
def lines(text):
    for line in text.splitlines():
        with mlflow.start_span("clean") as span:  # a child, although the caller runs in between
            span.set_outputs(line.strip())
        yield line.strip()


@mlflow.trace(span_type=SpanType.LLM, output_reducer="".join)
async def stream(prompt):
    for piece in ("Streams ", "come ", "in ", "pieces", "."):
        await asyncio.sleep(0)
        yield piece


@mlflow.trace
async def speak(prompt):
    async for piece in stream(prompt):
        print(piece, end="")
    print()


print(list(lines(" one \n two ")))
plain = mlflow.get_last_active_trace_id()
asyncio.run(speak("What is a stream?"))
asynchronous = mlflow.get_last_active_trace_id()
mlflow.flush_trace_async_logging()
for trace_id in (plain, asynchronous):
    show(mlflow.get_trace(trace_id), "outputs", "events")
