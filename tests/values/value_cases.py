"""Values that programs give to spans: a table that several tests go through.

A factory makes its value anew at every call, so that both sides see one that nobody has read yet.
Libraries are imported by the factories that need them. Run as a script it records each value as a
trace of its own:  value_cases.py MODULE URI EXPERIMENT
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import importlib
import io
import json
import math
import pathlib
import re
import sys
import types
import uuid
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

#: The depth to which values are encoded: MAX_DEPTH of the core's encode.c.
MAX_DEPTH = 900

_UNSET: Any = object()


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], Any]
    #: The reason why MLflow's ``set_attribute`` raises into the program; ``kept`` is the core's value.
    breaks: str = ""
    #: The reason why MLflow's ``set_inputs`` and ``set_outputs`` raise: they copy lists, tuples and
    #: dicts first.
    breaks_inputs: str = ""
    #: The reason why inputs and outputs are not compared: MLflow shows the copy's repr, not the value's.
    copied: str = ""
    #: The reason why a request of spans cannot carry the value, though it reads back: the trace travels
    #: as a file, or ``arrives`` is what comes of it. (MLflow's whole batch fails; a lone trace is a file.)
    off_the_wire: str = ""
    #: The value that reads back, where it is not MLflow's.
    kept: Any = _UNSET
    #: The value on the server, where it is not the one that reads back.
    arrives: Any = _UNSET
    #: False where json.dumps of this version of Python gives something else than ``kept``.
    same_json: bool = True

    @property
    def has_arrival(self) -> bool:
        return self.arrives is not _UNSET

    @property
    def delivered(self) -> Any:
        """The value that must arrive where MLflow raises or sends no spans."""
        return self.kept if self.arrives is _UNSET else self.arrives


CASES: dict[str, Case] = {}


def case(name: str, make: Callable[[], Any], **details: Any) -> None:
    assert name not in CASES
    CASES[name] = Case(name, make, **details)


def made(name: str, **details: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def add(make: Callable[[], Any]) -> Callable[[], Any]:
        case(name, make, **details)
        return make

    return add


# ---- JSON ----

case("none", lambda: None)
case("booleans", lambda: [True, False])
case("small integers", lambda: [0, -1, 1, 127, 128, 255, 256, -32, -33, -128, -129, 65535, 65536])
case("integers at 32 bits", lambda: [2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32])
case("integers at 53 bits", lambda: [2**53, 2**53 + 1, -(2**53) - 1])
case("integers at 63 bits", lambda: [2**63 - 1, -(2**63)])
BEYOND = "protobuf holds 64 bits"
case("integer of 64 bits", lambda: 2**64 - 1, off_the_wire=BEYOND)
case("integer of 65 bits", lambda: 2**64, off_the_wire=BEYOND)
case(
    "negative integer of 65 bits",
    lambda: {"n": [-(2**63) - 1]},
    off_the_wire=BEYOND,
)
case("integer of 300 digits", lambda: 10**299, off_the_wire=BEYOND)
_DIGITS = "int() refuses so many digits"
case(
    "integer of 5,000 digits",
    lambda: {"n": 1 << 17000, "next": "to it"},
    breaks=_DIGITS,
    breaks_inputs=_DIGITS,
    kept={"n": hex(1 << 17000), "next": "to it"},
)
case("floats", lambda: [0.0, -0.0, 1.0, 1.5, 0.1, 1e22, 1e16, 1e-7, 5e-324, math.pi, 1e308])
case("nan", lambda: math.nan)
case("infinities", lambda: {"plus": math.inf, "minus": -math.inf, "list": [math.nan, math.inf]})
case("empty text", lambda: "")
case("texts", lambda: ["ünï ☃ 𝄞", "\u2028\u2029\ufeff", "עברית", "é" * 200])
case("control characters", lambda: "".join(map(chr, range(32))) + '"\\/\x7f\x80\x9f')
case("text with NUL", lambda: ["\x00", "a\x00b", {"k\x00": "\x00v"}])
case("text that is an object", lambda: '{"a": 1}')
case("texts that are JSON", lambda: ["[1, 2]", "12", "null", "true", '"quoted"', "1e3", "NaN"])
case("text that is a broken object", lambda: '{"a": ')
case("5 MB of text", lambda: "0123456789abcdef" * (5 << 16))
case("1 MB that is not ASCII", lambda: {"text": "né☃𝄞" * 100_000})
case("lone surrogates", lambda: ["\ud800", "a\udfffb", "\udfff\ud800"])
case("surrogate pair as two", lambda: "\ud83d\ude00")
case("lone surrogate as a key", lambda: {"a\udc80": 1})
case("empty containers", lambda: [[], {}, (), [[]], {"": {}}])
case("nested containers", lambda: {"a": {"b": [{"c": [1, [2, [3]]]}]}})
case("many items", lambda: list(range(70_000)))
case("many keys", lambda: {f"k{i}": i for i in range(20)})
case("a list twice", lambda: (lambda shared: [shared, shared, {"again": shared}])([1]))
case("tuples", lambda: (1, (2, (3,)), []))
case(
    "chat",
    lambda: {
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "what?"}]},
        ],
        "temperature": 0.2,
        "tools": None,
    },
)

# ---- keys ----


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Flags(enum.IntFlag):
    A = 1
    B = 2


class Word(str, enum.Enum):
    ONE = "one"


case("keys of all kinds", lambda: {7: "i", 2.5: "f", True: "b", None: "n", "s": "s"})
case("keys: floats", lambda: {math.nan: 1, math.inf: 2, -math.inf: 3, -0.0: 4, 1e22: 5, 1e-7: 6})
case("keys: false and big", lambda: {False: 1, 2**70: 2, -(2**70): 3})
case("keys: duplicates", lambda: {1: "a", "1": "b", 2: "c", None: "d", "null": "e"})
case("keys: enums that are JSON", lambda: {Level.HIGH: 1, Word.ONE: 2})
case("keys: empty", lambda: {"": 1})
case("keys: 300 characters", lambda: {"k" * 300: 1, "é" * 300: 2})
case("key: tuple", lambda: {(1, 2): "t"})
case("key: enum", lambda: {Color.RED: "e"})
case("key: bytes", lambda: {b"k": 1})
case("key: frozenset, deep inside", lambda: {"a": [{"b": {frozenset({1}): 2}}]})
case("key: date", lambda: {datetime.date(2026, 1, 2): 1, "s": 2})
case("key: type", lambda: {int: 1})
case(
    "bad key beside a tuple",
    lambda: {("k",): (1, 2)},
    copied="the tuple shows as a list",
)
case(
    "key of 5,000 digits",
    lambda: {1 << 17000: "v"},
    breaks=_DIGITS,
    breaks_inputs=_DIGITS,
    kept={hex(1 << 17000): "v"},
)

# ---- the standard library ----


class Pair(NamedTuple):
    left: Any
    right: Any


case("bytes", lambda: [b"abc", b"\xff\x00", bytearray(b"x"), b""])
case("memoryview", lambda: memoryview(b"abc"))
case("sets", lambda: [{1}, frozenset({2}), set(), frozenset(), {"a"}])
case("named tuple", lambda: Pair(1, Pair("a", None)))
case("enums", lambda: [Color.RED, Level.HIGH, Flags.A | Flags.B, Word.ONE])
case(
    "dates",
    lambda: [
        datetime.date(2026, 1, 2),
        datetime.datetime(2026, 1, 2, 3, 4, 5, 678),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        datetime.time(1, 2),
        datetime.timedelta(days=1, seconds=2.5),
        datetime.timezone(datetime.timedelta(hours=2)),
    ],
)
case("decimals", lambda: [decimal.Decimal("1.10"), decimal.Decimal("NaN"), decimal.Decimal("1E+9")])
case("fraction", lambda: fractions.Fraction(1, 3))
case("complex", lambda: [1 + 2j, complex(0, math.inf)])
case("uuid", lambda: uuid.UUID(int=5))
case(
    "paths",
    lambda: [pathlib.PurePosixPath("/a/b"), pathlib.Path("c"), pathlib.PureWindowsPath("d")],
)
case("range", lambda: range(1, 9, 2))
case("slice", lambda: slice(1, None, 2))
case("ellipsis", lambda: [..., NotImplemented])
case("generator", lambda: (i for i in range(3)))
case("iterators", lambda: [iter([1]), iter({}), map(str, [1]), zip([1]), enumerate([1])])
case("file", lambda: io.StringIO("not read"))
case("regular expression", lambda: [re.compile("a+"), re.match("a", "a")])
case("exceptions", lambda: [ValueError("v"), KeyError("k"), OSError(2, "no"), Exception()])
case("functions", lambda: [len, case, print, [].append])
case("lambda", lambda: lambda: 1)
case("partial", lambda: functools.partial(int, "3"))
case("types", lambda: [int, Case, list[int], type(None), Color])
case("module", lambda: [sys, json])
case("namespace", lambda: types.SimpleNamespace(a=1, b=[2]))
case("ordered dict", lambda: collections.OrderedDict([("z", 1), ("a", (2,))]))
case("default dict", lambda: collections.defaultdict(list, {"a": [1]}))
case("counter", lambda: collections.Counter("abca"))
case("chain map", lambda: collections.ChainMap({"a": 1}, {"b": 2}))
case("mapping proxy", lambda: types.MappingProxyType({"a": 1}))
case(
    "user types",
    lambda: [collections.UserDict(a=1), collections.UserList([1]), collections.UserString("s")],
)
case("deque", lambda: collections.deque([1, 2], maxlen=3))
case("views of a dict", lambda: [{"a": 1}.keys(), {"a": 1}.values(), {"a": 1}.items()])

# ---- subclasses of what JSON knows ----


def fresh(error: BaseException) -> BaseException:
    """One without a traceback, which would keep the frames that it passed."""
    return type(error)(*error.args)


class Text(str):
    def __str__(self):
        return "not the content"

    __repr__ = __str__


class Number(int):
    def __repr__(self):
        return "not the number"

    __str__ = __repr__


class Real(float):
    def __repr__(self):
        return "not the float"

    __str__ = __repr__


class Items(list):
    def __iter__(self):
        return iter(["iterated"])

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return "indexed"

    def __repr__(self):
        return "not the items"


class Row(tuple):
    __slots__ = ()

    def __iter__(self):
        return iter(["iterated"])


class RaisingRow(tuple):
    __slots__ = ()

    def __iter__(self):
        raise fresh(self[1])


class RaisingItems(list):
    def __iter__(self):
        yield 1
        raise RuntimeError("no")


class EndlessItems(list):
    """Not in the table: json.dumps never comes back."""

    def __iter__(self):
        while True:
            yield 1


class Upper(dict):
    def items(self):
        return [(str(key).upper(), value) for key, value in super().items()]


class PairsOfLists(dict):
    def items(self):
        return [["a", 1]]


class Raising(dict):
    """items() raises; the rest is a dict's."""

    def __init__(self, error: BaseException):
        super().__init__(own=1)
        self.error = error

    def items(self):
        raise fresh(self.error)


