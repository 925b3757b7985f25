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

import mlflow_fasttrace.fluent as mlflow
import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import runtime
from support.traces import spans_to_ring

COMPLETE = 2


class Recorded:
    def __init__(self, path):
        _writer, self.reader = spans_to_ring(path, 8 << 20)
        self.phases: dict[bytes, int] = {}

    def spans(self) -> list[dict]:
        """The spans that have ended since the last time."""
        spans = []
        for _, kind, trace_id, data in self.reader.drain(1 << 30):
            fields = _core.decode(data)
            if kind == 2:
                self.phases[trace_id] = fields[2] & 0x0F
                continue
            spans.append(
                {
                    "id": fields[2],
                    "parent": fields[3],
                    "name": fields[4],
                    "status": fields[7],
                    "inputs": fields[9].get("mlflow.spanInputs"),
                    "outputs": fields[9].get("mlflow.spanOutputs"),
                    "events": [event[0] for event in fields[10]],
                    "size": len(data),
                }
            )
        return spans

    def is_complete(self) -> bool:
        self.spans()
        return bool(self.phases) and set(self.phases.values()) == {COMPLETE}


@pytest.fixture(autouse=True)
def recorded(tmp_path):
    recorded = Recorded(tmp_path)
    yield recorded
    assert mlflow.get_current_active_span() is None, "a span stayed current"
    runtime.reset()


@pytest.fixture(autouse=True)
def nothing_unraisable(monkeypatch):
    """What is raised where nobody can catch it fails the test."""
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


def drive(generator, steps) -> list:
    """What each step gives, and closing it at the end: its value, or its exception."""
    seen = []
    for name, argument in [*steps, ("close", _)]:
        step = generator.__next__ if name == "next" else getattr(generator, name)
        try:
            seen.append(step() if argument is _ else step(argument))
        except BaseException as error:
            seen.append((type(error), str(error), getattr(error, "value", None)))
            seen.append((type(error.__cause__), str(error.__cause__)))
    return seen


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_as_untraced(recorded, body, driver):
    events.clear()
    expected = drive(body(), DRIVERS[driver]), events.copy()
    events.clear()
    generator = mlflow.trace(body)()
    with mlflow.start_span("root"):
        assert (drive(generator, DRIVERS[driver]), events) == expected
        assert mlflow.get_current_active_span().name == "root"
    del generator
    spans = [span for span in recorded.spans() if span["name"] != "root"]
    assert len(spans) <= 1
    if driver in ("close at once", "throw at once"):
        assert spans == [], "it never started"
    assert recorded.is_complete()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_under_a_delegating_generator(body, driver):
    def outer(function):
        return (yield from function())

    assert drive(outer(mlflow.trace(body)), DRIVERS[driver]) == drive(outer(body), DRIVERS[driver])


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_as_untraced_where_nothing_is_recorded(body, driver):
    traced = mlflow.trace(body, sampling_ratio_override=0.0)
    assert drive(traced(), DRIVERS[driver]) == drive(body(), DRIVERS[driver])


# ---- async generators, driven as the untraced one ----


