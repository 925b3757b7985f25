"""The numbers and places of records on the Python side, in the C header and in the document agree."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import mlflow_fasttrace.fluent as mlflow
import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.spool import records
from mlflow_fasttrace._internal.spool.reading import file_items, ring_items
from mlflow_fasttrace._internal.spool.records import (
    INFO_SENT,
    PHASE_MASK,
    PHASE_OFFSET,
    AttachmentRecord,
    Kind,
    Phase,
    SpanRecord,
    SpanStatus,
    TraceInfoRecord,
    TraceRecord,
    TraceState,
)
from support.processes import ROOT
from support.records import spans_to_ring

_CONSTANT = re.compile(r"\b([A-Z][A-Z_]+) = (0x[0-9a-f]+|\d+)")
_DOCUMENT = (ROOT / "docs" / "spool-format.md").read_text()


def constants(header: str) -> dict[str, int]:
    """The enum members and defined numbers of a header of ext/, wherever it lies."""
    (path,) = (ROOT / "ext").rglob(header)
    text = path.read_text()
    found = {name: int(number, 0) for name, number in _CONSTANT.findall(text)}
    defined = re.findall(r"^#define ([A-Z_]+) (\d+)$", text, re.M)
    return {**found, **{name: int(number) for name, number in defined}}


def named(enum, prefix: str) -> dict[str, int]:
    return {prefix + member.name: int(member) for member in enum}


def in_document(column: int) -> list[str]:
    """The fields of a kind of record, as the table of the document lists them."""
    rows = re.findall(r"^\| (\d+) \|(.*)\|(.*)\|(.*)\|$", _DOCUMENT, re.M)
    places = [(int(row[0]), row[column].strip()) for row in rows]
    listed = [field for place, field in sorted(places) if field]
    assert [place for place, field in sorted(places) if field] == list(range(len(listed)))
    return listed


@pytest.mark.parametrize(
    ("expected", "header"),
    [
        (named(Kind, "RECORD_"), "record.h"),
        (named(Phase, "PHASE_"), "record.h"),
        ({"PHASE_MASK": PHASE_MASK, "PHASE_INFO_SENT": INFO_SENT}, "record.h"),
        ({"RECORD_PHASE_OFFSET": PHASE_OFFSET}, "record.h"),
        ({"SPAN_FIELDS": len(SpanRecord._fields)}, "record.h"),
        ({"TRACE_FIELDS": len(TraceRecord._fields)}, "record.h"),
        ({"ATTACHMENT_FIELDS": len(AttachmentRecord._fields)}, "record.h"),
        (named(SpanStatus, "STATUS_"), "span.h"),
        (named(TraceState, "STATE_"), "trace.h"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_numbers_are_those_of_the_core(expected, header):
    found = constants(header)
    assert expected == {name: found.get(name) for name in expected}


@pytest.mark.parametrize(
    ("kind", "view"),
    [
        (Kind.SPAN, SpanRecord),
        (Kind.TRACE, TraceRecord),
        (Kind.ATTACHMENT, AttachmentRecord),
    ],
)
def test_fields_are_those_of_the_document(kind, view):
    fields = in_document(int(kind))
    assert fields[0] == f"kind: {int(kind)}"
    assert len(fields) == len(view._fields)
    for documented, name in zip(fields, view._fields, strict=True):
        assert documented.startswith(name.replace("_", " "))


def test_numbers_are_those_of_the_document():
    for status in SpanStatus:
        assert f"{int(status)} {status.name}" in _DOCUMENT
    for state in TraceState:
        assert f"{int(state)} {state.name}" in _DOCUMENT
    assert f"Bit {INFO_SENT:#x}" in _DOCUMENT


@pytest.fixture
def recorded(tmp_path):
    """A root and a span that failed, in a ring: the ring's path."""
    spans_to_ring(tmp_path)
    with contextlib.suppress(ValueError), mlflow.start_span("root", attributes={"key": "value"}):
        with mlflow.start_span("child"):
            raise ValueError("no")
    yield tmp_path / "1-00000000.ring"
    destination.reset()


def test_records_are_read(recorded):
    items, note = ring_items(str(recorded))
    assert note is None
    assert file_items(str(recorded)) == (items, [])
    spans = {}
    for item in items:
        if item.kind == Kind.SPAN:
            span = SpanRecord.of(item.record)
            spans[span.name] = span
            assert records.span_id_of(item.record) == span.span_id
            assert records.is_root(item.record) == (span.parent_id is None)
            assert records.start_of_span(item.record) == span.start_ns
            assert span.end_ns >= span.start_ns
            assert records.status_of(item.record) == span.status == SpanStatus.ERROR
            assert span.trace_id == item.trace_id
            with pytest.raises(ValueError, match="TRACE"):
                TraceRecord.of(item.record)
    root, child = spans["root"], spans["child"]
    assert root.parent_id is None
    assert child.parent_id == root.span_id
    assert root.attributes["key"] == "value"
    assert [event[0] for event in child.events] == ["exception"]


def test_a_trace_record_remembers_that_its_info_was_sent(recorded):
    items, _note = ring_items(str(recorded))
    record = [item.record for item in items if item.kind == Kind.TRACE][-1]
    assert not records.info_was_sent(record)
    sent = records.with_info_sent(record)
    assert records.info_was_sent(sent)
    assert sum(a != b for a, b in zip(record, sent, strict=True)) == 1
    for each in (record, sent):
        trace = TraceRecord.of(each)
        info = TraceInfoRecord(each)
        assert (trace.phase, trace.state) == (Phase.COMPLETE, TraceState.ERROR)
        assert (info.phase, info.state, info.spans) == (trace.phase, trace.state, 2)


@pytest.mark.parametrize(
    "encoded",
    [b"", b"\x90", _core.encode([1, 2]), _core.encode({"a": 1}), b"\xc1", b"\x81\x90\x01"],
)
def test_what_is_no_record_is_a_value_error(encoded):
    for view in (SpanRecord, TraceRecord, AttachmentRecord):
        with pytest.raises(ValueError):
            view.of(encoded)


def test_no_other_module_knows_places_in_records():
    """A field's number outside records.py would be missed when a field is added."""
    package = Path(records.__file__).parents[2]
    readers = re.compile(
        r"_core\.decode\([^)]*record[^)]*\)\[|\.record\[\d|\brecord\[\d|\bfields\[\d"
    )
    found = [path.name for path in package.rglob("*.py") if readers.search(path.read_text())]
    assert found == ["records.py"]
