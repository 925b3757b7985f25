"""Values as the core keeps them: token for token those of MLflow's encoder."""

from __future__ import annotations

import collections
import dataclasses
import json
import sys
import threading
from typing import Any, NamedTuple

import mlflow_fasttrace as mlflow
import mlflow_fasttrace.fluent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.tracing.utils import TraceJSONEncoder, dump_span_attribute_value
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log
from mlflow_fasttrace._internal.spool.records import SPAN
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.made_records import span_with_value
from support.records import items_of
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


def nested_list(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


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


#: Of values as most are, long texts and deep nesting among them.
plain_values = st.recursive(
    scalars | st.sampled_from(["x" * 5000, "data:image/png;base64,aGk=", nested_list(40)]),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(), inner, max_size=8),
    max_leaves=30,
)


@settings(max_examples=500, deadline=None)
@given(st.lists(plain_values | values, min_size=1, max_size=4))
def test_a_span_encodes_values_where_they_stay_as_elsewhere(given_values):
    for _ in range(2):  # the second span has the memory of the first
        span = mlflow.start_span_no_context("span")
        for number, value in enumerate(given_values):
            span.set_attribute(f"key {number}", value)
        texts = span._attribute_texts
        span.end()
        del span
    for number, value in enumerate(given_values):
        assert texts[f"key {number}"] == _core.json_text(_core.encode(value))


def test_what_is_encoded_is_a_snapshot():
    value = {"list": [1]}
    encoded = _core.encode(value)
    value["list"].append(2)
    assert _core.decode(encoded) == {"list": [1]}


def test_values_are_kept_900_levels_deep():
    assert _core.json_text(_core.encode(nested_list(850))) == json.dumps(nested_list(850))
    text = _core.json_text(_core.encode(nested_list(10_000)))
    assert text.startswith("[" * 900 + '"<list nested more than 900 levels deep>"')


def test_depth_costs_no_stack():
    """A thread may have a stack that is too small for hundreds of calls of C functions."""
    results = []

    def run():
        encoded = _core.encode(nested_list(10_000))
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


LINKS = {
    "usable": ("tr-" + "1" * 32, "2" * 16),
    "upper case": ("AB" * 16, "CD" * 8),
    "short": ("f", "f"),
    "no trace": ("", "2" * 16),
    "no hex": ("tr-" + "x" * 32, "2" * 16),
    "too long": ("tr-" + "1" * 33, "2" * 16),
    "no span": ("tr-" + "1" * 32, "no"),
}


def test_links_whose_ids_are_no_ids_are_left_out_of_requests(recorded):
    span = mlflow.start_span_no_context("span")
    for name, (trace_id, span_id) in LINKS.items():
        span._append_link(trace_id, span_id, {"name": name})
    span._append_link(*LINKS["usable"], "attributes that are no dictionary")
    span.end()
    (record,) = [record for kind, _, record in items_of(recorded.reader) if kind == SPAN]
    empty = _core.encode({})
    requests = {
        False: _core.otlp_request([record])[0],
        True: _core.collector_request([(record, 1, empty, None)], empty, True)[0],
    }
    for for_collector, body in requests.items():
        request = ExportTraceServiceRequest.FromString(body)
        ((found,),) = [scope.spans for scope in request.resource_spans[0].scope_spans]
        assert [[pair.value.string_value for pair in link.attributes] for link in found.links] == [
            ["usable"],
            ["upper case"],
            ["short"],
            [],
        ]
        assert [(link.trace_id.hex(), link.span_id.hex()) for link in found.links] == [
            ("1" * 32, "2" * 16),
            ("ab" * 16, "cd" * 8),
            ("f".zfill(32), "f".zfill(16)),
            ("1" * 32, "2" * 16),
        ]
        assert all(bool(link.flags) == for_collector for link in found.links)


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


def test_texts_that_are_no_utf8_are_read_with_marks_in_their_place():
    assert _core.decode(b"\xa3a\xff\xe4") == "a\ufffd\ufffd"
    assert _core.json_text(b"\xa2a\xe4", True) == '"a\\ufffd"'


@pytest.mark.parametrize(
    "value",
    [
        b"\xd4\x09x",  # an extension that nobody writes
        b"\xc7\x02\x01ab",  # an integer without digits
        b"\x91" * 1001 + b"\xc0",  # deeper than Python code can walk
    ],
    ids=["an extension", "an integer", "depth"],
)
def test_whole_values_that_no_program_writes_are_damaged(value):
    with pytest.raises(ValueError, match="damaged value"):
        _core.decode(value)


def test_every_character_is_escaped_wherever_it_stands():
    """Eight bytes at a time are looked at together."""
    characters = [chr(code) for code in range(0x180)] + ["\u20ac", "\uffff", "\U0001f600"]
    for character in characters:
        for before in range(18):
            text = "x" * before + character + "y" * (17 - before)
            for whole in text, text + character, character + text:
                encoded = _core.encode(whole)
                assert _core.json_text(encoded, True) == json.dumps(whole)
                assert _core.json_text(encoded) == json.dumps(whole, ensure_ascii=False)


@pytest.mark.parametrize("value", [b"\xd4\x09x", b"\xc4\x01x", b"\xc1", b"\x91"])
def test_what_json_does_not_have_is_no_json_text(value):
    with pytest.raises(ValueError, match="damaged value"):
        _core.json_text(value)


def test_a_key_whose_class_has_no_name_either_is_kept():
    class Nameless(type):
        @property
        def __name__(cls):
            raise ValueError("no name")

    class Key(Raises, metaclass=Nameless):
        pass

    value = {Key(TypeError("no")): 1, "good": 2}
    assert _core.decode(_core.encode(value)) == {"<unprintable object>": 1, "good": 2}


def test_pairs_that_go_while_they_are_read_are_not_counted():
    class Lists(dict):
        def items(self):
            return pairs

    class Removes:
        def __str__(self):
            pairs.pop()
            return "removes"

    pairs = [("first", Removes()), ("second", 2)]
    encoded = _core.encode([Lists(any=1), "behind"])
    assert _core.decode(encoded) == [{"first": "removes"}, "behind"]


def test_values_whose_own_code_records_values_are_each_kept(recorded):
    """More of them inside one another than the core has buffers at hand."""

    class Nested:
        def __init__(self, depth: int):
            self.depth = depth

        def __str__(self):
            if self.depth:
                span.set_attribute(f"inside {self.depth}", [Nested(self.depth - 1)])
            return f"depth {self.depth}"

    span = mlflow.start_span_no_context("span")
    span.set_attribute("outermost", [Nested(9)])
    span.end()
    (record,) = recorded.spans()
    assert record.attributes["outermost"] == ["depth 9"]
    for depth in range(1, 10):
        assert record.attributes[f"inside {depth}"] == [f"depth {depth - 1}"]


def test_more_attributes_than_are_looked_through_are_found(recorded):
    """Set again, removed and read, in any order; the size of a span follows what is set on it."""
    span = mlflow.start_span_no_context("span")
    for n in range(100):
        span.set_attribute(str(n), "x" * n)
    for n in range(0, 100, 2):
        span.set_attribute(str(n), -n)
    for n in range(0, 100, 3):
        span._remove_attribute(str(n))
    expected = {str(n): -n if n % 2 == 0 else "x" * n for n in range(100) if n % 3}
    assert {n: span.get_attribute(n) for n in expected} == expected
    assert span.get_attribute("0") is None
    span.end()
    (record,) = recorded.spans()
    assert {k: v for k, v in record.attributes.items() if k.isdigit()} == expected


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
