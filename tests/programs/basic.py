"""Small programs for the decorator, for scopes, and for what spans hold."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import threading
import uuid
from collections import OrderedDict, namedtuple

from programs import Programs, is_mlflow, with_mlflow

PROGRAMS = Programs()
program = PROGRAMS.add


@program
def bare_decorator(mlflow):
    @mlflow.trace
    def add(x, y=2):
        return x + y

    assert add(1) == 3
    assert add(1, y=5) == 6


@program
def decorator_arguments(mlflow):
    @mlflow.trace(
        name="renamed",
        span_type=mlflow.entities.SpanType.RETRIEVER,
        attributes={"top_k": 3, "nested": {"a": [1, 2.5, None, True]}},
        **with_mlflow("3.17", description="what it does"),
    )
    def find(query):
        return [query]

    find("q")


@program
def foreign_function(mlflow):
    assert mlflow.trace(math.sqrt)(16.0) == 4.0
    assert mlflow.trace(math.factorial, name="fact", span_type="TOOL")(5) == 120


@program
def nesting(mlflow):
    @mlflow.trace(span_type="TOOL")
    def leaf(n):
        with mlflow.start_span("inside leaf", span_type="PARSER") as span:
            span.set_inputs({"n": n})
            span.set_outputs(n * 2)
        return n * 2

    @mlflow.trace(span_type="AGENT")
    def root(n):
        with mlflow.start_span(name="middle", attributes={"k": "v"}):
            leaf(n)
        return leaf(n + 1)

    root(1)


@program
def arguments(mlflow):
    @mlflow.trace
    def everything(a, /, b, *rest, c, d=4, **others):
        return None

    everything(1, 2, c=3)
    everything(1, 2, 3, 4, c=5, d=6, e=7, f={"g": 8})
    everything(1, b=2, c=3, a=4)
    try:
        everything()
    except TypeError:
        pass
    else:
        raise AssertionError("the TypeError of the call itself must come through")


@program
def methods(mlflow):
    class Thing:
        @mlflow.trace
        def method(self, x):
            return x

        @classmethod
        @mlflow.trace
        def of_class(cls, x):
            return x

        @mlflow.trace
        @staticmethod
        def static(x):
            return x

        @mlflow.trace
        @classmethod
        def outside(cls, x):
            return x

    thing = Thing()
    assert thing.method(1) == 1
    assert Thing.of_class(2) == 2
    assert Thing.static(3) == 3
    assert thing.outside(4) == 4


@program
def span_methods(mlflow):
    with mlflow.start_span("manual", span_type="LLM") as span:
        assert mlflow.get_current_active_span().span_id == span.span_id
        span.set_inputs({"prompt": "héllo ☃ 𝄞", "n": 1})
        span.set_attribute("one", 1)
        span.set_attributes({"two": [2], "three": {"x": None}})
        span.set_attribute("one", "again")
        span.set_outputs({"text": "ok"})
        span.set_span_type("CHAT_MODEL")
        span.add_event(mlflow.entities.SpanEvent("noted", attributes={"k": "v", "n": 3, "f": 1.5}))
        span.set_status("OK")
        assert span.inputs == {"prompt": "héllo ☃ 𝄞", "n": 1}
        assert span.outputs == {"text": "ok"}
        assert span.get_attribute("two") == [2]
        assert span.get_attribute("none") is None
        assert span.status.status_code == mlflow.entities.SpanStatusCode.OK
        assert span.name == "manual"
        assert span.parent_id is None
        assert span.trace_id.startswith("tr-")
    assert mlflow.get_current_active_span() is None


@program
def statuses(mlflow):
    with mlflow.start_span("error by string") as span:
        span.set_status("ERROR")
    with mlflow.start_span("error with words") as span:
        span.set_status(mlflow.entities.SpanStatus("ERROR", "it broke"))
    with mlflow.start_span("recorded") as span:
        span.record_exception(ValueError("seen"))
        span.record_exception("only words")


@program
def exceptions(mlflow):
    @mlflow.trace
    def inner():
        raise KeyError("missing")

    @mlflow.trace
    def outer():
        inner()

    @mlflow.trace
    def handles():
        try:
            inner()
        except KeyError:
            return "handled"

    error = None
    try:
        outer()
    except KeyError as raised:
        error = raised
    assert error.args == ("missing",)
    assert handles() == "handled"
    try:
        with mlflow.start_span("manual"):
            raise RuntimeError("in the body")
    except RuntimeError:
        pass
    try:
        with mlflow.start_span("ok stays ok") as span:
            span.set_status("OK")
            raise RuntimeError("too late")
    except RuntimeError:
        pass


@program
def interrupts(mlflow):
    @mlflow.trace
    def stopped():
        raise SystemExit(3)

    try:
        stopped()
    except SystemExit:
        pass


@program
def trace_updates(mlflow):
    @mlflow.trace
    def answer(question):
        mlflow.update_current_trace(
            tags={"fruit": "apple"},
            metadata={"who": "me"},
            request_preview="asked",
            response_preview="answered",
            client_request_id="req-1",
            session_id="s-1",
            user="u-1",
        )
        with mlflow.start_span("child"):
            mlflow.update_current_trace(tags={"fruit": "pear", "more": "tags"})
        return "42"

    answer("?")


@program
def explicit_state(mlflow):
    with mlflow.start_span("fine, but said to be an error"):
        mlflow.update_current_trace(state="ERROR")


@program
def threads(mlflow):
    @mlflow.trace
    def work(n):
        return n

    @mlflow.trace
    def root():
        # One after the other, so that both runs start them in the same order.
        for n in range(3):
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(work, n))
            thread.start()
            thread.join()

    root()
    thread = threading.Thread(target=work, args=("alone",))
    thread.start()
    thread.join()


@program
def coroutines(mlflow):
    @mlflow.trace(span_type="LLM")
    async def call(n):
        with mlflow.start_span(f"step {n}"):
            await asyncio.sleep(0.002 * n)
        return n

    @mlflow.trace
    async def fails():
        await asyncio.sleep(0)
        raise ValueError("async")

    @mlflow.trace
    async def main():
        assert await asyncio.gather(call(1), call(2), call(3)) == [1, 2, 3]
        await asyncio.gather(fails(), return_exceptions=True)
        return "done"

    assert asyncio.run(main()) == "done"


@program
def cancellation(mlflow):
    @mlflow.trace
    async def long():
        await asyncio.sleep(60)

    @mlflow.trace
    async def main():
        task = asyncio.ensure_future(long())
        await asyncio.sleep(0.01)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"

    assert asyncio.run(main()) == "cancelled"


@program
def generators(mlflow):
    @mlflow.trace
    def inside(n):
        return n

    @mlflow.trace(span_type="LLM")
    def stream(n):
        for i in range(n):
            inside(i)
            yield {"token": f"tök{i}"}

    @mlflow.trace(output_reducer=lambda items: "".join(items))
    def reduced():
        yield "a"
        yield "b"

    @mlflow.trace
    def breaks():
        yield 1
        raise ValueError("in the stream")

    @mlflow.trace
    def root():
        for _ in stream(3):
            with mlflow.start_span("between items"):
                pass

    root()
    assert list(reduced()) == ["a", "b"]
    try:
        list(breaks())
    except ValueError:
        pass


@program
def async_generators(mlflow):
    @mlflow.trace
    def inside(n):
        return n

    @mlflow.trace
    async def stream(n):
        for i in range(n):
            await asyncio.sleep(0)
            inside(i)
            yield i

    @mlflow.trace
    async def breaks():
        yield 1
        raise ValueError("in the stream")

    async def main():
        assert [item async for item in stream(2)] == [0, 1]
        try:
            async for _ in breaks():
                pass
        except ValueError:
            pass

    asyncio.run(main())


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    inner: object = None

    def __str__(self):
        return "not the fields"


Pair = namedtuple("Pair", "left right")


@program
def values(mlflow):
    import pydantic

    class Model(pydantic.BaseModel):
        name: str
        parts: list[int] = []

    class Plain:
        def __str__(self):
            return "a plain object"

    class Text(str):
        def __str__(self):
            return "not the content"

    class Number(int):
        def __repr__(self):
            return "not the number"

    cases = {
        "scalars": [
            None,
            True,
            False,
            0,
            -1,
            2**53 + 1,
            -(2**63),
            2**63 - 1,
            1.5,
            -0.0,
            1e22,
            1e-7,
        ],
        "infinite": [float("inf"), float("-inf"), float("nan")],
        "texts": ["", "ünï ☃ 𝄞", 'quote " back \\ line\nfeed\ttab\x00\x1f\x7f', "\u2028"],
        "json text": ['{"a": 1}', "[1, 2]", "12", "null", "true"],
        "containers": [(), [], {}, (1, (2,)), {"a": {"b": [{}]}}],
        "keys": {2: "int", 2.5: "float", True: "bool", None: "none", "s": "str"},
        "duplicate keys": {1: "a", "1": "b"},
        "bytes": [b"abc", bytearray(b"x")],
        "sets": [{1}, frozenset({2})],
        "named": Pair(1, Pair("a", None)),
        "ordered": OrderedDict([("z", 1), ("a", 2)]),
        "enums": [Color.RED, Level.HIGH],
        "dates": [datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4, 5)],
        "others": [decimal.Decimal("1.10"), uuid.UUID(int=5), pathlib.PurePosixPath("/a/b")],
        "dataclass": Point(1, Point(2, [Plain()])),
        "pydantic": Model(name="m", parts=[1, 2]),
        "object": Plain(),
        "subclasses": [Text("content"), Number(7)],
        "exception": ValueError("v"),
        "type": int,
        "complex": 1 + 2j,
        "range": range(3),
        "function": len,
    }
    for name, value in cases.items():
        with mlflow.start_span(name) as span:
            span.set_inputs({"value": value})
            span.set_outputs(value)
            span.set_attribute("attribute", value)


@program
def fallbacks(mlflow):
    cycle = []
    cycle.append(cycle)
    with mlflow.start_span("cycle") as span:
        span.set_attribute("value", {"list": cycle})
    if not is_mlflow("3.15"):  # which raises a TypeError in the program
        return
    with mlflow.start_span("key") as span:
        span.set_inputs({("a", "tuple"): 1})

    @mlflow.trace
    def takes(value, other):
        return [value]

    takes({frozenset({1}): 2}, 3)


@program
def chat(mlflow):
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "what is the question? " * 80},
    ]

    @mlflow.trace(span_type="CHAT_MODEL")
    def complete(messages, model="m"):
        span = mlflow.get_current_active_span()
        span.set_attribute(
            "mlflow.chat.tokenUsage", {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        )
        span.set_attribute("mlflow.message.format", "openai")
        return {
            "choices": [{"message": {"role": "assistant", "content": "the answer " * 150}}],
            "usage": {"total_tokens": 15},
        }

    @mlflow.trace
    def twice():
        complete(messages)
        complete(messages)

    complete(messages)
    twice()


@program
def long_values(mlflow):
    with mlflow.start_span("long") as span:
        span.set_inputs({"text": "é" * 5000})
        span.set_outputs(["x" * 400] * 5)


@program
def no_values(mlflow):
    with mlflow.start_span():
        pass
    with mlflow.start_span("outputs only") as span:
        span.set_outputs(0)


@program
def outputs_by_hand(mlflow):
    @mlflow.trace
    def overrides():
        mlflow.get_current_active_span().set_outputs("by hand")
        return "returned"

    @mlflow.trace
    def set_to_none():
        mlflow.get_current_active_span().set_outputs(None)
        return "returned"

    overrides()
    set_to_none()


@program
def log_levels(mlflow):
    with mlflow.start_span("warned", **with_mlflow("3.13", log_level="WARNING")):
        pass
    with mlflow.start_span("tool", span_type="TOOL"):
        pass
    with mlflow.start_span("own type", span_type="MINE"):
        pass


@program
def generative_ai(mlflow):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi ☃"}]
    answer = {"role": "assistant", "content": "hello"}
    with mlflow.start_span("chat", span_type="CHAT_MODEL") as span:
        span.set_inputs({"model": "m", "messages": messages, "temperature": 0.5, "stop": "x"})
        span.set_outputs({"id": "r", "model": "m-1", "choices": [{"message": answer}]})
        span.set_attributes(
            {
                "mlflow.message.format": "openai",
                "mlflow.llm.model": "m",
                "mlflow.llm.provider": "p",
                "mlflow.chat.tokenUsage": {"input_tokens": 3, "output_tokens": 4},
                "own": {"k": [1, 2.5, None]},
            }
        )
        with mlflow.start_span("look up", span_type="TOOL") as tool:
            tool.set_inputs({"q": "é"})
            tool.set_outputs([1, 2])
    with mlflow.start_span("agent", span_type="AGENT"):
        pass
    with mlflow.start_span("odd inputs", span_type="LLM") as span:
        span.set_inputs([1, 2])
        span.set_outputs("text")