case("str subclass", lambda: [Text("content"), {Text("key"): 1}])
case("int subclass", lambda: [Number(7), {Number(8): 1}])
case("float subclass", lambda: [Real(1.5), {Real(2.5): 1}])
case("list subclass", lambda: Items([1, 2]))
case("tuple subclass", lambda: Row((1, 2)))
case("dict subclass with items()", lambda: Upper(a=1, b=[Upper(c=2)]))
case("dict subclass whose items are lists", lambda: PairsOfLists(x=2), copied="they unpack")
case(
    "dict subclass: items() raises ValueError",
    lambda: Raising(ValueError("no")),
    breaks_inputs="the copy raises",
)
case(
    "dict subclass: items() raises RuntimeError",
    lambda: {"d": Raising(RuntimeError("no"))},
    breaks="only ValueError and TypeError are caught",
    breaks_inputs="only ValueError and TypeError are caught",
    kept={"d": {"own": 1}},
)
case("list subclass in a list", lambda: [Items()])
case(
    "tuple subclass: __iter__ raises TypeError",
    lambda: [RaisingRow((1, TypeError("no")))],
    copied="it raises",
)
case(
    "tuple subclass: __iter__ raises RuntimeError",
    lambda: [RaisingRow((1, RuntimeError("no")))],
    breaks="only ValueError and TypeError are caught",
    breaks_inputs="only ValueError and TypeError are caught",
    kept=[[1, "no"]],
)
case(
    "list subclass: __iter__ raises in the middle",
    lambda: {"list": RaisingItems([1, 2])},
    breaks="only ValueError and TypeError are caught",
    breaks_inputs="only ValueError and TypeError are caught",
    kept={"list": [1, 2]},
)
case("empty dict subclass", lambda: Upper())

