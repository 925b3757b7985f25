"""What tools see of a traced callable: inspect, copying, pickling, mocks, pydantic, FastAPI.

Each test runs over both modules where MLflow is the reference; where MLflow itself falls short the
test says so and runs over the core alone.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import copy
import dataclasses
import enum
import functools
import importlib
import inspect
import operator
import pickle
import subprocess
import sys
import threading
import types
import typing
import weakref
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest import mock

import cloudpickle
import mlflow_fasttrace
import pydantic
import pytest
from support.lengths import long_but

PURE, CORE = "mlflow", "mlflow_fasttrace"


@pytest.fixture(autouse=True, scope="module")
def no_traces(tmp_path_factory):
    """MLflow's own tracing is off, which leaves its wrappers as they are; the core's spans go to a
    ring that nobody reads."""
    import mlflow
    from mlflow_fasttrace._internal.recording import destination
    from support.records import spans_to_ring

    folder = tmp_path_factory.mktemp("rings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        mlflow.tracing.disable()
        spans_to_ring(folder)
        yield
        destination.reset()
        mlflow.tracing.enable()


@pytest.fixture(params=[PURE, CORE])
def trace(request):
    return importlib.import_module(request.param).trace


def plain(x: int, /, y: str = "y", *rest: float, z: bool = True, **others: dict) -> str:
    """Says it."""
    return f"{x}{y}"


async def coroutine(x: int) -> int:
    """Waits."""
    return x


def generator(n: int) -> typing.Iterator[int]:
    yield from range(n)


async def async_generator(n: int) -> typing.AsyncIterator[int]:
    for i in range(n):
        yield i


EACH_KIND = pytest.mark.parametrize(
    "function",
    [plain, coroutine, generator, async_generator],
    ids=operator.attrgetter("__name__"),
)


@EACH_KIND
def test_a_traced_callable_has_the_names_of_the_plain_one(trace, function):
    traced = trace(function)
    for name in functools.WRAPPER_ASSIGNMENTS:
        if hasattr(function, name):
            assert getattr(traced, name) == getattr(function, name), name
    assert traced.__wrapped__ is function
    assert traced.__mlflow_traced__ is True
    assert sorted(vars(traced)) == ["__mlflow_traced__", "__signature__", "__wrapped__"]
    assert repr(traced).startswith(f"<function {function.__name__} at 0x")
    assert str(traced) == repr(traced)
    assert traced.__defaults__ is None
    assert traced.__kwdefaults__ is None


@EACH_KIND
def test_inspect_sees_the_plain_callable(trace, function):
    traced = trace(function)
    assert inspect.signature(traced) == inspect.signature(function)
    assert inspect.getfullargspec(traced) == inspect.getfullargspec(function)
    assert typing.get_type_hints(traced) == typing.get_type_hints(function)
    assert inspect.unwrap(traced) is function
    assert inspect.getsource(traced) == inspect.getsource(function)
    assert inspect.getdoc(traced) == inspect.getdoc(function)
    assert inspect.getmodule(traced) is sys.modules[__name__]
    for predicate in (
        callable,
        inspect.isfunction,
        inspect.isroutine,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        asyncio.iscoroutinefunction,
        inspect.isbuiltin,
        inspect.isclass,
        inspect.ismethod,
        inspect.ismethoddescriptor,
    ):
        assert predicate(traced) == predicate(function), predicate.__name__
    assert isinstance(traced, types.FunctionType)


def test_a_traced_callable_has_what_functions_have(trace):
    def outer():
        free = 1

        @trace
        def inner(x):
            return x + free

        return inner

    traced = outer()
    again = types.FunctionType(
        traced.__code__, traced.__globals__, "again", traced.__defaults__, traced.__closure__
    )
    assert again(1) == 2
    assert traced.__call__(2) == 3
    assert traced.__get__(2)() == 3
    assert traced.__get__(None, int) is traced


@EACH_KIND
def test_a_traced_callable_takes_attributes_of_its_own(trace, function):
    traced = trace(function)
    traced.own = 1
    traced.__doc__ = "Another."
    traced.__name__ = "renamed"
    assert (traced.own, vars(traced)["own"], traced.__doc__) == (1, 1, "Another.")
    assert traced.__name__ == "renamed"
    assert function.__name__ != "renamed"
    del traced.own
    assert not hasattr(traced, "own")
    for name in ("begin", "stream", "finish", "fail", "invoke"):
        assert not hasattr(traced, name)
    assert {traced: 1}[traced] == 1
    assert traced != function


def test_attributes_of_the_function_are_seen(trace):
    def function():
        pass

    function.tool_name = "t"
    assert trace(function).tool_name == "t"


@EACH_KIND
def test_a_traced_callable_goes_with_its_last_reference(trace, function):
    traced = trace(function)
    reference = weakref.ref(traced)
    assert reference() is traced
    assert weakref.WeakKeyDictionary({traced: 1})[traced] == 1
    del traced
    assert reference() is None, "it goes with its last reference, not with the garbage collector"


def test_what_a_traced_callable_refers_to_goes_with_it(trace):
    class Large:
        pass

    def function(large):
        return lambda: large

    traced = trace(function(Large()))
    reference = weakref.ref(traced())
    assert reference() is not None
    del traced
    assert reference() is None


# ---- copying, pickling ----


@mlflow_fasttrace.trace
def by_name(x):
    return [x]


@mlflow_fasttrace.trace
async def coroutine_by_name(x):
    return [x]


@mlflow_fasttrace.trace
def generator_by_name(n):
    yield from range(n)


class Holder:
    @mlflow_fasttrace.trace
    def method(self, x):
        return [x]


@pytest.mark.parametrize("traced", [by_name, coroutine_by_name, generator_by_name, Holder.method])
def test_a_traced_callable_is_pickled_and_copied_by_name(traced):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        if protocol >= 4 or "." not in traced.__qualname__:
            assert pickle.loads(pickle.dumps(traced, protocol)) is traced
    assert pickle.loads(pickle._dumps(traced)) is traced
    assert cloudpickle.loads(cloudpickle.dumps(traced)) is traced
    assert copy.copy(traced) is traced
    assert copy.deepcopy(traced) is traced
    assert copy.deepcopy({"f": [traced]})["f"][0] is traced
    assert pickle.loads(pickle.dumps(functools.partial(traced, 1))).func is traced


def test_a_bound_method_can_be_pickled():
    assert pickle.loads(pickle.dumps(Holder().method))(1) == [1]


def test_a_local_function_cannot_be_pickled(trace):
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(trace(lambda: 1))


def test_cloudpickle_copies_a_traced_callable_by_value(trace):
    """cloudpickle takes what cannot be imported by value, as notebooks and model logging need."""

    @trace(name="n", attributes={"a": 1})
    def local(x, y=2):
        return x + y

    @trace
    async def local_coroutine(x):
        return x

    @trace
    def local_generator(n):
        got = yield n
        return got

    @trace
    async def local_async_generator(n):
        yield n

    class Model:
        @trace
        def predict(self, x):
            """Predicts."""
            return x

        @classmethod
        @trace
        def make(cls):
            return cls()

    def round_trip(value):
        return cloudpickle.loads(cloudpickle.dumps(value))

    again = round_trip(local)
    assert again is not local
    assert again(1) == 3
    assert round_trip(again)(1, y=1) == 2
    assert again.__name__ == "local"
    assert inspect.signature(again) == inspect.signature(local)
    assert inspect.isfunction(again)
    assert asyncio.run(round_trip(local_coroutine)(1)) == 1
    assert inspect.iscoroutinefunction(round_trip(local_coroutine))
    assert list(round_trip(local_generator)(1)) == [1]

    async def collect():
        return [item async for item in round_trip(local_async_generator)(1)]

    assert asyncio.run(collect()) == [1]
    copied = round_trip(Model)
    assert copied.make().predict(5) == 5
    assert copied.predict.__doc__ == "Predicts."


BY_VALUE = """
import sys
import cloudpickle
{imports}

