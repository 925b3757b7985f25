"""A traced generator or coroutine goes on exactly as it would untraced, however it is driven and
wherever it is left; its span ends with it, and its trace with its spans."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import gc
import sys
import threading
import warnings
import weakref
from typing import Any, NamedTuple

import mlflow_fasttrace.fluent as mlflow
import pytest
from support.records import Recorded


@pytest.fixture(autouse=True)
def recorded(tmp_path):
    recorded = Recorded(tmp_path, 8 << 20)
    yield recorded
    assert mlflow.get_current_active_span() is None, "a span stayed current"
    recorded.end()


@pytest.fixture(autouse=True)
def nothing_unraisable(monkeypatch):
    """An exception that Python can only report fails the test."""
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    yield seen
    assert [str(item.exc_value) for item in seen] == []


# ---- generators, driven as the untraced one ----


def counting():
    yield 0
    yield 1
    yield 2
    return "returned"


def echoing():
    got = []
    while len(got) < 5:
        try:
            got.append((yield len(got)))
        except KeyError as error:
            got.append(error.args)
    return got


def raising():
    yield 1
    raise ValueError("mine")


def stopping():
    yield 1
    raise StopIteration("inside")


def cleaning():
    try:
        yield 1
        yield 2
    finally:
        events.append("cleaned")


def swallowing_close():
    try:
        yield 1
    except GeneratorExit:
        return "closed"


def ignoring_close():
    try:
        yield 1
    except GeneratorExit:
        yield "not yet"
    return "at last"


def failing_close():
    try:
        yield 1
    finally:
        raise LookupError("in finally")


def delegating():
    result = yield from counting()
    yield result
    yield from [8, 9]


def empty():
    return "nothing"
    yield


def interrupted():
    yield 1
    raise KeyboardInterrupt


events: list[str] = []

BODIES = (
    counting,
    echoing,
    raising,
    stopping,
    cleaning,
    swallowing_close,
    ignoring_close,
    failing_close,
    delegating,
    empty,
    interrupted,
)


class Own(BaseException):
    pass


_ = object()
DRIVERS = {
    "to the end": [("next", _)] * 6,
    "close at once": [("close", _), ("next", _)],
    "close": [("next", _), ("close", _), ("next", _), ("close", _)],
    "close at the end": [("next", _)] * 6 + [("close", _)],
    "send": [("send", None)] + [("send", {"a": 1})] * 6,
    "send too early": [("send", 1), ("next", _)],
    "throw at once": [("throw", KeyError("k")), ("next", _)],
    "throw what is handled": [("next", _)] + [("throw", KeyError("k"))] * 6,
    "throw": [("next", _), ("throw", ValueError("v")), ("next", _)],
    "throw a class": [("next", _), ("throw", KeyError), ("next", _)],
    "throw own": [("next", _), ("throw", Own("o")), ("next", _)],
    "throw StopIteration": [("next", _), ("throw", StopIteration("s")), ("next", _)],
    "throw GeneratorExit": [("next", _), ("throw", GeneratorExit()), ("next", _)],
    "throw an interrupt": [("next", _), ("throw", KeyboardInterrupt()), ("next", _)],
}


class Outcome(NamedTuple):
    """What one step gave its caller: a value, or an exception."""

    step: str
    value: Any = None
    error: type | None = None
    words: str = ""
    returned: Any = None
    cause: tuple[type, str] | None = None


def outcome_of(step: str, error: BaseException) -> Outcome:
    cause = type(error.__cause__), str(error.__cause__)
    return Outcome(step, None, type(error), str(error), getattr(error, "value", None), cause)


def drive(generator, steps) -> list[Outcome]:
    """Takes these steps, and closes the generator at the end."""
    seen = []
    for name, argument in [*steps, ("close", _)]:
        step = generator.__next__ if name == "next" else getattr(generator, name)
        try:
            seen.append(Outcome(name, step() if argument is _ else step(argument)))
        except BaseException as error:
            seen.append(outcome_of(name, error))
    return seen


NEVER_STARTED = "close at once", "throw at once"


def recorded_of(seen: list[Outcome]) -> tuple[list | None, int]:
    """The outputs and the status of the span of a generator whose steps gave this."""
    items = []
    for outcome in seen:
        if outcome.error is None:
            items += [] if "close" in outcome.step else [outcome.value]
        elif "ignored GeneratorExit" in outcome.words:
            items.append("not yet")  # which Python does not hand out
        elif "can't send non-None value" in outcome.words:
            pass  # it has not started
        elif issubclass(outcome.error, (StopIteration, StopAsyncIteration)):
            break
        elif issubclass(outcome.error, Exception):
            return None, 2
        else:
            break  # an exit or an interrupt is no error
    return items, 1


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_generator_goes_on_as_untraced(recorded, body, driver):
    events.clear()
    expected = drive(body(), DRIVERS[driver]), events.copy()
    events.clear()
    generator = mlflow.trace(body)()
    with mlflow.start_span("root"):
        assert (drive(generator, DRIVERS[driver]), events) == expected
        assert mlflow.get_current_active_span().name == "root"
    del generator
    spans = [(span.outputs, span.status) for span in recorded.spans() if span.name != "root"]
    assert spans == ([] if driver in NEVER_STARTED else [recorded_of(expected[0])])
    assert recorded.all_complete()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_delegating_generator_goes_on_as_untraced(body, driver):
    def outer(function):
        return (yield from function())

    assert drive(outer(mlflow.trace(body)), DRIVERS[driver]) == drive(outer(body), DRIVERS[driver])


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_generator_that_is_not_sampled_goes_on_as_untraced(body, driver):
    traced = mlflow.trace(body, sampling_ratio_override=0.0)
    assert drive(traced(), DRIVERS[driver]) == drive(body(), DRIVERS[driver])


# ---- async generators, driven as the untraced one ----


class Suspends:
    """An awaitable that gives control back to the function that drives the coroutine."""

    def __await__(self):
        return (yield "suspended")


async def acounting():
    for n in range(3):
        await Suspends()
        yield n


async def aechoing():
    got = []
    while len(got) < 5:
        try:
            got.append((yield len(got)))
        except KeyError as error:
            got.append(error.args)
        await Suspends()


async def araising():
    yield 1
    raise ValueError("mine")


async def astopping():
    yield 1
    raise StopAsyncIteration


async def acleaning():
    try:
        yield 1
        yield 2
    finally:
        await Suspends()
        events.append("cleaned")


async def aswallowing_close():
    try:
        yield 1
    except GeneratorExit:
        await Suspends()


async def aignoring_close():
    try:
        yield 1
    except GeneratorExit:
        yield "not yet"


async def afailing_close():
    try:
        yield 1
    finally:
        raise LookupError("in finally")


async def aempty():
    return
    yield


ABODIES = (
    acounting,
    aechoing,
    araising,
    astopping,
    acleaning,
    aswallowing_close,
    aignoring_close,
    afailing_close,
    aempty,
)

ADRIVERS = {
    "to the end": [("anext", _)] * 6,
    "close at once": [("aclose", _), ("anext", _)],
    "close": [("anext", _), ("aclose", _), ("anext", _), ("aclose", _)],
    "close at the end": [("anext", _)] * 6 + [("aclose", _)],
    "send": [("asend", None)] + [("asend", 1)] * 6,
    "send too early": [("asend", 1), ("anext", _)],
    "throw at once": [("athrow", KeyError("k")), ("anext", _)],
    "throw what is handled": [("anext", _)] + [("athrow", KeyError("k"))] * 6,
    "throw": [("anext", _), ("athrow", ValueError("v")), ("anext", _)],
    "throw own": [("anext", _), ("athrow", Own("o")), ("anext", _)],
    "throw StopAsyncIteration": [("anext", _), ("athrow", StopAsyncIteration()), ("anext", _)],
    "throw GeneratorExit": [("anext", _), ("athrow", GeneratorExit()), ("anext", _)],
}


def run(coroutine):
    """A coroutine's result, however often it suspends."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        return stop.value


