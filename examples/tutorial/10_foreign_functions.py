"""10. Functions that are not yours: `mlflow.trace(function)` returns a traced one.

It works for functions written in Python, for those in C, and for one that a library calls itself.
"""

import math
import statistics
import urllib.parse

import mlflow_fasttrace as mlflow
from mlflow_fasttrace.entities import SpanType
from tutorial import show, tracking_uri

mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 10")

sqrt = mlflow.trace(math.sqrt)  # in C
mean = mlflow.trace(statistics.mean, name="average", span_type=SpanType.TOOL)

# A traced function in the place of the library's own: whoever calls it there is traced, until it is put back.
# Here that is parse_qs(), which splits the query by parse_qsl().
parse_qsl = urllib.parse.parse_qsl
urllib.parse.parse_qsl = mlflow.trace(parse_qsl)


@mlflow.trace
def report(query):
    numbers = [int(number) for number in urllib.parse.parse_qs(query)["n"]]
    return sqrt(mean(numbers))


print(report("n=2&n=4&n=12&n=18"))
urllib.parse.parse_qsl = parse_qsl
mlflow.flush_trace_async_logging()
show(mlflow.get_trace(mlflow.get_last_active_trace_id()), "inputs", "outputs")
