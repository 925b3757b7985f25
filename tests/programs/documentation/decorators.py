"""Manual tracing with the decorator: what a span gets, functions of others, other decorators, methods, exceptions."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import operator
import statistics

from programs import Programs
from programs.documentation import last, of, tree

PROGRAMS = Programs()
program = PROGRAMS.add


@program
def three_functions(mlflow):
    @mlflow.trace(span_type="step", attributes={"unit": "cm"})
    def lengthen(length):
        return length * 2

    @mlflow.trace(span_type="step", attributes={"unit": "mm"})
    def shorten(length):
        return length - 3

    @mlflow.trace(name="Cut a board")
    def cut(length):
        return shorten(lengthen(length))

    cut(40)
    return tree(last(mlflow))


@program
def without_parentheses_and_with(mlflow):
    @mlflow.trace
    def bare(word):
        return word.upper()

    @mlflow.trace()
    def called(word):
        return word.lower()

    return [bare("oak"), called("ELM"), last(mlflow).data.spans[0].name]


@program
def a_name_a_type_and_attributes(mlflow):
    SpanType = mlflow.entities.SpanType

    @mlflow.trace(name="local model", span_type=SpanType.LLM, attributes={"model": "tiny-1"})
    def complete(prompt: str):
        return prompt[::-1]

    complete("stressed")
    span = last(mlflow).data.spans[0]
    return [span.name, span.span_type, span.attributes["model"], span.get_attribute("model")]


@program
def the_current_span_is_changed_inside(mlflow):
    @mlflow.trace(span_type=mlflow.entities.SpanType.LLM)
    def complete(prompt: str):
        span = mlflow.get_current_active_span()
        span.set_attributes({"model": "tiny-2", "layers": 3})
        span.set_attribute("seed", 7)
        return [span.name, span.inputs, span.outputs, span.span_type]

    return complete("a river")


@program
def no_current_span_outside(mlflow):
    @mlflow.trace
    def inside():
        return mlflow.get_current_active_span().name

    return [mlflow.get_current_active_span(), inside(), mlflow.get_current_active_span()]


@program
def functions_of_others(mlflow):
    def area(a, b, power=2):
        raised = mlflow.trace(math.pow)(a, power)
        return mlflow.trace(math.gcd)(int(raised), b)

    total = mlflow.trace(area, name="area")(6, 4)
    lines = tree(last(mlflow))
    span = last(mlflow).data.spans
    return [total, lines, [one.inputs for one in sorted(span, key=lambda one: one.start_time_ns)]]


@program
def functions_of_the_standard_library(mlflow):
    results = []
    for function, arguments in (
        (statistics.mean, ([3, 4, 8],)),
        (operator.itemgetter, (1,)),
        (sorted, ([3, 1, 2],)),
        (len, ("three",)),
        (str.upper, ("word",)),
    ):
        traced = mlflow.trace(function, name=function.__name__)
        result = traced(*arguments)
        results.append([function.__name__, repr(result), last(mlflow).data.spans[0].inputs])
    return results


@program
def a_wrapped_function_looks_like_itself(mlflow):
    @mlflow.trace(name="other name")
    def weigh(stone: float, *, unit: str = "kg") -> str:
        """Weighs a stone."""
        return f"{stone} {unit}"

    weigh(2.5)
    return [
        weigh.__name__,
        weigh.__doc__,
        str(inspect.signature(weigh)),
        weigh.__wrapped__(1.0),
        weigh.__module__ == __name__,
        sorted(weigh.__annotations__),
    ]


def counted(function):
    """A decorator of the program's own."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        wrapper.calls += 1
        return function(*args, **kwargs)

    wrapper.calls = 0
    return wrapper


@program
def the_outermost_decorator(mlflow):
    @mlflow.trace(name="counts inside")
    @counted
    def plus(x, y):
        return x + y

    @counted
    @mlflow.trace(name="counts outside")
    def times(x, y):
        return x * y

    found = [plus(5, 3), times(5, 3), times(2, y=4), times.calls]
    return [found, last(mlflow).data.spans[0].inputs]


@program
def beside_other_decorators(mlflow):
    @mlflow.trace
    @functools.lru_cache
    def square(x):
        return x * x

    @functools.lru_cache
    @mlflow.trace
    def cube(x):
        return x**3

    @mlflow.trace
    @contextlib.contextmanager
    def opened(name):
        yield name

    results = [square(3), square(3), cube(2), cube(2), cube.cache_info().hits]
    with opened("door") as door:
        results.append(door)
    return results