# ---- dataclasses ----


@dataclasses.dataclass
class Point:
    x: int
    inner: object = None

    def __str__(self):
        return "not the fields"


@dataclasses.dataclass(frozen=True)
class Frozen:
    pair: tuple = (1, 2)
    hidden: str = dataclasses.field(default="h", repr=False)


@dataclasses.dataclass
class Slotted:
    __slots__ = ("a",)
    a: int


@dataclasses.dataclass
class Half:
    """One field is never set, so the fields cannot be read."""

    a: int
    b: int = dataclasses.field(init=False)

    def __repr__(self):
        return "half of it"


@dataclasses.dataclass
class Defaults:
    a: int = 1


class Plain:
    def __str__(self):
        return "a plain object"


class OnlyRepr:
    def __repr__(self):
        return "only a repr"


class Bare:
    pass


case("dataclass", lambda: Point(1, Point(2, [Plain(), (3,)])))
case("dataclass: frozen, slots", lambda: [Frozen(), Slotted(1)])
case("dataclass: empty", lambda: dataclasses.make_dataclass("Empty", [])())
case("dataclass: field without a value", lambda: [Half(1)])
case("dataclass: its class", lambda: [Defaults, Point])
case("dataclass: bad key in a field", lambda: Point({(1,): 2}))
case("objects", lambda: [Plain(), OnlyRepr(), Bare(), object()])

