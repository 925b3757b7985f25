"""14. Asynchronous code: a coroutine's span lasts as long as the coroutine, and every task has a current span of
its own. So what runs side by side does not get mixed up."""

import asyncio

import mlflow_fasttrace as mlflow
from mlflow_fasttrace.entities import SpanType
from tutorial import show, tracking_uri

mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 14")


@mlflow.trace(span_type=SpanType.TOOL)
async def fetch(city):
    with mlflow.start_span("wait for the service") as span:
        span.set_inputs(city)
        await asyncio.sleep(0.02)
    return {"city": city, "degrees": len(city)}


@mlflow.trace(span_type=SpanType.AGENT)
async def compare(cities):
    # Three tasks at once: each begins with the span that is current here.
    answers = await asyncio.gather(*(fetch(city) for city in cities))
    return max(answers, key=lambda answer: answer["degrees"])


print(asyncio.run(compare(["Rome", "Madrid", "Stockholm"])))
mlflow.flush_trace_async_logging()
show(mlflow.get_trace(mlflow.get_last_active_trace_id()), "inputs", "outputs")