async def adrive(generator, steps) -> list[Outcome]:
    seen = []
    for name, argument in [*steps, ("aclose", _)]:
        step = generator.__anext__ if name == "anext" else getattr(generator, name)
        try:
            seen.append(Outcome(name, await (step() if argument is _ else step(argument))))
        except BaseException as error:
            seen.append(outcome_of(name, error))
    return seen


@pytest.mark.parametrize("driver", ADRIVERS)
@pytest.mark.parametrize("body", ABODIES, ids=lambda body: body.__name__)
def test_an_async_generator_goes_on_as_untraced(recorded, body, driver):
    events.clear()
    expected = run(adrive(body(), ADRIVERS[driver])), events.copy()
    events.clear()
    generator = mlflow.trace(body)()
    with mlflow.start_span("root"):
        assert (run(adrive(generator, ADRIVERS[driver])), events) == expected
        assert mlflow.get_current_active_span().name == "root"
    spans = [(span.outputs, span.status) for span in recorded.spans() if span.name != "root"]
    assert spans == ([] if driver in NEVER_STARTED else [recorded_of(expected[0])])
    assert recorded.all_complete()


# ---- left early ----


def leave_by_break(generator):
    for _item in generator:
        break


def leave_by_close(generator):
    next(generator)
    generator.close()


