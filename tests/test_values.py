"""Values: what the core keeps is what MLflow's encoder makes of them, token for token."""

from __future__ import annotations

import json
import sys

import mlflow_fasttrace.fluent  # noqa: F401  (sets the core's hooks)
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.tracing.utils import TraceJSONEncoder, dump_span_attribute_value
from mlflow_fasttrace import _core

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
)
keys = st.text() | st.integers() | st.floats() | st.booleans() | st.none()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=5)
        | st.sets(st.integers(), max_size=3)
        | st.dictionaries(keys | st.tuples(st.integers()), inner, max_size=2)
    ),
    max_leaves=20,
)


@settings(max_examples=500, deadline=None)
@given(values)
def test_same_text_as_mlflow(value):
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


def test_snapshot():
    value = {"list": [1]}
    encoded = _core.encode(value)
    value["list"].append(2)
    assert _core.decode(encoded) == {"list": [1]}


def nested(depth: int):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def test_depth():
    assert _core.json_text(_core.encode(nested(400))) == json.dumps(nested(400))
    text = _core.json_text(_core.encode(nested(10_000)))
    assert text.startswith("[" * 512)
    assert "nested more than 512 levels deep" in text


class Raises:
    def __init__(self, error: BaseException):
        self.error = error

    def __str__(self):
        raise self.error

    __repr__ = __str__


def test_a_value_that_cannot_be_text(caplog):
    encoded = _core.encode({"good": 1, "bad": Raises(RuntimeError("no"))})
    assert _core.decode(encoded) == {"good": 1, "bad": "<unprintable Raises object>"}
    assert len(caplog.records) == 1
    assert "RuntimeError" in caplog.text


def test_a_value_without_even_a_repr():
    assert _core.decode(_core.encode([Raises(ValueError("no"))])) == "<unprintable list object>"


def test_dictionary_that_changes_while_it_is_read():
    class Grows:
        def __str__(self):
            victim[len(victim)] = "more"
            return "grows"

    victim = {"first": Grows(), "second": 2}
    decoded = _core.decode(_core.encode(victim))
    assert decoded["first"] == "grows"
    assert decoded["second"] == 2


def test_list_that_changes_while_it_is_read():
    class Empties:
        def __str__(self):
            victim.clear()
            return "empties"

    victim = [Empties(), 1, 2]
    assert _core.decode(_core.encode(victim)) == ["empties"]


def test_integer_with_too_many_digits():
    limit = getattr(sys, "get_int_max_str_digits", lambda: 0)()
    if not limit:
        pytest.skip("this Python does not limit the digits of an integer")
    assert _core.decode(_core.encode(10 ** (limit + 1))) == "<unprintable int object>"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64))
def test_damaged_values_are_refused(bytes_):
    try:
        _core.decode(bytes_)
    except ValueError:
        pass
