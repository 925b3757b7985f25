"""11. `start_span`: a span for a block of code.

It nests as the decorator does. Inputs and outputs are what you set.
"""

import mlflow_fasttrace as mlflow
from mlflow_fasttrace.entities import SpanType
from tutorial import show, tracking_uri

mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 11")

PRICES = {"tea": "320", "sugar": "110", "salt": "a pinch"}

with mlflow.start_span("add up", span_type=SpanType.CHAIN, attributes={"unit": "cents"}) as span:
    span.set_inputs({"prices": PRICES})
    total = 0
    for item, price in PRICES.items():
        try:
            # The name can say what the round of the loop is about: a decorator's cannot.
            with mlflow.start_span(f"price of {item}", span_type=SpanType.PARSER) as child:
                child.set_inputs(price)
                child.set_outputs(int(price))
                total += int(price)
        except ValueError:
            pass  # the child has the status ERROR and the exception; its parent goes on
    span.set_outputs({"total": total})

mlflow.flush_trace_async_logging()
show(mlflow.get_trace(span.trace_id), "inputs", "outputs", "attributes", "events")