def leave_by_interrupt(generator):
    next(generator)
    with pytest.raises(KeyboardInterrupt):
        generator.throw(KeyboardInterrupt())


def leave_to_the_garbage_collector(generator):
    next(generator)
    cycle = [generator]
    cycle.append(cycle)


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_close, leave_by_interrupt, leave_to_the_garbage_collector]
)
def test_a_generator_left_early_ends_its_span_and_trace(recorded, leave):
    """MLflow never ends such a span, and withholds its parent's trace."""

    @mlflow.trace
    def items():
        yield {"a": 1}
        yield {"b": 2}

    with mlflow.start_span("root"):
        leave(items())
        gc.collect()
        assert mlflow.get_current_active_span().name == "root"
    span, root = recorded.spans()
    assert (span.outputs, span.status) == ([{"a": 1}], 1)
    assert span.event_names == ["mlflow.chunk.item.0"]
    assert span.parent_id == root.span_id
    assert recorded.all_complete()


def test_a_generator_left_early_ends_the_spans_inside(recorded):
    @mlflow.trace
    def items():
        with mlflow.start_span("inside"):
            yield 1

    with mlflow.start_span("root"):
        leave_by_break(items())
        gc.collect()
        assert mlflow.get_current_active_span().name == "root"
    assert [span.name for span in recorded.spans()] == ["inside", "items", "root"]
    assert recorded.all_complete()


def test_what_never_starts_is_not_recorded(recorded):
    @mlflow.trace
    def items():
        yield

    @mlflow.trace
    async def later():
        yield

    @mlflow.trace
    async def coroutine():
        pass

    items().close()
    items()
    later()
    coroutine().close()
    assert recorded.spans() == []
    assert recorded.traces() == {}


def test_a_call_that_does_not_fit_is_recorded_and_raises(recorded):
    @mlflow.trace
    def items(x):
        yield x

    @mlflow.trace
    async def later(x):
        yield x

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        list(items())
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        run(later().__anext__())
    assert [(span.status, span.inputs) for span in recorded.spans()] == [(2, None)] * 2
    assert recorded.all_complete()


def test_async_generators_left_early_are_closed_by_the_loop(recorded, caplog):
    """The loop closes all generators that are left, at once: a wrapper and its body must not meet."""
    cleaned = []
    dropped = None

    @mlflow.trace
    async def items(n):
        try:
            yield n
            yield n
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            cleaned.append(n)
            if n == "dropped":
                dropped.set()

    kept = []

    async def main():
        nonlocal dropped
        dropped = asyncio.Event()
        with mlflow.start_span("root"):
            for n in range(20):
                kept.append(items(n))
                await kept[-1].__anext__()
            async for _item in items("dropped"):
                break
            await dropped.wait()

    asyncio.run(main())
    assert sorted(cleaned, key=str) == sorted([*range(20), "dropped"], key=str)
    assert caplog.text == ""
    spans = recorded.spans()
    assert len(spans) == 22
    assert {span.status for span in spans} == {1}
    assert recorded.all_complete()


def test_an_async_generator_closed_while_it_waits_ends_its_span(recorded):
    @mlflow.trace
    async def items():
        yield 1
        await Suspends()
        yield 2

    generator = items()
    with mlflow.start_span("started here"):
        assert run(generator.asend(None)) == 1
    with mlflow.start_span("goes on here"):
        step = generator.asend(None)
        step.send(None)
        step.close()
        del step, generator
        gc.collect()
        with mlflow.start_span("afterwards"):
            pass
    spans = recorded.by_name()
    assert spans["items"].parent_id == spans["started here"].span_id
    assert spans["afterwards"].parent_id == spans["goes on here"].span_id
    assert (spans["items"].outputs, spans["items"].status) == ([1], 1)
    assert recorded.all_complete()


