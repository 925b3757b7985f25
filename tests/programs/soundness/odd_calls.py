"""Calls that no program should make, and some do."""

from __future__ import annotations

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core

from programs.soundness.recorded import span_records


@mlflow.trace
def takes_any(**keywords):
    return keywords


def keywords_that_are_no_names() -> None:
    for keywords in ({1: 2}, {None: 1, "a": 2}, {(): 1}):
        try:
            takes_any(**keywords)
        except TypeError as error:
            assert "keyword" in str(error)
        else:
            raise AssertionError("a plain function would have raised TypeError")
        try:
            _core.Traced(lambda **k: k, "f", [], [("k", 4)], None)(**keywords)
        except TypeError as error:
            assert "keyword" in str(error)
    with mlflow.start_span("afterwards"):
        pass


def attributes_that_a_span_sets_itself() -> None:
    @mlflow.trace(
        attributes={"mlflow.traceRequestId": "mine", "mlflow.spanInputs": 1, "own": 2},
        name="own attributes",
    )
    def function(a):
        return mlflow.get_current_active_span().attributes

    attributes = function(3)
    assert attributes["mlflow.traceRequestId"] == "mine" and attributes["own"] == 2
    found = [_core.decode(record) for record in span_records()]
    (record,) = [one for one in found if one[4] == "own attributes"]
    encoded = record[9]
    assert encoded["mlflow.spanInputs"] == {"a": 3} and len(encoded) == len(set(encoded))


def duplicate_keys_are_in_no_record() -> None:
    """The map of a record has as many pairs as decoding finds."""
    for record in span_records():
        _core.span_json(record)


def a_trace_id_of_another_size() -> None:
    try:
        _core.start_span("x", None, None, None, None, None, b"short")
    except ValueError as error:
        assert "16 bytes" in str(error)
    else:
        raise AssertionError("nothing was raised")


for check in (
    keywords_that_are_no_names,
    attributes_that_a_span_sets_itself,
    duplicate_keys_are_in_no_record,
    a_trace_id_of_another_size,
):
    check()