@program
def instance_class_and_static_methods(mlflow):
    class Clock:
        zone = "UTC"

        def __init__(self, hour):
            self.hour = hour

        @mlflow.trace
        def later(self, hours):
            return (self.hour + hours) % 24

        @classmethod
        @mlflow.trace
        def at_noon(cls, zone):
            return cls(12).hour, zone or cls.zone

        @staticmethod
        @mlflow.trace
        def is_morning(hour):
            return hour < 12

        @mlflow.trace
        def __call__(self, hour):
            return hour == self.hour

    clock = Clock(20)
    results = [clock.later(6), Clock.at_noon("CET"), clock.is_morning(8), clock(20)]
    client = mlflow.MlflowClient()
    mlflow.flush_trace_async_logging()
    found = client.search_traces(
        locations=[last(mlflow).info.experiment_id], order_by=["timestamp_ms ASC"]
    )
    roots = [trace.data.spans[0] for trace in found]
    return [results, sorted([root.name, root.inputs, root.outputs] for root in roots)]


@program
def a_method_that_is_overridden(mlflow):
    class Base:
        @mlflow.trace(span_type="CHAIN")
        def run(self, n):
            return self.step(n)

        @mlflow.trace
        def step(self, n):
            return n

    class Twice(Base):
        @mlflow.trace(name="twice")
        def step(self, n):
            return super().step(n) * 2

    Twice().run(4)
    return tree(last(mlflow))


@program
def recursion(mlflow):
    @mlflow.trace
    def countdown(n):
        return [n] + (countdown(n - 1) if n else [])

    countdown(3)
    return tree(last(mlflow))


@program
def an_exception_is_an_event(mlflow):
    @mlflow.trace
    def divide(a, b):
        return a / b

    @mlflow.trace
    def ratio(pairs):
        return [divide(a, b) for a, b in pairs]

    try:
        ratio([(4, 2), (1, 0)])
    except ZeroDivisionError as error:
        said = str(error)
    trace = last(mlflow)
    spans = sorted(trace.data.spans, key=lambda span: span.start_time_ns)
    events = [
        [event.name, event.attributes["exception.type"], event.attributes["exception.message"]]
        for span in spans
        for event in span.events
    ]
    return [
        said,
        tree(trace),
        events,
        trace.info.state,
        spans[0].outputs,
        spans[0].status.description,
    ]


@program
def an_exception_that_is_caught_inside(mlflow):
    @mlflow.trace
    def fetch(shelf):
        raise LookupError(f"nothing on shelf {shelf}")

    @mlflow.trace
    def fetch_or_buy(shelf):
        try:
            return fetch(shelf)
        except LookupError:
            return "bought"

    return [fetch_or_buy(3), tree(last(mlflow)), last(mlflow).info.state]


@program
def defaults_and_variable_arguments(mlflow):
    @mlflow.trace
    def order(tea, *extras, sugar=1, **wishes):
        return len(extras)

    order("green")
    order("black", "milk", "lemon", sugar=0, cup="large")
    return last(mlflow).data.spans[0].inputs


@program
def values_that_are_no_json(mlflow):
    import datetime
    import uuid

    import numpy as np
    import pydantic

    class Cup(pydantic.BaseModel):
        size: int
        full: bool = True

    class Plain:
        def __repr__(self):
            return "Plain()"

    @mlflow.trace
    def look(array, cup, when, key, plain, raw):
        return {"mean": array.mean(), "cup": cup, "ints": np.int64(3), "set": {1}}

    look(np.arange(4), Cup(size=2), datetime.date(2024, 2, 29), uuid.UUID(int=1), Plain(), b"\x00a")
    span = last(mlflow).data.spans[0]
    return [span.inputs, span.outputs]


@program
def tags_from_inside(mlflow):
    @mlflow.trace
    def add_one(x):
        mlflow.update_current_trace(tags={"fruit": "quince"})
        return x + 1

    add_one(5)
    return last(mlflow).info.tags["fruit"]


@program
def span_types_of_the_decorator(mlflow):
    SpanType = of(mlflow, "entities").SpanType
    kinds = sorted(name for name in vars(SpanType) if name.isupper())

    @mlflow.trace
    def all_of_them():
        for kind in kinds:
            mlflow.trace(lambda: None, name=kind.lower(), span_type=getattr(SpanType, kind))()

    all_of_them()
    return tree(last(mlflow))


@program
def a_description_and_links(mlflow):
    Link = mlflow.entities.Link
    link = Link(trace_id="tr-" + "ab" * 16, span_id="cd" * 8, attributes={"why": "retry"})

    @mlflow.trace(description="Tries once more.", links=[link])
    def retry():
        return mlflow.get_current_active_span().description

    text = retry()
    span = last(mlflow).data.spans[0]
    return [text, span.description, span.links[0].attributes, span.links[0].trace_id]