def test_a_scope_ends_with_its_coroutine(recorded):
    async def call():
        with mlflow.start_span("within"):
            await Suspends()

    with mlflow.start_span("around"):
        coroutine = call()
        coroutine.send(None)
        del coroutine
        gc.collect()
        with mlflow.start_span("afterwards"):
            pass
    spans = recorded.by_name()
    assert spans["within"].parent_id == spans["afterwards"].parent_id == spans["around"].span_id
    assert recorded.all_complete()


def test_a_body_that_ignores_its_close_raises_as_untraced(recorded):
    generator = mlflow.trace(ignoring_close)()
    next(generator)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        generator.close()
    assert [span.outputs for span in recorded.spans()] == [[1, "not yet"]]
    assert list(generator) == []
    assert recorded.all_complete()


def test_a_cancelled_async_generator_ends_its_span(recorded):
    @mlflow.trace
    async def items(started):
        yield 1
        started.set()
        await asyncio.Event().wait()

    async def consume(started):
        return [item async for item in items(started)]

    async def main():
        started = asyncio.Event()
        with mlflow.start_span("root"):
            task = asyncio.create_task(consume(started))
            await started.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert mlflow.get_current_active_span().name == "root"

    asyncio.run(main())
    span, _root = recorded.spans()
    assert (span.name, span.outputs, span.status) == ("items", [1], 1)
    assert recorded.all_complete()


def test_an_async_generator_may_handle_its_cancellation(recorded):
    @mlflow.trace
    async def items(started):
        try:
            started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with mlflow.start_span("clean up"):
                yield "cancelled"

    async def main():
        started = asyncio.Event()
        task = asyncio.create_task(anext(items(started)))
        await started.wait()
        task.cancel()
        return await task

    assert asyncio.run(main()) == "cancelled"
    assert {span.name for span in recorded.spans()} == {"items", "clean up"}
    assert recorded.all_complete()


def test_context_managers_handle_what_their_body_raises(recorded):
    """MLflow's wrapper does not hand the exception on."""

    @contextlib.contextmanager
    @mlflow.trace
    def managed():
        try:
            yield
        except KeyError as error:
            events.append(error.args[0])

    @contextlib.asynccontextmanager
    @mlflow.trace
    async def managed_later():
        try:
            yield
        except KeyError as error:
            await asyncio.sleep(0)
            events.append(error.args[0])

    async def main():
        async with managed_later():
            raise KeyError("later")

    events.clear()
    with managed():
        raise KeyError("now")
    asyncio.run(main())
    with pytest.raises(ValueError, match="passes"), managed():
        raise ValueError("passes")
    assert events == ["now", "later"]
    assert [span.status for span in recorded.spans()] == [1, 1, 2]


# ---- many items ----


def test_size_is_in_proportion_to_the_items(recorded):
    @mlflow.trace
    def items(n):
        for i in range(n):
            yield 1_000_000 + i

    sizes = []
    for n in (1_000, 10_000):
        assert sum(1 for _item in items(n)) == n
        (span,) = recorded.spans()
        assert (len(span.event_names), len(span.outputs)) == (n, n)
        sizes.append(span.size)
    assert 9.5 < sizes[1] / sizes[0] < 10.5


def test_items_are_not_kept_alive(recorded):
    class Item:
        def __str__(self):
            return "item"

    @mlflow.trace
    def items():
        for _n in range(3):
            item = Item()
            alive.append(weakref.ref(item))
            yield item
            del item

    alive: list[weakref.ref] = []
    for item in items():
        del item
        assert sum(reference() is not None for reference in alive) <= 1
    (span,) = recorded.spans()
    assert span.outputs == ["item"] * 3


# ---- coroutines ----


def test_a_traced_coroutine_keeps_the_protocol(recorded):
    @mlflow.trace
    async def echoes():
        got = []
        for _n in range(2):
            try:
                got.append(await Suspends())
            except KeyError as error:
                got.append(error.args[0])
        return got

    coroutine = echoes()
    assert coroutine.send(None) == "suspended"
    assert coroutine.throw(KeyError("k")) == "suspended"
    with pytest.raises(StopIteration) as stop:
        coroutine.send("sent")
    assert stop.value.value == ["k", "sent"]
    (span,) = recorded.spans()
    assert span.outputs == ["k", "sent"]