# ---- pydantic ----


@functools.cache
def models() -> types.SimpleNamespace:
    import pydantic

    kind = TypeVar("kind")

    class Inner(pydantic.BaseModel):
        n: int = 1
        when: datetime.date = datetime.date(2026, 1, 2)

    class Outer(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True)

        name: str = pydantic.Field(alias="fullName")
        inner: Inner = Inner()
        inners: list[Inner] = []
        by_key: dict[int, Inner] = {}
        anything: Any = None
        secret: pydantic.SecretStr = pydantic.SecretStr("hidden")
        left_out: str = pydantic.Field("x", exclude=True)
        _private: int = 3

        @pydantic.computed_field
        @property
        def length(self) -> int:
            return len(self.name)

    class Box(pydantic.BaseModel, Generic[kind]):
        content: kind

    class Numbers(pydantic.RootModel[list[int]]):
        pass

    class Mapped(pydantic.RootModel[dict[str, Inner]]):
        pass

    class OwnDump(pydantic.BaseModel):
        def model_dump(self, **_):
            return ("dumped", Plain())

    class Raises(pydantic.BaseModel):
        error: Any = None
        n: int = 1

        def model_dump(self, **_):
            raise fresh(self.error)

    class Node(pydantic.BaseModel):
        next: Any = None

    class Urls(pydantic.BaseModel):
        url: pydantic.HttpUrl = pydantic.HttpUrl("http://example.com/")
        color: Color = Color.RED
        raw: bytes = b"\xff"
        number: decimal.Decimal = decimal.Decimal("1.5")
        items: set[int] = {1}

    @pydantic.dataclasses.dataclass
    class Data:
        a: int = 1

    return types.SimpleNamespace(**locals())


case(
    "pydantic",
    lambda: models().Outer(fullName="m", inners=[{"n": 2}], by_key={3: {"n": 4}}, more=5),
)
case(
    "pydantic: deep content",
    lambda: models().Outer(fullName="m", anything=[Plain(), Point(1, models().Inner())]),
)
case("pydantic: types", lambda: models().Urls())
case(
    "pydantic: generic",
    lambda: [models().Box[int](content=1), models().Box(content={"a": models().Inner()})],
)
case("pydantic: root models", lambda: [models().Numbers([1, 2]), models().Mapped({"a": {"n": 2}})])
case("pydantic: own model_dump", lambda: models().OwnDump())
case("pydantic: class", lambda: models().Inner)
case(
    "pydantic: secrets",
    lambda: [models().pydantic.SecretStr("s"), models().pydantic.SecretBytes(b"s")],
)
case("pydantic: dataclass", lambda: models().Data(a=2))
case("pydantic: constructed", lambda: models().Inner.model_construct(n="not checked"))
case(
    "pydantic: computed field raises",
    lambda: [models().Outer.model_construct(), 1],
    breaks="only ValueError and TypeError are caught",
    breaks_inputs="only ValueError and TypeError are caught",
    kept=["<unprintable Outer object>", 1],
)
case("pydantic: bad key", lambda: models().Node(next={(1,): 2}))
case("pydantic: model_dump raises ValueError", lambda: models().Raises(error=ValueError("no")))


