"""19. Keeping the traces that matter (mlflow_fasttrace alone has this).

MLflow decides when a trace begins whether it is recorded (MLFLOW_TRACE_SAMPLING_RATIO), before anything is known
of it. With MLFLOW_FASTTRACE_KEEP it is decided when it has ended: by errors, by duration, and by chance. The
usual place for the variable is the service's environment. MLflow itself does not know it, and keeps all.
"""

import os
import time

import mlflow_fasttrace as mlflow
from tutorial import show, tracking_uri

# Traces with an error in any span, and those that took longer than half a second. "5%" as a third rule would add
# that share of the others. It is read at the first span.
os.environ["MLFLOW_FASTTRACE_KEEP"] = "error,slow>500ms"

mlflow.set_tracking_uri(tracking_uri())
experiment = mlflow.set_experiment("Tutorial 19")
begun = int(time.time() * 1000)


@mlflow.trace
def step(number):
    if number == 3:
        raise ValueError("three")
    if number == 7:
        time.sleep(0.6)
    return number


@mlflow.trace
def handle(number):
    try:
        return step(number)
    except ValueError:
        return None  # the request has an answer; that a step failed is in the trace all the same


for number in range(10):
    handle(number)

mlflow.flush_trace_async_logging()
kept = mlflow.search_traces(
    locations=[experiment.experiment_id],
    filter_string=f"timestamp_ms >= {begun}",
    return_type="list",
)
print(f"10 traces were recorded, {len(kept)} are kept:")
for trace in sorted(kept, key=lambda trace: trace.data.spans[0].start_time_ns):
    show(trace, "inputs")