@mlflow.trace
def traced(x):
    return [x]

class Model:
    @mlflow.trace
    def predict(self, x):
        return {{"x": x}}

sys.stdout.buffer.write(cloudpickle.dumps((traced, Model())))
"""


@pytest.mark.parametrize("module", long_but([CORE], [PURE, CORE]))
def test_what_a_script_defines_is_copied_into_another_process(run_program, tmp_path, module):
    """What a script or a notebook defines has to arrive where it is not defined."""
    script = tmp_path / "script.py"
    script.write_text(BY_VALUE.format(imports=f"import {module} as mlflow"))
    data = subprocess.run(
        [sys.executable, script], capture_output=True, check=True, cwd=tmp_path
    ).stdout
    (tmp_path / "copied.pickle").write_bytes(data)
    process = run_program(
        "import pickle\n"
        "traced, model = pickle.load(open('copied.pickle', 'rb'))\n"
        "print(traced(1), model.predict(2), traced.__name__)\n",
        MLFLOW_FASTTRACE_SENDER="none",
    )
    assert process.out == "[1] {'x': 2} traced\n", process.err


def test_traced_callables_run_in_another_process():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(by_name, 1).result() == [1]
        assert pool.submit(Holder().method, 2).result() == [2]


# ---- classes ----


def test_traced_methods_are_methods(trace):
    class Base:
        registered: list = []

        def __init_subclass__(cls, **options):
            super().__init_subclass__()
            Base.registered.append((cls.__name__, options))

        @trace
        def method(self, x=1):
            """Doc."""
            return ("base", x)

        @trace
        @classmethod
        def of_class(cls):
            return cls

        @staticmethod
        @trace
        def static(x):
            return x

    class Child(Base, option=1):
        @trace
        def method(self, x=1):
            return ("child", super().method(x))

    child = Child()
    assert child.method(2) == ("child", ("base", 2))
    assert Base.method(child) == ("base", 1)
    assert Child.of_class() is Child
    assert child.of_class() is Child
    assert child.static(1) == Child.static(1) == 1
    assert operator.attrgetter("method")(child)(3) == ("child", ("base", 3))
    assert operator.methodcaller("method", 3)(child) == ("child", ("base", 3))
    assert child.method == child.method
    assert child.method.__self__ is child
    assert child.method.__func__ is Child.__dict__["method"]
    assert Base().method.__doc__ == "Doc."
    assert inspect.ismethod(child.method)
    assert str(inspect.signature(child.method)) == "(x=1)"
    assert [name for name, _ in inspect.getmembers(Child, inspect.isfunction)] == [
        "method",
        "static",
    ]
    assert Base.registered == [("Child", {"option": 1})]
    assert weakref.WeakMethod(child.method)()(1) == ("child", ("base", 1))


def test_new_init_subclass_and_class_getitem_may_be_traced(trace):
    class Base:
        seen: list = []

        @trace
        def __new__(cls, x=0):
            made = super().__new__(cls)
            made.x = x
            return made

        @trace
        def __init_subclass__(cls, **options):
            super().__init_subclass__()
            Base.seen.append((cls.__name__, options))

        @trace
        def __class_getitem__(cls, item):
            return (cls.__name__, item)

    class Child(Base, k=1):
        pass

    assert Base.seen == [("Child", {"k": 1})]
    assert Child[int] == ("Child", int)
    assert Child(3).x == 3


def test_special_methods_may_be_traced():
    """MLflow asks bool(self), which is a traced call of __len__, which asks bool(self)."""
    trace = mlflow_fasttrace.trace

    class Thing:
        @trace
        def __init__(self, items):
            self.items = items

        @trace
        def __len__(self):
            return len(self.items)

        @trace
        def __getitem__(self, index):
            return self.items[index]

        @trace
        def __eq__(self, other):
            return self.items == other.items

        @trace
        def __enter__(self):
            return self

        @trace
        def __exit__(self, *error):
            return True

        @trace
        def __call__(self, x):
            return x

        @trace
        def __iter__(self):
            yield from self.items

        @trace
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return name

    thing = Thing([1, 2])
    assert (len(thing), thing[0], list(thing), thing(5), thing.other) == (2, 1, [1, 2], 5, "other")
    assert thing == Thing([1, 2])
    with thing as entered:
        assert entered is thing
        raise ValueError("swallowed by __exit__")


def test_traced_methods_serve_abstract_classes_and_protocols(trace):
    class Base(abc.ABC):
        @trace
        @abc.abstractmethod
        def under(self): ...

        @abc.abstractmethod
        @trace
        def over(self): ...

    assert Base.__abstractmethods__ == {"under", "over"}
    with pytest.raises(TypeError, match="abstract"):
        Base()

    class Child(Base):
        @trace
        def under(self):
            return 1

        @trace
        def over(self):
            return 2

    assert Child().under() + Child().over() == 3

    @typing.runtime_checkable
    class Overs(typing.Protocol):
        def over(self): ...

    assert isinstance(Child(), Overs)
    assert not isinstance(object(), Overs)


def test_traced_methods_serve_dataclasses_enums_and_slots(trace):
    @dataclasses.dataclass(frozen=True, slots=True)
    class Point:
        x: int

        @trace
        def doubled(self):
            return self.x * 2

    class Color(enum.Enum):
        RED = 1

        @trace
        def shown(self):
            return self.name.lower()

    assert Point(2).doubled() == 4
    assert list(Color) == [Color.RED]
    assert Color.RED.shown() == "red"


def test_functools_works_over_a_traced_callable(trace):
    @functools.lru_cache
    @trace
    def cached(x):
        return [x]

    @functools.singledispatch
    @trace
    def dispatched(x):
        return "any"

    @dispatched.register
    @trace
    def _(x: int):
        return "int"

    class Thing:
        @functools.cached_property
        @trace
        def once(self):
            """Doc."""
            return object()

        @property
        @trace
        def shown(self):
            """Doc."""
            return 1

        method = functools.partialmethod(trace(lambda self, a, b: (a, b)), 1)

        @functools.singledispatchmethod
        @trace
        def by_type(self, x):
            return "any"

        @by_type.register
        @trace
        def _(self, x: int):
            return "int"

    thing = Thing()
    assert cached(1) is cached(1)
    assert cached.__wrapped__.__name__ == "cached"
    assert (dispatched(""), dispatched(1)) == ("any", "int")
    assert thing.once is thing.once
    assert Thing.once.__doc__ == Thing.shown.__doc__ == "Doc."
    assert (thing.shown, thing.method(2)) == (1, (1, 2))
    assert (thing.by_type(""), thing.by_type(1)) == ("any", "int")
    assert functools.partial(trace(plain), 1)("z") == "1z"
    assert functools.reduce(trace(operator.add), [1, 2, 3]) == 6


def test_functools_works_under_trace(trace):
    @trace
    @functools.lru_cache
    def cached(x):
        return [x]

    @trace
    @functools.singledispatch
    def dispatched(x):
        return "any"

    dispatched.register(int, lambda x: "int")
    assert cached(1) is cached(1)
    assert (dispatched(""), dispatched(1)) == ("any", "int")


def test_descriptors_work_under_trace():
    """MLflow makes methods of them: reading the attribute no longer gives its value."""
    trace = mlflow_fasttrace.trace

    class Thing:
        def __init__(self):
            self.value = 1

        @trace
        @property
        def shown(self):
            """Doc."""
            return self.value

        @shown.setter
        def shown(self, value):
            self.value = value

        @trace
        @functools.cached_property
        def once(self):
            return object()

        method = trace(functools.partialmethod(lambda self, a, b: (a, b), 1))

        @trace
        @functools.singledispatchmethod
        def by_type(self, x):
            return "any"

        @by_type.register
        def _(self, x: int):
            return "int"

    thing = Thing()
    thing.shown = 2
    assert (thing.shown, Thing.shown.__doc__) == (2, "Doc.")
    assert thing.once is thing.once
    assert thing.method(2) == (1, 2)
    assert (thing.by_type(""), thing.by_type(1)) == ("any", "int")


def test_callables_without_a_name_may_be_traced():
    """MLflow raises AttributeError at their first call."""
    trace = mlflow_fasttrace.trace

    class Sync:
        stream = True

        def __init__(self):
            self.finish = "an attribute that means something to the program"

        def __call__(self, x):
            return x

    class Async:
        async def __call__(self, x):
            await asyncio.sleep(0)
            return x

    class Items:
        def __call__(self, n):
            yield from range(n)

    assert trace(Sync())(1) == 1
    assert trace(Sync()).finish.startswith("an attribute")
    assert (trace(Sync()).__name__, trace(Async()).__qualname__) == ("Sync", "Async")
    assert asyncio.run(trace(Async())(1)) == 1
    assert list(trace(Items())(2)) == [0, 1]
    assert list(trace(Items(), output_reducer=list)(2)) == [0, 1]
    partial = trace(functools.partial(coroutine, 5))
    assert inspect.iscoroutinefunction(partial)
    assert partial.__name__ == "coroutine"
    assert asyncio.run(partial()) == 5
    assert list(trace(functools.partial(generator, 2))()) == [0, 1]
    assert trace(operator.itemgetter(1))([0, 1]) == 1
    assert trace(operator.methodcaller("upper"))("a") == "A"
    assert trace(mock.Mock(return_value=3))() == 3


def test_a_signature_that_raises_is_no_obstacle():
    """MLflow looks for it at every call, and guards that; here it is read at decoration."""

    class Odd:
        @property
        def __signature__(self):
            raise RuntimeError("no signature")

        def __call__(self, x):
            return x

    assert mlflow_fasttrace.trace(Odd())(1) == 1


def test_a_traced_awaitable_generator_can_be_awaited():
    """MLflow's wrapper can no longer be awaited."""

    @mlflow_fasttrace.trace
    @types.coroutine
    def switch():
        yield
        return 1

    async def main():
        return await switch()

    assert asyncio.run(main()) == 1