@made(
    "pydantic: model_dump raises RuntimeError",
    breaks="only ValueError and TypeError are caught",
    breaks_inputs="only ValueError and TypeError are caught",
    kept=["Raises(error=RuntimeError('no'), n=1)", "next"],
)
def _():
    return [models().Raises(error=RuntimeError("no")), "next"]


@made("pydantic: validation error")
def _():
    try:
        models().Inner(n="x")
    except ValueError as error:
        return error


@made("pydantic: cycle")
def _():
    node = models().Node()
    node.next = node
    return node


# ---- other libraries ----


@made("numpy: scalars")
def _():
    import numpy as np

    return [
        np.float64(1.5), np.float32(0.1), np.float64("nan"), np.int64(3), np.uint8(4),
        np.bool_(True), np.str_("s"), np.bytes_(b"b"), np.complex128(1j),
        np.datetime64("2026-01-02"), np.timedelta64(3, "s"),
    ]  # fmt: skip


@made("numpy: arrays")
def _():
    import numpy as np

    return {
        "one": np.arange(3), "two": np.zeros((2, 2)), "none": np.array([]),
        "zero": np.array(5), "long": np.arange(5000), "objects": np.array([Plain(), "s"]),
    }  # fmt: skip


@made("numpy: keys that are JSON")
def _():
    import numpy as np

    return {np.float64(1.5): 1, np.str_("s"): 2}


@made("numpy: key that is not")
def _():
    import numpy as np

    return {np.int64(1): 1}


@made("pandas")
def _():
    import pandas as pd

    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    return {
        "frame": frame, "series": frame["a"], "index": frame.index, "time": pd.Timestamp(0),
        "delta": pd.Timedelta("1s"), "nat": pd.NaT, "na": pd.NA, "empty": pd.DataFrame(),
        "long": pd.DataFrame({"n": range(500)}), "category": pd.Categorical(["a"]),
    }  # fmt: skip


@made("langchain: messages")
def _():
    from langchain_core.messages import (
        AIMessage,
        AIMessageChunk,
        HumanMessage,
        SystemMessage,
        ToolMessage,
    )

    return [
        SystemMessage("be kind"),
        HumanMessage([{"type": "text", "text": "hé"}], id="h"),
        AIMessage(
            "a",
            tool_calls=[{"name": "t", "args": {"x": 1}, "id": "1"}],
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        ),
        AIMessageChunk("c"),
        ToolMessage("r", tool_call_id="1", artifact=Plain()),
    ]


@made("langchain: documents, prompts, results")
def _():
    from langchain_core.documents import Document
    from langchain_core.messages import AIMessage
    from langchain_core.outputs import ChatGeneration, LLMResult
    from langchain_core.prompt_values import StringPromptValue

    return {
        "documents": [Document("text", metadata={"source": pathlib.PurePosixPath("/a")})],
        "prompt": StringPromptValue(text="p"),
        "result": LLMResult(generations=[[ChatGeneration(message=AIMessage("a"))]]),
    }


@made("openai: chat completion")
def _():
    from openai.types.chat import ChatCompletion

    return ChatCompletion.model_validate(
        {
            "id": "c-1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{
                "index": 0, "finish_reason": "stop", "logprobs": None,
                "message": {"role": "assistant", "content": "hé", "refusal": None},
            }],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        }
    )  # fmt: skip


