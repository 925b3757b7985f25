"""A trace's info, which the sender makes without MLflow's TraceInfo, is equal to MLflow's."""

from __future__ import annotations

import json

import mlflow_fasttrace.fluent as mlflow
import pytest
from mlflow.entities import Trace, TraceData
from mlflow.protos.service_pb2 import StartTraceV3
from mlflow.utils.proto_json_utils import message_to_json
from mlflow_fasttrace._internal.sender.assemble import Assembler, ready_traces
from mlflow_fasttrace._internal.sender.sources import Entry
from mlflow_fasttrace._internal.sender.trace_infos import (
    _duration,
    _timestamp,
    info_entity,
    start_trace_body,
    trace_info,
)
from support.records import Recorded


@pytest.fixture
def finished(tmp_path):
    """Runs a function that records a trace; gives the info that the sender would send for it."""
    origin = {"user": "u", "source": "s.py", "cwd": str(tmp_path), "uri": "x"}
    recorded = Recorded(tmp_path, **origin, experiment={"id": "7"})

    def run(program) -> dict:
        program()
        assembler = Assembler()
        assembler.add([Entry(None, *item) for item in recorded.reader.drain(1 << 20)])
        (trace,) = ready_traces(assembler, everything=True)
        trace.summarize()
        return trace_info(trace, "7")

    yield run
    recorded.end()


def simple():
    with mlflow.start_span("simple") as span:
        span.set_inputs({"q": "é" * 300})


def full():
    with mlflow.start_span("full") as span:
        span.set_outputs("x" * 3000)
        mlflow.update_current_trace(
            tags={"long": "t" * 9000, "": "empty", "surrogate\ud800": "\udfff"},
            metadata={"m" * 400: "v" * 400, "number": 5},
            client_request_id="c",
            request_preview="given \ud800",
            state="ERROR",
        )


@pytest.mark.parametrize("program", [simple, full])
def test_the_info_is_as_mlflow_would_send_it(finished, program):
    info = finished(program)
    entity = info_entity(info)
    assert entity.to_dict() == info
    trace = Trace(info=entity, data=TraceData(spans=[]))
    assert json.loads(start_trace_body(info)) == json.loads(
        message_to_json(StartTraceV3(trace=trace.to_proto()))
    )


def test_the_size_counts_what_mlflow_counts(finished):
    info = finished(simple)
    total = int(info["trace_metadata"].pop("mlflow.trace.sizeBytes"))
    stats = json.loads(info["trace_metadata"].pop("mlflow.trace.sizeStats"))
    empty = Trace(info=info_entity(info), data=TraceData(spans=[])).to_json()
    assert total == stats["total_size_bytes"] == stats["max"] + len(empty.encode())


@pytest.mark.parametrize("milliseconds", [0, 1, 999, 1000, 1_795_472_402_820, 1_795_472_402_000])
def test_times_are_as_protobuf_prints_them(milliseconds):
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    timestamp, duration = Timestamp(), Duration()
    timestamp.FromMilliseconds(milliseconds)
    duration.FromMilliseconds(milliseconds)
    assert _timestamp(milliseconds) == timestamp.ToJsonString()
    assert _duration(milliseconds) == duration.ToJsonString()