# ---- other people's tools ----


def test_pydantic_validates_calls_over_and_under_trace(trace):
    @pydantic.validate_call
    @trace
    def over(x: int) -> int:
        return x

    @trace
    @pydantic.validate_call
    def under(x: int) -> int:
        return x

    @pydantic.validate_call
    @trace
    async def over_coroutine(x: int) -> int:
        return x

    assert over("1") == under("1") == 1
    assert asyncio.run(over_coroutine("1")) == 1
    for validated in (over, under):
        with pytest.raises(pydantic.ValidationError):
            validated("a")


def test_methods_of_a_pydantic_model_may_be_traced(trace):
    class Model(pydantic.BaseModel):
        name: str

        @trace
        def shout(self, mark="!"):
            return self.name.upper() + mark

        @trace
        async def later(self):
            return self.name

        @pydantic.field_validator("name")
        @classmethod
        @trace
        def _checked(cls, value):
            return value.strip()

        @pydantic.model_validator(mode="after")
        @trace
        def _whole(self):
            return self

        @pydantic.computed_field
        @property
        @trace
        def size(self) -> int:
            return len(self.name)

    model = Model(name=" m ")
    assert model.shout("?") == "M?"
    assert asyncio.run(model.later()) == "m"
    assert model.model_dump() == {"name": "m", "size": 1}
    assert list(Model.model_fields) == ["name"]


