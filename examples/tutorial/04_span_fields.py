"""04. What a span holds: inputs, outputs, attributes, events, a status and two times."""

import time

import mlflow_fasttrace as mlflow
from mlflow_fasttrace.entities import SpanEvent
from tutorial import tracking_uri

mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 04")

with mlflow.start_span("checkout") as span:
    # Anything that can be JSON, nested as you like; other objects are kept as their text.
    span.set_inputs({"basket": ["tea", "sugar"], "pay_by": "card"})

    # What you would want to filter by, or to see beside the span.
    span.set_attribute("shop", "Lisbon")
    span.set_attributes({"items": 2, "discount": 0.1})

    # Something that happened at a moment within the span.
    span.add_event(SpanEvent(name="stock reserved", attributes={"shelf": "A7"}))

    with mlflow.start_span("pay") as child:
        child.set_inputs({"amount": 7.2})
        try:
            raise TimeoutError("the bank does not answer")
        except TimeoutError as error:
            # An exception that leaves a span is recorded by itself. This one does not leave it.
            child.record_exception(error)
            child.set_status("ERROR")

    span.set_outputs({"order": 4711, "paid": False})

mlflow.flush_trace_async_logging()
trace = mlflow.get_trace(span.trace_id)
for span in trace.data.spans:
    own = {key: value for key, value in span.attributes.items() if not key.startswith("mlflow.")}
    started = time.strftime("%H:%M:%S", time.gmtime(span.start_time_ns / 1e9))
    print(span.name)
    print(f"  ids         {span.span_id}, parent {span.parent_id}, trace {span.trace_id}")
    print(f"  inputs      {span.inputs}")
    print(f"  outputs     {span.outputs}")
    print(f"  attributes  {own}")
    for event in span.events:
        print(
            f"  event       {event.name} {event.attributes.get('exception.message', '')}".rstrip()
        )
    print(f"  status      {span.status.status_code.value} {span.status.description}".rstrip())
    print(f"  times       {started} UTC, {(span.end_time_ns - span.start_time_ns) / 1e6:.3f} ms")

# MLflow keeps its own fields as attributes, too: they begin with "mlflow.".
print("MLflow's own:", sorted(key for key in span.attributes if key.startswith("mlflow.")))
