"""12. All together: a decorator, a block and an integration share one current span, so they make one trace."""

import mlflow_fasttrace as mlflow
from mlflow_fasttrace.entities import SpanType
from openai import OpenAI
from tutorial import show, tracking_uri, use_loopback_models

use_loopback_models()
mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 12")
mlflow.openai.autolog()
client = OpenAI()


@mlflow.trace(span_type=SpanType.TOOL)
def weather(city):
    return {"Oslo": "snow", "Cairo": "sun"}[city]


@mlflow.trace(span_type=SpanType.AGENT)
def advise(cities):
    with mlflow.start_span("collect", span_type=SpanType.CHAIN) as span:
        facts = {city: weather(city) for city in cities}  # under "collect"
        span.set_outputs(facts)
    prompt = f"What do I wear? {facts}"
    completion = client.chat.completions.create(  # under "advise", by the integration
        model="gpt-4o-mini", messages=[{"role": "user", "content": prompt}]
    )
    return completion.choices[0].message.content


print(advise(["Oslo", "Cairo"]))
mlflow.flush_trace_async_logging()
show(mlflow.get_trace(mlflow.get_last_active_trace_id()), "outputs")
