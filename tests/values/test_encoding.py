"""Values as the core keeps them: token for token those of MLflow's encoder."""

from __future__ import annotations

import collections
import dataclasses
import json
import sys
import threading
from typing import Any, NamedTuple

import mlflow_fasttrace.fluent  # noqa: F401  (sets the core's hooks)
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.tracing.utils import TraceJSONEncoder, dump_span_attribute_value
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log
from support.made_records import span_with_value
from value_cases import CASES


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass
class Fields:
    a: Any
    b: Any


class Reversed(list):
    def __iter__(self):
        return super().__reversed__()


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats()
    | st.text()
    | st.text(st.characters(exclude_categories=()))  # lone surrogates too
    | st.binary(max_size=8)
    | st.dates()
    | st.decimals()
    | st.complex_numbers()
    | st.uuids()
    | st.timedeltas()
    | st.fractions()
    | st.sampled_from([int, len, ..., range(3)])
)
keys = st.text() | st.integers() | st.floats() | st.booleans() | st.none()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=5)
        | st.sets(st.integers(), max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Fields, inner, inner)
        | st.builds(Reversed, st.lists(inner, max_size=4))
        | st.builds(collections.OrderedDict, st.dictionaries(keys, inner, max_size=3))
        | st.builds(collections.deque, st.lists(inner, max_size=3))
        | st.dictionaries(keys | st.tuples(st.integers()), inner, max_size=2)
    ),
    max_leaves=20,
)


@settings(max_examples=500, deadline=None)
@given(values)
def test_the_text_is_mlflows(value):
    text = dump_span_attribute_value(value)
    encoded = _core.encode(value)
    assert _core.json_text(encoded) == text
    try:
        ascii_text = json.dumps(value, cls=TraceJSONEncoder)
    except (TypeError, ValueError):
        ascii_text = json.dumps(repr(value))
    assert _core.json_text(encoded, True) == ascii_text
    # Read back as json.loads reads the text (NaN is not equal to itself).
    assert repr(_core.decode(encoded)) == repr(json.loads(text))


def test_what_is_encoded_is_a_snapshot():
    value = {"list": [1]}
    encoded = _core.encode(value)
    value["list"].append(2)
    assert _core.decode(encoded) == {"list": [1]}


def nested(depth: int):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def test_values_are_kept_900_levels_deep():
    assert _core.json_text(_core.encode(nested(850))) == json.dumps(nested(850))
    text = _core.json_text(_core.encode(nested(10_000)))
    assert text.startswith("[" * 900 + '"<list nested more than 900 levels deep>"')


def test_depth_costs_no_stack():
    """A thread may have a stack that is too small for hundreds of calls of C functions."""
    results = []

    def run():
        encoded = _core.encode(nested(10_000))
        results.append((_core.json_text(encoded), _core.decode(encoded)))

    before = threading.stack_size(64 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    ((text, value),) = results
    assert json.dumps(value) == text


class Raises:
    def __init__(self, error: BaseException):
        self.error = error

    def __str__(self):
        raise self.error

    __repr__ = __str__


def test_a_value_that_cannot_be_text_is_named_and_logged(caplog, monkeypatch):
    monkeypatch.setattr(log, "_warned", log._Warned())
    encoded = _core.encode({"good": 1, "bad": Raises(RuntimeError("no"))})
    assert _core.decode(encoded) == {"good": 1, "bad": "<unprintable Raises object>"}
    assert len(caplog.records) == 1
    assert "RuntimeError" in caplog.text


def test_a_pydantic_that_is_still_being_imported_is_harmless(monkeypatch):
    class Plain:
        def __str__(self):
            return "plain"

    monkeypatch.setitem(sys.modules, "pydantic", type(sys)("pydantic"))
    assert _core.decode(_core.encode([Plain()])) == ["plain"]


def test_no_reference_is_kept():
    """No reference is kept, whatever a value does while it is read."""
    for case in CASES.values():
        value = case.make()
        _core.encode(value)
        before = sys.getrefcount(value)
        _core.encode(value)
        _core.encode([value, {"k": value}, {(): value}])
        assert sys.getrefcount(value) <= before, case.name  # the first one may have emptied it


def test_a_value_without_even_a_repr_is_named():
    value = [1, Raises(ValueError("no")), {Raises(TypeError("no")): (2,)}]
    assert _core.decode(_core.encode(value)) == [
        1,
        "<unprintable Raises object>",
        {"<unprintable Raises object>": [2]},
    ]


def test_a_dictionary_that_changes_while_it_is_read_is_kept_as_it_was():
    class Grows:
        def __str__(self):
            victim[len(victim)] = "more"
            return "grows"

    victim = {"first": Grows(), "second": 2}
    assert _core.decode(_core.encode(victim)) == {"first": "grows", "second": 2}


def test_a_list_that_is_emptied_while_it_is_read_ends_there():
    class Empties:
        def __str__(self):
            victim.clear()
            return "empties"

    victim = [Empties(), 1, 2]
    assert _core.decode(_core.encode(victim)) == ["empties"]


def test_an_integer_with_too_many_digits_is_hexadecimal():
    number = 1 << 17000
    encoded = _core.encode({"n": [number], number: "key"})
    if hasattr(sys, "get_int_max_str_digits"):
        assert _core.decode(encoded) == {"n": [hex(number)], hex(number): "key"}
    else:
        assert _core.decode(encoded) == {"n": [number], str(number): "key"}


def test_digits_that_this_python_does_not_convert_are_a_text():
    """They were recorded where the limit is lifted, and are read where it is not."""
    digits = "7" * 5000
    decoded = _core.decode(b"\xc8" + len(digits).to_bytes(2, "big") + b"\x01" + digits.encode())
    assert decoded == (digits if hasattr(sys, "get_int_max_str_digits") else int(digits))


def test_json_text_inside_json_text_is_refused():
    """No writer nests it, and damage that does must not make the reader recurse."""
    assert _core.json_text(b"\xc7\x01\x03\xc0") == '"null"'
    with pytest.raises(ValueError):
        _core.json_text(b"\xc7\x04\x03\xc7\x01\x03\xc0")


def test_unknown_values_do_not_reach_a_request():
    """One span with bytes that are no text would make the server refuse its whole batch."""
    good = span_with_value(b"\xc7\x02\x01" + b"42")
    unknown = span_with_value(b"\xc7\x02\x09" + b"\xff\xfe")
    body, refused, inexact = _core.otlp_request([good, unknown, good])
    assert refused == [1]
    assert inexact == [0, 2]
    assert body.count(b"42") == 2
    assert b"\xff\xfe" not in body


def test_keys_that_are_no_texts_are_refused():
    with pytest.raises(ValueError):
        _core.decode(b"\x81\x90\x01")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64))
def test_damaged_values_are_refused(bytes_):
    """Where bytes are taken they are one whole value: neither less of them nor more is one."""
    try:
        _core.decode(bytes_)
    except ValueError:
        return
    for size in range(len(bytes_)):
        with pytest.raises(ValueError):
            _core.decode(bytes_[:size])
    with pytest.raises(ValueError):
        _core.decode(bytes_ + b"\xc0")