def test_mocks_have_the_signature_of_a_traced_callable(trace):
    traced = trace(plain)
    fake = mock.create_autospec(traced, return_value="fake")
    assert fake(1) == "fake"
    with pytest.raises(TypeError):
        fake()
    with mock.patch.object(sys.modules[__name__], "by_name", autospec=True) as patched:
        by_name(1)
        with pytest.raises(TypeError):
            by_name(1, 2, 3)
    patched.assert_called_once_with(1)

    class Thing:
        @trace
        def method(self, x):
            return x

    spec = mock.create_autospec(Thing)
    spec().method(1)
    with pytest.raises(TypeError):
        spec().method()
    assert asyncio.run(mock.create_autospec(trace(coroutine), return_value=5)(1)) == 5


def test_threads_and_executors_run_traced_callables(trace):
    got = []
    thread = threading.Thread(target=trace(got.append), args=(1,))
    thread.start()
    thread.join()
    assert got == [1]
    assert asyncio.run(asyncio.to_thread(trace(plain), 1)) == "1y"


def test_traced_callables_may_be_wrapped_again(trace):
    def logged(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            return function(*args, **kwargs)

        return call

    twice = trace(trace(plain))
    assert twice(1) == "1y"
    assert twice.__wrapped__.__wrapped__ is plain
    assert inspect.unwrap(twice) is plain
    assert logged(trace(plain))(1) == "1y"
    assert logged(trace(plain)).__wrapped__.__wrapped__ is plain
    assert inspect.signature(trace(logged(trace(plain)))) == inspect.signature(plain)
    assert logged(trace(plain)).__mlflow_traced__


def test_context_managers_may_be_made_of_traced_generators(trace):
    @contextlib.contextmanager
    @trace
    def managed(x):
        yield x

    @contextlib.asynccontextmanager
    @trace
    async def managed_later(x):
        yield x

    async def main():
        async with managed_later(2) as value:
            return value

    with managed(1) as value:
        assert value == 1
    assert asyncio.run(main()) == 2


def test_fastapi_serves_traced_callables(trace):
    from fastapi import Depends, FastAPI
    from fastapi.responses import StreamingResponse
    from fastapi.testclient import TestClient

    app = FastAPI()

    @trace
    def setting(q: int = 1) -> int:
        return q

    @trace
    async def later(q: int = 1) -> int:
        return q + 1

    @trace
    def opened():
        yield "open"

    @trace
    async def opened_later():
        yield "open later"

    class Checks:
        @trace
        def __call__(self, q: int = 1) -> int:
            return q * 10

    @app.get("/sync/{x}")
    @trace
    def sync(
        x: int,
        a: int = Depends(setting),
        b: int = Depends(later),
        c: str = Depends(opened),
        d: str = Depends(opened_later),
        e: int = Depends(Checks()),
    ) -> list:
        """Shown in the schema."""
        return [x, a, b, c, d, e]

    @app.get("/async/{x}")
    @trace
    async def asynchronous(x: int) -> int:
        return x

    @trace
    def parts(n):
        for i in range(n):
            yield f"{i};"

    @trace
    async def parts_later(n):
        for i in range(n):
            await asyncio.sleep(0)
            yield f"{i};"

    @app.get("/stream")
    def stream():
        return StreamingResponse(parts(5))

    @app.get("/stream-later")
    async def stream_later():
        return StreamingResponse(parts_later(5))

    with TestClient(app) as client:
        assert client.get("/sync/7?q=3").json() == [7, 3, 4, "open", "open later", 30]
        assert client.get("/sync/seven").status_code == 422
        assert client.get("/async/8").json() == 8
        assert client.get("/stream").text == client.get("/stream-later").text == "0;1;2;3;4;"
        route = client.get("/openapi.json").json()["paths"]["/sync/{x}"]["get"]
    assert route["description"] == "Shown in the schema."
    assert route["summary"] == "Sync"
    assert [parameter["name"] for parameter in route["parameters"]] == ["x", "q"]