def test_a_coroutine_left_to_the_garbage_collector_leaves_the_context(recorded):
    @mlflow.trace
    async def waits():
        with mlflow.start_span("inside"):
            await Suspends()

    with mlflow.start_span("root"):
        coroutine = waits()
        coroutine.send(None)
        cycle = [coroutine]
        cycle.append(cycle)
        del coroutine, cycle
        gc.collect()
        with mlflow.start_span("afterwards"):
            pass
    spans = recorded.by_name()
    assert spans["afterwards"].parent_id == spans["root"].span_id
    assert set(spans) == {"waits", "inside", "root", "afterwards"}
    assert recorded.all_complete()


def test_coroutines_end_by_timeouts_and_cancellation(recorded):
    @mlflow.trace
    async def waits():
        await asyncio.Event().wait()

    @mlflow.trace
    async def shields():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "handled"

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(waits(), 0.01)
        assert mlflow.get_current_active_span() is None
        task = asyncio.create_task(shields())
        await asyncio.sleep(0)
        task.cancel()
        assert await task == "handled"
        assert not task.cancelled()
        if sys.version_info >= (3, 11):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await waits()

    asyncio.run(main())
    assert {(span.name, span.status, span.outputs) for span in recorded.spans()} == {
        ("waits", 1, None),
        ("shields", 1, "handled"),
    }
    assert recorded.all_complete()


def test_each_task_has_its_own_current_span(recorded):
    @mlflow.trace
    async def child(n):
        await asyncio.sleep(0)
        await grandchild(n)
        return mlflow.get_current_active_span().name

    @mlflow.trace
    async def grandchild(n):
        await asyncio.sleep(0)

    async def main():
        loop = asyncio.get_running_loop()
        if sys.version_info >= (3, 12):
            loop.set_task_factory(asyncio.eager_task_factory)
        with mlflow.start_span("root"):
            tasks = [asyncio.create_task(child(n)) for n in range(10)]
            assert mlflow.get_current_active_span().name == "root"
            assert await asyncio.gather(*tasks) == ["child"] * 10

    asyncio.run(main())
    spans = recorded.spans()
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        if span.name == "grandchild":
            parent = by_id[span.parent_id]
            assert (parent.name, parent.inputs) == ("child", span.inputs)
    assert len(spans) == 21
    assert recorded.all_complete()


# ---- threads ----


def test_many_threads_record_one_trace(recorded):
    @mlflow.trace
    def work(thread, n):
        mlflow.update_current_trace(tags={f"t{thread}": str(n)})
        return n

    @mlflow.trace
    def items(thread):
        for n in range(20):
            yield work(thread, n)

    threads, each = 8, 50
    barrier = threading.Barrier(threads)

    def feed(thread):
        barrier.wait()
        for n in range(each):
            work(thread, n)
        list(items(thread))

    with mlflow.start_span("root"):
        started = [
            threading.Thread(target=contextvars.copy_context().run, args=(feed, thread))
            for thread in range(threads)
        ]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    spans = recorded.spans()
    assert len(spans) == threads * (each + 21) + 1
    assert len({span.span_id for span in spans}) == len(spans)
    (root,) = (span for span in spans if span.parent_id is None)
    assert sum(span.parent_id == root.span_id for span in spans) == threads * (each + 1)
    assert len(recorded.traces()) == 1
    assert recorded.all_complete()


def test_threads_without_a_context_begin_traces(recorded):
    @mlflow.trace
    def work(n):
        return n

    with mlflow.start_span("root"), concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(4))) == [0, 1, 2, 3]
    assert [span.parent_id for span in recorded.spans()] == [None] * 5
    assert len(recorded.traces()) == 5


def test_a_generator_goes_from_thread_to_thread(recorded):
    @mlflow.trace
    def items():
        with mlflow.start_span("over items"):
            yield 0
            yield 1
            yield 2

    with mlflow.start_span("root"):
        generator = items()
        assert next(generator) == 0
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert pool.submit(next, generator).result() == 1
            assert pool.submit(mlflow.get_current_active_span).result() is None
            assert pool.submit(contextvars.copy_context().run, next, generator).result() == 2
            assert pool.submit(next, generator, None).result() is None
            assert pool.submit(mlflow.get_current_active_span).result() is None
    assert len(recorded.spans()) == 3
    assert len(recorded.traces()) == 1
    assert recorded.all_complete()


def test_warnings_name_the_program_not_the_wrapper():
    @mlflow.trace
    async def forgotten():
        pass

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forgotten()
        gc.collect()
    (message,) = (str(warning.message) for warning in caught)
    name = "test_warnings_name_the_program_not_the_wrapper.<locals>.forgotten"
    assert message == f"coroutine '{name}' was never awaited"
