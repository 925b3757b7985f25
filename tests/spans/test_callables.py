"""A traced callable behaves as the function it wraps: results, laziness, exceptions, looks."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import inspect
import pickle
import typing
import weakref

import mlflow_fasttrace.fluent as mlflow
import pytest
from mlflow_fasttrace import _core
from support.records import spans_in


@pytest.fixture(autouse=True)
def recorded(recorded):
    """Every test here records into a ring of its own."""
    return recorded


@mlflow.trace
def module_level(x: int, y: str = "y") -> str:
    """Says it."""
    return f"{x}{y}"


def test_a_traced_function_looks_as_the_plain_one():
    plain = module_level.__wrapped__
    assert module_level.__name__ == "module_level"
    assert module_level.__qualname__ == "module_level"
    assert module_level.__doc__ == "Says it."
    assert module_level.__module__ == __name__
    assert inspect.signature(module_level) == inspect.signature(plain)
    assert typing.get_type_hints(module_level) == {"x": int, "y": str, "return": str}
    assert inspect.unwrap(module_level) is plain
    assert module_level.__mlflow_traced__
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    assert copy.copy(module_level) is module_level
    assert copy.deepcopy(module_level) is module_level
    assert weakref.ref(module_level)() is module_level
    module_level.own = 1
    assert module_level.__dict__["own"] == 1


def test_inspect_tells_the_kind_of_a_traced_callable():
    async def coroutine():
        pass

    def generator():
        yield

    async def async_generator():
        yield

    assert inspect.iscoroutinefunction(mlflow.trace(coroutine))
    assert asyncio.iscoroutinefunction(mlflow.trace(coroutine))
    assert inspect.isgeneratorfunction(mlflow.trace(generator))
    assert inspect.isasyncgenfunction(mlflow.trace(async_generator))


def test_over_a_cache_every_call_is_traced_and_under_it_each_miss(recorded):
    @mlflow.trace
    @functools.lru_cache
    def cached(x):
        return x

    @functools.lru_cache
    @mlflow.trace
    def traced(x):
        return x

    assert [cached(1), cached(1), traced(2), traced(2)] == [1, 1, 2, 2]
    assert [span.inputs for span in recorded.spans()] == [{"x": 1}, {"x": 1}, {"x": 2}]


def test_partials_and_callable_objects_are_traced(recorded):
    class Callable:
        def __call__(self, x):
            return x

    assert mlflow.trace(functools.partial(module_level.__wrapped__, 1), name="p")("z") == "1z"
    assert mlflow.trace(functools.partial(module_level.__wrapped__, 1))() == "1y"
    assert mlflow.trace(Callable())(3) == 3
    assert [span.name for span in recorded.spans()] == ["p", "module_level", "Callable"]


def test_a_falsy_or_raising_self_is_left_out(recorded):
    class Empty:
        def __bool__(self):
            raise RuntimeError("must not be asked")

        @mlflow.trace
        def __len__(self):
            return 0

    assert len(Empty()) == 0
    assert [span.inputs for span in recorded.spans()] == [{}]


def test_a_stop_iteration_comes_through(recorded):
    @mlflow.trace
    def stops():
        raise StopIteration("value")

    with pytest.raises(StopIteration):
        stops()
    assert recorded.spans()[0].status == 2


def test_an_exception_whose_text_raises_comes_through(recorded):
    class Rude(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    rude = Rude()
    with pytest.raises(Rude) as caught, mlflow.start_span("body"):
        raise rude
    assert caught.value is rude
    (span,) = recorded.spans()
    assert span.event_names == ["exception"]
    assert span.message == "Rude: <unprintable Rude object>"


def test_an_exception_comes_through_untouched():
    error = ValueError("mine")

    @mlflow.trace
    def raises():
        raise error

    with pytest.raises(ValueError, match="mine") as caught:
        raises()
    assert caught.value is error
    assert error.__context__ is None
    assert error.__cause__ is None


def test_a_call_that_does_not_fit_raises_as_untraced(recorded):
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        module_level()
    with pytest.raises(TypeError, match="multiple values"):
        module_level(1, x=2)
    assert [(span.status, span.inputs) for span in recorded.spans()] == [(2, None), (2, None)]


def test_a_keyword_may_have_the_name_of_a_positional_only_parameter(recorded):
    """Where that has a default, inspect before Python 3.13 refuses the call, and MLflow has no
    inputs."""

    @mlflow.trace
    def takes(a=1, /, **others):
        return a

    takes(a=2)
    takes(3, a=4)
    assert [span.inputs for span in recorded.spans()] == [
        {"a": 1, "others": {"a": 2}},
        {"a": 3, "others": {"a": 4}},
    ]


def test_inputs_that_are_not_json_are_kept_without_self_and_cls(recorded):
    class Thing:
        @mlflow.trace
        def method(self, cls, value):
            return None

    Thing().method(int, {frozenset(): 1})
    assert [span.inputs for span in recorded.spans()] == ["{'value': {frozenset(): 1}}"]


def test_a_traced_generator_keeps_the_protocol(recorded):
    @mlflow.trace
    def echo():
        got = []
        while True:
            try:
                sent = yield len(got)
            except KeyError as error:
                got.append(error.args[0])
                continue
            if sent is None:
                return got
            got.append(sent)

    generator = echo()
    assert recorded.spans() == [], "lazy: nothing before the first item"
    assert next(generator) == 0
    assert generator.send("a") == 1
    assert generator.throw(KeyError("b")) == 2
    with pytest.raises(StopIteration) as stop:
        generator.send(None)
    assert stop.value.value == ["a", "b"]
    (span,) = recorded.spans()
    assert span.outputs == [0, 1, 2]
    assert span.event_names == [f"mlflow.chunk.item.{i}" for i in range(3)]


def test_a_traced_generator_serves_yield_from_and_contextmanager(recorded):
    @mlflow.trace
    def inner():
        yield 1
        return "returned"

    def outer():
        assert (yield from inner()) == "returned"

    assert list(outer()) == [1]

    @contextlib.contextmanager
    @mlflow.trace
    def handles():
        try:
            yield
        except KeyError:
            pass

    with handles():
        raise KeyError("handled inside")
    assert [span.status for span in recorded.spans()] == [1, 1]


def test_a_generator_left_early_ends_its_span(recorded):
    @mlflow.trace
    def count():
        yield 1
        yield 2
        yield 3

    for _ in count():
        break
    gc.collect()
    generator = count()
    next(generator)
    next(generator)
    generator.close()
    assert [(span.outputs, span.status) for span in recorded.spans()] == [([1], 1), ([1, 2], 1)]
    count()  # it never starts, and has no span
    gc.collect()
    assert recorded.spans() == []


def test_a_generators_span_is_current_only_while_it_runs(recorded):
    @mlflow.trace
    def items():
        with mlflow.start_span("inside"):
            pass
        yield 1

    with mlflow.start_span("root"):
        for _ in items():
            assert mlflow.get_current_active_span().name == "root"
            with mlflow.start_span("between"):
                pass
    spans = recorded.by_name()
    assert spans["inside"].parent_id == spans["items"].span_id
    assert spans["between"].parent_id == spans["root"].span_id


def test_ten_thousand_items_are_all_recorded(recorded, tmp_path):
    @mlflow.trace
    def many():
        yield from range(10_000)

    assert sum(1 for _ in many()) == 10_000
    spans = recorded.spans()
    if not spans:  # larger than the ring
        (spill,) = tmp_path.glob("spill-*.seg")
        spans = spans_in(spill)
    assert len(spans[0].events) == 10_000


def test_a_traced_async_generator_keeps_the_protocol(recorded):
    @mlflow.trace
    async def echo():
        total = 0
        while True:
            try:
                sent = yield total
            except KeyError:
                total = -1
                continue
            total += sent

    async def main():
        generator = echo()
        assert await generator.asend(None) == 0
        assert await generator.asend(5) == 5
        assert await generator.athrow(KeyError("k")) == -1
        await generator.aclose()

    asyncio.run(main())
    (span,) = recorded.spans()
    assert span.outputs == [0, 5, -1]
    assert span.status == 1


def test_a_coroutine_closed_early_leaves_the_context(recorded):
    class Suspends:
        def __await__(self):
            yield

    @mlflow.trace
    async def waits():
        await Suspends()

    coroutine = waits()
    coroutine.send(None)
    coroutine.close()
    assert mlflow.get_current_active_span() is None
    with mlflow.start_span("afterwards"):
        pass
    spans = recorded.by_name()
    assert spans["waits"].status == 1
    assert spans["afterwards"].parent_id is None


def test_tasks_nest_under_the_span_that_started_them(recorded):
    @mlflow.trace
    async def child(n):
        await asyncio.sleep(0.001)
        return mlflow.get_current_active_span().name

    async def main():
        with mlflow.start_span("root"):
            assert await asyncio.gather(*(child(n) for n in range(5))) == ["child"] * 5
            assert mlflow.get_current_active_span().name == "root"

    asyncio.run(main())
    spans = recorded.spans()
    (root,) = (span for span in spans if span.name == "root")
    assert [span.parent_id for span in spans if span.name == "child"] == [root.span_id] * 5


def test_a_span_does_not_change_after_its_end(recorded, caplog):
    with mlflow.start_span("done") as span:
        span.set_inputs(1)
    span.set_attribute("late", 1)
    span.end()
    assert span.inputs == 1
    assert span.get_attribute("late") is None
    assert len(recorded.spans()) == 1
    assert "has ended" in caplog.text


def test_a_span_is_a_live_span_of_mlflow():
    from mlflow.entities import LiveSpan, Span

    with mlflow.start_span("s") as span:
        assert isinstance(span, LiveSpan)
        assert isinstance(span, Span)
        assert repr(span).startswith("LiveSpan(name='s', trace_id='tr-")
        with pytest.raises(TypeError):
            _core.LiveSpan()


def test_an_update_without_a_trace_is_logged(caplog):
    mlflow.update_current_trace(tags={"a": "b"})
    assert "No active trace found" in caplog.text


def test_an_update_with_bad_values_raises():
    from mlflow.exceptions import MlflowException

    with mlflow.start_span("s"):
        with pytest.raises(MlflowException, match="must be a string"):
            mlflow.update_current_trace(request_preview=1)
        with pytest.raises(MlflowException, match="State must be"):
            mlflow.update_current_trace(state="FINE")


def test_wrong_use_of_trace_raises():
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="output_reducer"):
        mlflow.trace(module_level.__wrapped__, output_reducer=list)
    with pytest.raises(MlflowException, match="sampling_ratio_override"):
        mlflow.trace(sampling_ratio_override=2)


def test_span_methods_take_arguments_by_name(recorded):
    with mlflow.start_span(name="s") as span:
        span.set_inputs(inputs={"a": 1})
        span.set_outputs(outputs=2)
        span.set_attribute(key="k", value="v")
        span.set_attribute("k2", value="v2")
        span.set_attributes(attributes={"x": 1})
        span.set_status(status="ERROR")
        span.set_log_level(level="warning")
        span.record_exception(exception=ValueError("v"))
        assert span.get_attribute(key="k2") == "v2"
        with pytest.raises(TypeError, match="takes 3 positional arguments but 4 were given"):
            span.set_attribute("k", 1, 2)
        with pytest.raises(TypeError, match="got an unexpected keyword argument 'value'"):
            span.set_inputs(value=1)
    (span,) = recorded.spans()
    assert (span.inputs, span.outputs, span.status) == ({"a": 1}, 2, 2)


def test_recursion_limit_makes_no_trace_of_its_own(recorded):
    @mlflow.trace
    def endless(n):
        return endless(n + 1)

    with pytest.raises(RecursionError):
        endless(0)
    spans = recorded.spans()
    assert len([span for span in spans if span.parent_id is None]) <= 1
    assert mlflow.get_current_active_span() is None


def test_code_that_was_given_no_builtins_is_traced(recorded):
    with mlflow.start_span("read") as span:
        found = eval("[span.status, span.events, span.links]", {"__builtins__": {}, "span": span})
    assert found[1:] == [[], []]
    decorated = eval(
        "decorate(function)",
        {"__builtins__": {}, "decorate": mlflow.start_span("scope"), "function": lambda: 1},
    )
    assert eval("function()", {"__builtins__": {}, "function": decorated}) == 1
    assert [span.name for span in recorded.spans()] == ["read", "scope"]
