"""08. The decorator: a span for every call of a function.

Inputs are the arguments by their names, outputs what is returned, and a call inside of a call is a child.
"""

import mlflow_fasttrace as mlflow
from mlflow_fasttrace.entities import SpanType
from tutorial import show, tracking_uri

mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 08")


@mlflow.trace  # bare: the span has the function's name
def split(text):
    return text.split()


@mlflow.trace(name="longest word", span_type=SpanType.TOOL, attributes={"language": "en"})
def longest(words, at_least=0):
    found = max(words, key=len)
    if len(found) < at_least:
        raise ValueError(f"no word of {at_least} letters")
    return found


class Reader:
    """A method is decorated like a function. Its `self` is no input."""

    def __init__(self, at_least):
        self.at_least = at_least

    @mlflow.trace(span_type=SpanType.CHAIN)
    def read(self, text):
        return longest(split(text), at_least=self.at_least)


Reader(3).read("a span for every call")
good = mlflow.get_last_active_trace_id()

try:
    # An exception passes through, and every span that it leaves has the status ERROR.
    Reader(10).read("a span for every call")
except ValueError as error:
    print(f"raised: {error}")
failed = mlflow.get_last_active_trace_id()

mlflow.flush_trace_async_logging()
for trace_id in (good, failed):
    show(mlflow.get_trace(trace_id), "inputs", "outputs", "attributes", "events")