class Suspends:
    """Awaited, it gives control back to whoever drives the coroutine."""

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
    """Its result, however often it suspends."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        return stop.value


async def adrive(generator, steps) -> list:
    seen = []
    for name, argument in [*steps, ("aclose", _)]:
        step = generator.__anext__ if name == "anext" else getattr(generator, name)
        try:
            seen.append(await (step() if argument is _ else step(argument)))
        except BaseException as error:
            seen.append((type(error), str(error)))
            seen.append((type(error.__cause__), str(error.__cause__)))
    return seen


@pytest.mark.parametrize("driver", ADRIVERS)
@pytest.mark.parametrize("body", ABODIES, ids=lambda body: body.__name__)
def test_async_as_untraced(recorded, body, driver):
    events.clear()
    expected = run(adrive(body(), ADRIVERS[driver])), events.copy()
    events.clear()
    generator = mlflow.trace(body)()
    with mlflow.start_span("root"):
        assert (run(adrive(generator, ADRIVERS[driver])), events) == expected
        assert mlflow.get_current_active_span().name == "root"
    spans = [span for span in recorded.spans() if span["name"] != "root"]
    assert len(spans) <= 1
    assert recorded.is_complete()


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


def leave_to_the_collector(generator):
    next(generator)
    cycle = [generator]
    cycle.append(cycle)


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_close, leave_by_interrupt, leave_to_the_collector]
)
def test_left_early(recorded, leave):
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
    assert (span["outputs"], span["status"]) == ([{"a": 1}], 1)
    assert span["events"] == ["mlflow.chunk.item.0"]
    assert span["parent"] == root["id"]
    assert recorded.is_complete()


def test_left_early_with_spans_of_its_own(recorded):
    @mlflow.trace
    def items():
        with mlflow.start_span("inside"):
            yield 1

    with mlflow.start_span("root"):
        leave_by_break(items())
        gc.collect()
        assert mlflow.get_current_active_span().name == "root"
    assert [span["name"] for span in recorded.spans()] == ["inside", "items", "root"]
    assert recorded.is_complete()


def test_never_started(recorded):
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
    assert recorded.phases == {}


def test_a_call_that_does_not_fit(recorded):
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
    assert [(span["status"], span["inputs"]) for span in recorded.spans()] == [(2, None)] * 2
    assert recorded.is_complete()


def test_async_left_early_is_closed_by_the_loop(recorded, caplog):
    """The loop closes what is left over, all at once: the shell and its body must not meet."""
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
    assert {span["status"] for span in spans} == {1}
    assert recorded.is_complete()


def test_async_closed_while_it_waits(recorded):
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
    spans = {span["name"]: span for span in recorded.spans()}
    assert spans["items"]["parent"] == spans["started here"]["id"]
    assert spans["afterwards"]["parent"] == spans["goes on here"]["id"]
    assert (spans["items"]["outputs"], spans["items"]["status"]) == ([1], 1)
    assert recorded.is_complete()


def test_a_scope_closed_with_its_coroutine(recorded):
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
    spans = {span["name"]: span for span in recorded.spans()}
    assert spans["within"]["parent"] == spans["afterwards"]["parent"] == spans["around"]["id"]
    assert recorded.is_complete()


def test_a_body_that_goes_on_when_it_is_closed(recorded):
    generator = mlflow.trace(ignoring_close)()
    next(generator)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        generator.close()
    assert [span["outputs"] for span in recorded.spans()] == [[1, "not yet"]]
    assert list(generator) == []
    assert recorded.is_complete()


def test_async_cancelled_while_it_waits(recorded):
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
    assert (span["name"], span["outputs"], span["status"]) == ("items", [1], 1)
    assert recorded.is_complete()


def test_async_cancellation_that_is_handled(recorded):
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
    assert {span["name"] for span in recorded.spans()} == {"items", "clean up"}
    assert recorded.is_complete()


def test_context_managers_handle_what_their_body_raises(recorded):
    """MLflow's wrapper is not told of it."""

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
    assert [span["status"] for span in recorded.spans()] == [1, 1, 2]


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
        assert (len(span["events"]), len(span["outputs"])) == (n, n)
        sizes.append(span["size"])
    assert 9.5 < sizes[1] / sizes[0] < 10.5


def test_items_are_not_kept(recorded):
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
    assert span["outputs"] == ["item"] * 3


# ---- coroutines ----


def test_coroutine_protocol(recorded):
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
    assert span["outputs"] == ["k", "sent"]


def test_coroutine_left_to_the_collector(recorded):
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
    spans = {span["name"]: span for span in recorded.spans()}
    assert spans["afterwards"]["parent"] == spans["root"]["id"]
    assert set(spans) == {"waits", "inside", "root", "afterwards"}
    assert recorded.is_complete()


def test_timeouts_and_cancellation(recorded):
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
    assert {(span["name"], span["status"], span["outputs"]) for span in recorded.spans()} == {
        ("waits", 1, None),
        ("shields", 1, "handled"),
    }
    assert recorded.is_complete()


def test_context_of_each_task(recorded):
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
    by_id = {span["id"]: span for span in spans}
    for span in spans:
        if span["name"] == "grandchild":
            parent = by_id[span["parent"]]
            assert (parent["name"], parent["inputs"]) == ("child", span["inputs"])
    assert len(spans) == 21
    assert recorded.is_complete()


# ---- threads ----


def test_one_trace_from_many_threads(recorded):
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
    assert len({span["id"] for span in spans}) == len(spans)
    (root,) = (span for span in spans if span["parent"] is None)
    assert sum(span["parent"] == root["id"] for span in spans) == threads * (each + 1)
    assert len(recorded.phases) == 1
    assert recorded.is_complete()


def test_threads_without_a_context_begin_traces(recorded):
    @mlflow.trace
    def work(n):
        return n

    with mlflow.start_span("root"), concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(4))) == [0, 1, 2, 3]
    assert [span["parent"] for span in recorded.spans()] == [None] * 5
    assert len(recorded.phases) == 5


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
    assert len(recorded.phases) == 1
    assert recorded.is_complete()


def test_warnings_name_the_program_not_the_wrapper():
    @mlflow.trace
    async def forgotten():
        pass

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forgotten()
        gc.collect()
    assert any("forgotten" in str(warning.message) for warning in caught)
