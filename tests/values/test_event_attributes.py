"""Attributes of events that OpenTelemetry drops, or that break the program there, are recorded.

What it takes is compared with MLflow: `attributes_of_an_event` in tests/programs/documentation."""

from __future__ import annotations

import collections.abc

import mlflow_fasttrace as mlflow
import pytest
from mlflow.entities import SpanEvent


class Broken(collections.abc.Sequence):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise ValueError("no item")

    def __repr__(self):
        return "<broken>"


class Mute:
    def __str__(self):
        raise ValueError("no text")

    __repr__ = __str__


def cycle():
    around = []
    around.append({"again": around})
    return around


def deep(levels):
    value = "bottom"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("attributes", "kept"),
    [
        ({"": 1, "other": 2}, {"": 1, "other": 2}),
        ({"keys": {None: 1, 0: 2}}, {"keys": {"None": 1, "0": 2}}),
        ({"bytes": b"ab", "other": [b"c"]}, {"bytes": "b'ab'", "other": ("b'c'",)}),
        ({"cycle": cycle()}, {"cycle": ({"again": "[{'again': [...]}]"},)}),
        ({"broken": Broken(), "other": (1,)}, {"broken": "<broken>", "other": (1,)}),
    ],
)
def test_nothing_of_an_events_attributes_is_lost(recorded, attributes, kept):
    with mlflow.start_span("root") as span:
        span.add_event(SpanEvent("event", attributes=attributes))
        assert span.events[0].attributes == kept


def test_a_value_that_has_no_text_costs_itself_alone(recorded):
    with mlflow.start_span("root") as span:
        span.add_event(SpanEvent("event", attributes={"mute": Mute(), "other": [1]}))
        attributes = span.events[0].attributes
    assert "Mute object" in attributes["mute"]
    assert attributes["other"] == (1,)


class Unreadable(dict):
    def items(self):
        raise ValueError("no items")


def test_an_event_whose_attributes_cannot_be_read_is_recorded_without_them(recorded, caplog):
    with mlflow.start_span("root") as span:
        span.add_event(SpanEvent("event", attributes=Unreadable(a=1)))
        assert [(event.name, event.attributes) for event in span.events] == [("event", {})]
    assert caplog.text == ""


def test_what_lies_too_deep_is_a_text(recorded):
    with mlflow.start_span("root") as span:
        span.add_event(SpanEvent("event", attributes={"deep": deep(5000), "shallow": deep(100)}))
        value, shallow = span.events[0].attributes.values()
    levels = 0
    while isinstance(value, tuple):
        (value,) = value
        levels += 1
    assert levels == 200
    assert isinstance(value, str)
    for _ in range(100):
        (shallow,) = shallow
    assert shallow == "bottom"
