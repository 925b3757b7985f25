"""Programs about what can be traced and how it is called."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import operator
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from programs import Programs, with_mlflow

PROGRAMS = Programs()
program = PROGRAMS.add


@program
def binding(mlflow):
    @mlflow.trace
    def both(a, /, **others):
        return None

    @mlflow.trace
    def defaults(a, b=(1,), *, c=Ellipsis, d=None):
        return None

    @mlflow.trace
    def rest(*self_made, **cls_made):
        return None

    @mlflow.trace
    def named(args, kwargs, function, span):
        return None

    @mlflow.trace
    def none():
        return None

    both(1, a=2)
    both(1, z=1, y=2, b=None)
    defaults(1)
    defaults(d=4, c=3, b=2, a=1)
    rest()
    rest(1, (2,), x=3)
    named(1, kwargs=2, span=3, function=4)
    none()
    many = mlflow.trace(eval("lambda " + ", ".join(f"p{i}={i}" for i in range(40)) + ": p39"))
    many(*range(10), p39="last")


@program
def self_and_cls(mlflow):
    @mlflow.trace
    def first_is_a_class(cls, x):
        return x

    @mlflow.trace
    def cls_is_second(x, cls):
        return x

    @mlflow.trace
    def self_is_second(x, self):
        return x

    class Thing:
        @mlflow.trace
        def made_of(self, cls, x):
            return x

        @mlflow.trace
        def renamed(this, x):
            return x

        @classmethod
        @mlflow.trace
        def klass(klass, x):
            return x

    first_is_a_class(int, 1)
    first_is_a_class("no class", 1)
    cls_is_second(1, int)
    self_is_second(1, "left out")
    Thing().made_of(int, 1)
    Thing().made_of("no class", 1)
    mlflow.trace(lambda self, x: x)("first", 2)
    Thing.klass(2)


@program
def kinds_of_callables(mlflow):
    @mlflow.trace
    class Made:
        def __init__(self, x, y=2):
            self.x = x

        def __str__(self):
            return "made"

    def plain(x, y=1):
        return [x, y]

    assert mlflow.trace(lambda x: x + 1)(1) == 2
    assert mlflow.trace(max)(1, 3) == 3
    assert mlflow.trace(len)("four") == 4
    assert mlflow.trace(dict)(a=1) == {"a": 1}
    assert mlflow.trace(str.upper)("a") == "A"
    assert mlflow.trace("a-b".split)("-") == ["a", "b"]
    assert mlflow.trace(operator.add)(1, 2) == 3
    assert mlflow.trace(dict.fromkeys)("ab") == {"a": None, "b": None}
    assert Made(1).x == 1
    named = functools.update_wrapper(functools.partial(plain, 5), plain)
    assert mlflow.trace(named)() == [5, 1]
    assert mlflow.trace(named, name="renamed")(y=2) == [5, 2]


@program
def wrapped_by_others(mlflow):
    def logged(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            return function(*args, **kwargs)

        return call

    def hides(function):
        def hidden(*args, **kwargs):
            return function(*args, **kwargs)

        return hidden

    @mlflow.trace(name="outer")
    @mlflow.trace(name="inner", attributes={"a": 1})
    def twice(x):
        return x

    @mlflow.trace
    @logged
    @mlflow.trace
    @logged
    def sandwich(x, y=2):
        return x

    @mlflow.trace
    @hides
    def bare(x):
        return x

    @mlflow.trace
    def takes(function):
        return function

    @logged
    @mlflow.trace
    async def coroutine(x):
        return x

    assert twice(1) == 1
    assert sandwich(1) == 1
    assert bare(1) == 1
    assert takes(twice) is twice
    assert takes(coroutine) is coroutine
    assert takes([takes, max]) == [takes, max]
    assert asyncio.run(coroutine(1)) == 1


@program
def caches_and_dispatch(mlflow):
    @mlflow.trace
    @functools.lru_cache(maxsize=2)
    def under(x, y=1):
        return [x]

    @functools.cache
    @mlflow.trace
    def over(x):
        return x

    @mlflow.trace
    @functools.singledispatch
    def any_kind(x):
        return "any"

    @any_kind.register(int)
    @mlflow.trace
    def a_number(x):
        return "number"

    @functools.singledispatch
    @mlflow.trace
    def other_kind(x):
        return "any"

    class Thing:
        @functools.cached_property
        @mlflow.trace
        def once(self):
            return 1

        @property
        @mlflow.trace
        def each_time(self):
            return 2

        @each_time.setter
        @mlflow.trace
        def each_time(self, value):
            pass

        bound = functools.partialmethod(mlflow.trace(lambda self, a, b=2: a), 7)

    under(1)
    under(1)
    over(1)
    over(1)
    any_kind("")
    any_kind(1)
    other_kind(1)
    thing = Thing()
    assert (thing.once, thing.once, thing.each_time, thing.bound()) == (1, 1, 2, 7)
    thing.each_time = 3


@program
def classes(mlflow):
    class Base:
        @mlflow.trace
        def __new__(cls, x):
            return super().__new__(cls)

        @mlflow.trace
        def __init__(self, x):
            self.x = x

        @mlflow.trace
        def __init_subclass__(cls, **options):
            super().__init_subclass__()

        @mlflow.trace
        def __class_getitem__(cls, item):
            return cls.__name__

        @mlflow.trace
        def method(self, x=1):
            return x

        @mlflow.trace
        def __call__(self, x):
            return x

        @mlflow.trace
        @classmethod
        def of_class(cls, x):
            return x

        @staticmethod
        @mlflow.trace
        def static(cls, x=0):
            return x

        @mlflow.trace
        async def later(self, x):
            return x

        @mlflow.trace
        def items(self, n):
            yield from range(n)

        @classmethod
        @mlflow.trace
        async def class_later(cls, x):
            return x

    class Child(Base, option=1):
        @mlflow.trace
        def method(self, x=1):
            return super().method(x + 1)

    child = Child(1)
    assert Child["item"] == "Child"
    assert child.method(2) == 3
    assert Child.method(child, 2) == 3
    assert Base.method(child) == 1
    assert child(4) == 4
    assert child.of_class(5) == Child.of_class(5) == 5
    assert child.static(int, 6) == Base.static(int, 6) == 6
    assert asyncio.run(child.later(7)) == 7
    assert asyncio.run(Child.class_later(8)) == 8
    assert list(child.items(2)) == [0, 1]
    thread = threading.Thread(target=child.method)
    thread.start()
    thread.join()


@program
def more_generators(mlflow):
    @mlflow.trace
    def leaf(x):
        return x

    @mlflow.trace
    def walk(depth):
        leaf(depth)
        if depth:
            yield from walk(depth - 1)
        yield depth

    @mlflow.trace
    def spans_over_items():
        with mlflow.start_span("over items"):
            leaf("before")
            yield 1
            leaf("between")
            yield 2
        leaf("after")

    @mlflow.trace
    def empty():
        return
        yield

    def fails(items):
        raise ValueError("no reduction")

    @mlflow.trace(output_reducer=fails)
    def not_reduced():
        yield 1

    @mlflow.trace(output_reducer=lambda items: None)
    def reduced_to_none():
        yield 1

    @mlflow.trace(
        name="renamed",
        span_type="LLM",
        attributes={"a": 1},
        **with_mlflow("3.17", description="d"),
    )
    def with_options(a, *, b=2):
        yield {"a": a}

    @mlflow.trace
    def own_outputs():
        mlflow.get_current_active_span().set_attribute("seen", True)
        yield 1

    assert list(walk(2)) == [0, 1, 2]
    assert list(spans_over_items()) == [1, 2]
    assert list(empty()) == []
    assert list(not_reduced()) == list(reduced_to_none()) == [1]
    assert list(with_options(1)) == [{"a": 1}]
    assert list(own_outputs()) == [1]
    with mlflow.start_span("two at once"):
        assert list(zip(walk(1), walk(1), strict=True)) == [(0, 0), (1, 1)]


@program
def generators_in_other_threads(mlflow):
    @mlflow.trace
    def leaf(x):
        return x

    @mlflow.trace
    def items(n):
        for i in range(n):
            leaf(i)
            yield i

    # As a web server does it with a streaming answer: each step in a context of its own.
    with mlflow.start_span("request"):
        generator = items(3)
        with ThreadPoolExecutor(2) as pool:
            got = [
                pool.submit(contextvars.copy_context().run, next, generator).result()
                for _ in range(3)
            ]
            assert got == [0, 1, 2]
            assert pool.submit(next, generator, "end").result() == "end"
        leaf("afterwards")


@program
def managers(mlflow):
    @contextlib.contextmanager
    @mlflow.trace
    def managed(x):
        with mlflow.start_span("set up"):
            pass
        yield x
        with mlflow.start_span("tear down"):
            pass

    @contextlib.asynccontextmanager
    @mlflow.trace
    async def managed_later(x):
        yield x
        with mlflow.start_span("tear down"):
            pass

    @contextlib.contextmanager
    def around(name):
        with mlflow.start_span(name) as span:
            yield span

    async def main():
        with mlflow.start_span("root"):
            async with managed_later(2):
                with mlflow.start_span("inside"):
                    pass

    with mlflow.start_span("root"):
        with managed(1):
            with mlflow.start_span("inside"):
                pass
    asyncio.run(main())
    with around("by hand"):
        with mlflow.start_span("inside"):
            pass
    mlflow.trace(managed)(3)


@program
def more_coroutines(mlflow):
    @mlflow.trace
    async def leaf(n):
        await asyncio.sleep(0)
        return n

    @mlflow.trace
    async def slow():
        await leaf("before")
        await asyncio.Event().wait()

    @mlflow.trace
    async def handles():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await leaf("clean up")
            return "handled"

    @mlflow.trace
    def blocking(x):
        return mlflow.get_current_active_span().name + x

    @mlflow.trace
    async def background(started, go):
        started.set()
        await go.wait()
        await leaf("late")

    @mlflow.trace
    async def main():
        try:
            await asyncio.wait_for(slow(), 0.05)
        except asyncio.TimeoutError:
            pass
        task = asyncio.create_task(handles())
        await asyncio.sleep(0.01)
        task.cancel()
        assert await task == "handled"
        assert await asyncio.to_thread(blocking, "!") == "blocking!"
        await asyncio.get_running_loop().run_in_executor(None, blocking, "?")
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(leaf, "on exit")
        started, go = asyncio.Event(), asyncio.Event()
        with mlflow.start_span("starts the task"):
            task = asyncio.create_task(background(started, go))
            await started.wait()
        with mlflow.start_span("goes on"):
            go.set()
            await task
        return await leaf("end")

    assert asyncio.run(main()) == "end"
    never = leaf("never awaited")
    never.close()
    asyncio.run(contextvars.copy_context().run(leaf, "in a context"))
    returned = mlflow.trace(lambda: leaf("made by a plain function"))()
    assert inspect.iscoroutine(returned)
    asyncio.run(returned)


@program
def groups_of_tasks(mlflow):
    if sys.version_info < (3, 11):
        with mlflow.start_span("there are none"):
            return

    @mlflow.trace
    async def work(n):
        await asyncio.sleep(0.002 * n)
        return n

    @mlflow.trace
    async def fails():
        await asyncio.sleep(0)
        raise ValueError("in the group")

    @mlflow.trace
    async def group():
        async with asyncio.TaskGroup() as tasks:
            for n in range(3):
                tasks.create_task(work(n))

    @mlflow.trace
    async def broken_group():
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(work(500))
                tasks.create_task(fails())
        except Exception as error:
            return str(error.exceptions[0])

    @mlflow.trace
    async def bounded():
        try:
            async with asyncio.timeout(0.02):
                await work(500)
        except TimeoutError:
            return "too late"

    asyncio.run(group())
    assert asyncio.run(broken_group()) == "in the group"
    assert asyncio.run(bounded()) == "too late"


@program
def more_async_generators(mlflow):
    @mlflow.trace
    async def leaf(n):
        await asyncio.sleep(0)
        return n

    @mlflow.trace
    async def walk(depth):
        await leaf(depth)
        if depth:
            async for item in walk(depth - 1):
                yield item
        yield depth

    @mlflow.trace(output_reducer=sum, span_type="LLM")
    async def reduced():
        with mlflow.start_span("over items"):
            yield 1
            await leaf("between")
            yield 2

    @mlflow.trace
    async def empty():
        return
        yield

    @mlflow.trace
    async def main():
        assert [item async for item in walk(2)] == [0, 1, 2]
        async for _ in reduced():
            with mlflow.start_span("between items"):
                await leaf("outside")
        assert [item async for item in empty()] == []

    asyncio.run(main())


@program
def thread_pools(mlflow):
    @mlflow.trace
    def work(n):
        return n

    @mlflow.trace
    def root():
        with ThreadPoolExecutor(1) as pool:
            for n in range(2):
                assert pool.submit(work, n).result() == n
                assert pool.submit(contextvars.copy_context().run, work, n).result() == n
            assert list(pool.map(work, [5])) == [5]
        return work("here")

    root()


@program
def a_span_in_another_thread(mlflow):
    with mlflow.start_span("handed over") as span:

        def fill():
            span.set_inputs({"a": 1})
            span.set_attribute("thread", "other")
            assert mlflow.get_current_active_span() is None

        thread = threading.Thread(target=fill)
        thread.start()
        thread.join()
        span.set_outputs("done")