@made("openai: chunk, embedding, not given")
def _():
    from openai import NOT_GIVEN
    from openai.types import CreateEmbeddingResponse
    from openai.types.chat import ChatCompletionChunk

    chunk = {
        "id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"content": "t"}, "finish_reason": None}],
    }  # fmt: skip
    embedding = {
        "object": "list", "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1},
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -1e-7]}],
    }  # fmt: skip
    return [
        ChatCompletionChunk.model_validate(chunk),
        CreateEmbeddingResponse.model_validate(embedding),
        NOT_GIVEN,
    ]


@made("mock objects", copied="the copy takes a mock of a dict for one")
def _():
    from unittest import mock

    return [mock.Mock(name="m"), mock.MagicMock(name="n", spec=dict)]


@made("mock of a pydantic model")
def _():
    from unittest import mock

    value = mock.Mock(name="m", spec=models().Inner)
    value.model_dump.return_value = {"dumped": 1}
    return value


# ---- cycles and depth ----

_RECURSION = "RecursionError"


def nested(depth: int, content: Any = 0, wrap: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    value = content
    for _ in range(depth):
        value = wrap(value)
    return value


@made("cycle: list", breaks_inputs=_RECURSION)
def _():
    value: list = [1]
    value.append(value)
    return value


@made("cycle: dict in a list in a dict", breaks_inputs=_RECURSION)
def _():
    value: dict = {"a": 1}
    value["list"] = [value]
    return {"outer": value}


@made("cycle: dataclass")
def _():
    point = Point(1)
    point.inner = point
    return point


@made(
    "cycle beside a tuple",
    breaks_inputs=_RECURSION,
    copied="the tuple shows as a list",
)
def _():
    value: list = [(1, 2)]
    value.append(value)
    return value


@made(
    "cycle whose repr raises",
    breaks="repr raises",
    breaks_inputs=_RECURSION,
    kept={"a": [1, "<unprintable Unprintable object>"], "b": "<circular reference to the dict>"},
)
def _():
    value: dict = {"a": [1, Unprintable(RuntimeError("no"))]}
    value["b"] = value
    return value


_DEEP = "protobuf's decoders stop at 100 messages"
case("30 lists deep", lambda: nested(30))
case("20 dicts deep", lambda: nested(20, 1.5, lambda inner: {"d": inner}))


def lists_on_the_wire(depth: int, content: str) -> Any:
    """Protobuf holds 43 levels of lists; of what is far deeper, the rest travels as JSON text."""
    return nested(43, "[" * (depth - 43) + content + "]" * (depth - 43))


def dicts_on_the_wire(depth: int, before: str, content: str) -> str:
    return (before + ": ") * (depth - 28) + content + "}" * (depth - 28)


case("60 lists deep", lambda: nested(60), off_the_wire=_DEEP)
case("400 lists deep", lambda: nested(400), off_the_wire=_DEEP)
case(
    "850 lists deep",
    lambda: nested(850),
    breaks_inputs=_RECURSION,
    off_the_wire=_DEEP,
    arrives=lists_on_the_wire(850, "0"),
)
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep>"
case(
    "10,000 lists deep",
    lambda: nested(10_000),
    breaks=_RECURSION,
    breaks_inputs=_RECURSION,
    kept=nested(MAX_DEPTH, f"<list {_TOO_DEEP}"),
    arrives=lists_on_the_wire(MAX_DEPTH, f'"<list {_TOO_DEEP}"'),
)
case(
    "10,000 dicts deep",
    lambda: nested(10_000, wrap=lambda inner: {"d": inner}),
    breaks=_RECURSION,
    breaks_inputs=_RECURSION,
    kept=nested(MAX_DEPTH, f"<dict {_TOO_DEEP}", lambda inner: {"d": inner}),
    arrives=nested(
        28,
        dicts_on_the_wire(MAX_DEPTH, '{"d"', f'"<dict {_TOO_DEEP}"'),
        lambda inner: {"d": inner},
    ),
)
case(
    "10,000 dataclasses deep",
    # A level for the object and one for the dict of its fields.
    lambda: nested(10_000, wrap=lambda inner: Point(1, inner)),
    breaks=_RECURSION,
    breaks_inputs=_RECURSION,
    kept=nested(MAX_DEPTH // 2, f"<object {_TOO_DEEP}", lambda inner: {"x": 1, "inner": inner}),
)


class Endless:
    """Another object stands for it, every time."""

    @property
    def __class__(self):
        return models().Inner

    def model_dump(self):
        return Endless()


case(
    "stand-ins without an end",
    lambda: [Endless()],
    breaks=_RECURSION,
    breaks_inputs=_RECURSION,
    kept=[f"<object {_TOO_DEEP}"],
)

# ---- objects whose own code raises ----

_OTHERS = "only ValueError and TypeError are caught"


class Unprintable:
    def __init__(self, error: BaseException):
        self.error = error

    def __str__(self):
        raise fresh(self.error)

    __repr__ = __str__


class NoStr(Unprintable):
    def __repr__(self):
        return "its repr"


class Hostile:
    """Everything that can be asked of it, but its text, raises."""

    def _no(self, *_):
        raise RuntimeError("do not touch")

    __bool__ = __len__ = __iter__ = __eq__ = __hash__ = __contains__ = __getitem__ = __int__ = _no
    __float__ = __index__ = __copy__ = __deepcopy__ = __reduce__ = __sizeof__ = __dir__ = _no

    def __str__(self):
        return "hostile"


class NoAttributes:
    def __getattr__(self, name):
        raise RuntimeError(name)

    def __str__(self):
        return "no attributes"


class NoClass:
    @property
    def __class__(self):
        raise RuntimeError("no class")

    def __repr__(self):
        return "no class"


class StrOfInt:
    def __str__(self):
        return 1  # type: ignore[return-value]

    def __repr__(self):
        return "str is an int"


class Named(type):
    @property
    def __name__(cls):
        raise RuntimeError("no name")


class OfNamed(Unprintable, metaclass=Named):
    pass


case("__str__ raises ValueError", lambda: {"good": 1, "bad": NoStr(ValueError("no"))})
case("__str__ raises TypeError", lambda: [NoStr(TypeError("no"))])
case("__str__ returns an int", lambda: [StrOfInt(), 1])
for _error in (
    RuntimeError("no"),
    KeyError("k"),
    RecursionError("r"),
    MemoryError(),
    StopIteration(),
):
    case(
        f"__str__ raises {type(_error).__name__}",
        functools.partial(lambda error: {"good": (1,), "bad": NoStr(error)}, _error),
        breaks=_OTHERS,
        breaks_inputs=_OTHERS,
        kept={"good": [1], "bad": "its repr"},
    )
    case(
        f"__str__ and __repr__ raise {type(_error).__name__}",
        functools.partial(lambda error: {"good": (1,), "bad": Unprintable(error)}, _error),
        breaks=_OTHERS,
        breaks_inputs=_OTHERS,
        kept={"good": [1], "bad": "<unprintable Unprintable object>"},
    )
for _error in (ValueError("no"), TypeError("no")):
    case(
        f"__str__ and __repr__ raise {type(_error).__name__}",
        functools.partial(lambda error: {"good": (1,), "bad": Unprintable(error)}, _error),
        breaks="the repr of the whole value raises too",
        breaks_inputs="the repr of the whole value raises too",
        kept={"good": [1], "bad": "<unprintable Unprintable object>"},
    )
case(
    "a system exit in __str__",
    lambda: [NoStr(SystemExit(3)), 1],
    breaks=_OTHERS,
    breaks_inputs=_OTHERS,
    kept=["its repr", 1],
)
case(
    "a bad key, and a repr that raises",
    lambda: {
        "good": 1,
        "bad": {(1, 2): [NoStr(RuntimeError("no"))], Unprintable(ValueError("no")): 2},
    },
    breaks=_OTHERS,
    breaks_inputs=_OTHERS,
    kept={"good": 1, "bad": {"(1, 2)": ["its repr"], "<unprintable Unprintable object>": 2}},
)
case("hostile object", lambda: [Hostile()])
case("__getattr__ raises", lambda: [NoAttributes()])
case(
    "__class__ raises",
    lambda: [NoClass(), 1],
    breaks=_OTHERS,
    breaks_inputs=_OTHERS,
    kept=["no class", 1],
)
case(
    "the type's name raises",
    lambda: [OfNamed(RuntimeError("no")), 1],
    breaks=_OTHERS,
    breaks_inputs=_OTHERS,
    kept=["<unprintable OfNamed object>", 1],
)

# ---- what changes while it is read ----

_COPY = "it changes after the copy was made"


class Acts:
    def __init__(self, act: Callable[[], Any]):
        self.act = act

    def __str__(self):
        self.act()
        return "acted"


#: From 3.12 on json.dumps reads a dict in place; the core keeps to the items that it found.
_TAKES_ITEMS = sys.version_info < (3, 12)


@made(
    "dict that grows",
    copied=_COPY,
    same_json=_TAKES_ITEMS,
    kept={"a": "acted", "b": 2},
)
def _():
    value: dict = {}
    value["a"] = Acts(lambda: value.update({f"k{i}": i for i in range(50)}))
    value["b"] = 2
    return value


@made(
    "dict that is cleared",
    copied=_COPY,
    same_json=_TAKES_ITEMS,
    kept={"outer": {"a": 1, "b": "acted", "c": 3}, "after": 4},
)
def _():
    value: dict = {}
    value.update(a=1, b=Acts(value.clear), c=3)
    return {"outer": value, "after": 4}


@made(
    "dict that is cleared from deep inside",
    copied=_COPY,
    same_json=_TAKES_ITEMS,
    kept={"a": [{"x": ["acted"]}], "c": {"d": 3}, "e": "a plain object"},
)
def _():
    value: dict = {}
    value.update(a=[{"x": (Acts(value.clear),)}], c={"d": 3}, e=Plain())
    return value


@made("list that grows", copied=_COPY)
def _():
    value: list = []
    value += [Acts(lambda: value.extend(range(20))), 2]
    return {"list": value}


@made("list that is cleared", copied=_COPY)
def _():
    value: list = []
    value += [1, Acts(value.clear), 3]
    return [value, 4]


@made("list whose items are replaced", copied=_COPY)
def _():
    value: list = [0, 1, 2]
    value[0] = Acts(lambda: value.__setitem__(slice(None), ["new", {"n": 1}, "er"]))
    return value


def grows_without_end() -> list:
    """Not in the table: json.dumps never comes back."""
    value: list = []
    value.append(Acts(lambda: value.append(value[0])))
    return value


# ---- comparing ----

_ADDRESS = re.compile(r"0x[0-9a-f]{6,16}\b|\bid='?\d{9,}'?")


def same_text(value: Any) -> str:
    """A value's JSON text, with int and float apart, and without addresses of objects."""
    text = json.dumps(value, ensure_ascii=True) if depth_of(value) < 500 else deep_text(value)
    return text if len(text) > 100_000 else _ADDRESS.sub("0x0", text)


def depth_of(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth < 500:
        level = [
            item
            for outer in level
            if isinstance(outer, (list, dict))
            for item in (outer if isinstance(outer, list) else outer.values())
        ]
        depth += 1
    return depth


def deep_text(value: Any) -> str:
    """The text of a value that is too deep for Python's own functions, which recurse."""
    parts, todo = [], [value]
    while todo:
        item = todo.pop()
        if isinstance(item, contextlib.nullcontext):
            parts.append(item.enter_result)
        elif isinstance(item, list):
            todo += [contextlib.nullcontext("]"), *reversed(item), contextlib.nullcontext("[")]
        elif isinstance(item, dict):
            todo.append(contextlib.nullcontext("}"))
            for key, inner in reversed(item.items()):
                todo += [inner, contextlib.nullcontext(json.dumps(key))]
            todo.append(contextlib.nullcontext("{"))
        else:
            parts.append(json.dumps(item))
    return " ".join(parts)


# ---- as a program ----


def main() -> None:
    module, uri, experiment = sys.argv[1:]
    mlflow = importlib.import_module(module)
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment)
    for case in CASES.values():
        if module == "mlflow" and (case.breaks or not case.same_json):
            continue
        if module == "mlflow" and case.off_the_wire:
            mlflow.flush_trace_async_logging()
        with mlflow.start_span(case.name) as span:
            span.set_attribute("value", case.make())
            if not case.copied and not case.breaks_inputs:
                span.set_inputs(case.make())
                span.set_outputs(case.make())
        if module == "mlflow" and case.off_the_wire:
            mlflow.flush_trace_async_logging()
    mlflow.flush_trace_async_logging()


if __name__ == "__main__":
    main()
