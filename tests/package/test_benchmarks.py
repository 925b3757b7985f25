"""The benchmark: its sink counts every protocol, and its documents are those of its newest figures."""

from __future__ import annotations

import ctypes
import ctypes.util
import gzip
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.processes import ROOT
from support.spools import base_environment, clean_up

sys.path.insert(0, str(ROOT / "benchmarks"))
import bench_compare
import report
from sink import Counter, Sink, spans_at, zstd_plain
from tracers import NAMES, adapter


def otlp(count: int) -> bytes:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(count):
        scope.spans.add(name=f"span {number}")
    return request.SerializeToString()


def zstd(plain: bytes) -> bytes:
    library = ctypes.CDLL(ctypes.util.find_library("zstd") or "libzstd.so.1")
    library.ZSTD_compress.restype = ctypes.c_size_t
    room = ctypes.create_string_buffer(len(plain) + 1024)
    arguments = [ctypes.c_size_t(len(room)), plain, ctypes.c_size_t(len(plain)), ctypes.c_int(3)]
    size = library.ZSTD_compress(room, *arguments)
    return room.raw[:size]


#: A trace of two spans and one of one, of msgpack: {"name": "x", "start": 1 << 33}.
DATADOG_SPAN = b"\x82\xa4name\xa1x\xa5start\xcf" + (1 << 33).to_bytes(8, "big")
DATADOG_04 = b"\x92\x92" + 2 * DATADOG_SPAN + b"\x91" + DATADOG_SPAN
#: The same, a span as an array of twelve whose texts are in a table.
DATADOG_ROW = b"\x9c\x00\x00\x00\xcf" + bytes(8) + b"\x01\x00\xd3" + bytes(8) + b"\xcd\x01\x00\x00"
DATADOG_ROW += b"\x81\x00\x01\x81\x00\xcb" + bytes(8) + b"\x00"
DATADOG_05 = b"\x92\x92\xa0\xd9\x03abc" + b"\x92\x92" + 2 * DATADOG_ROW + b"\x91" + DATADOG_ROW


def multipart(parts: dict[str, Any]) -> bytes:
    lines = b""
    for name, content in parts.items():
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n'
        lines += (
            head + f"Content-Type: application/json\r\n\r\n{json.dumps(content)}\r\n"
        ).encode()
    return lines + b"--b--\r\n"


LANGSMITH = multipart(
    {
        "post.1": {"end_time": "now"},
        "post.1.inputs": {"a": 1},
        "post.2": {"name": "goes on"},
        "post.3": {"name": "ends later"},
        "patch.3": {"end_time": "now"},
        "patch.3.outputs": {},
    }
)
MULTIPART = {"content-type": "multipart/form-data; boundary=b"}
OPIK = {"spans": [{"id": "1", "end_time": "now"}, {"id": "1", "end_time": "now"}, {"id": "2"}]}
WEAVE = {"batch": [{"id": "1", "ended_at": "now"}, {"id": "2", "ended_at": "now"}]}
WEAVE_MODES = {
    "batch": [
        {"mode": "start", "req": {"start": {"id": "1"}}},
        {"mode": "end", "req": {"end": {"id": "1", "ended_at": "now"}}},
    ]
}

REQUESTS = {
    "OTLP": ("/v1/traces", {}, otlp(3), 3),
    "OTLP, gzip": (
        "/api/public/otel/v1/traces",
        {"content-encoding": "gzip"},
        gzip.compress(otlp(2)),
        2,
    ),
    "Datadog v0.4": ("/v0.4/traces", {}, DATADOG_04, 3),
    "Datadog v0.5": ("/v0.5/traces", {}, DATADOG_05, 3),
    "LLMObs": (
        "/evp_proxy/v2/api/v2/llmobs",
        {},
        json.dumps([{"spans": [1]}, {"spans": [2]}]).encode(),
        2,
    ),
    "LangSmith": ("/runs/multipart", MULTIPART, LANGSMITH, 2),
    "LangSmith, zstd": (
        "/runs/multipart",
        {**MULTIPART, "content-encoding": "zstd"},
        zstd(LANGSMITH),
        2,
    ),
    "LangSmith, JSON": (
        "/runs/batch",
        {},
        json.dumps({"post": [{"id": "1"}], "patch": [{"id": "1"}]}).encode(),
        1,
    ),
    "Opik": ("/api/v1/private/spans/batch", {}, json.dumps(OPIK).encode(), 1),
    "Weave": ("/v2/entity/project/calls/complete", {}, json.dumps(WEAVE).encode(), 2),
    "Weave, starts and ends": ("/call/upsert_batch", {}, json.dumps(WEAVE_MODES).encode(), 1),
    "something else": ("/telemetry", {}, b"\xff", 0),
}


@pytest.mark.parametrize("protocol", REQUESTS)
def test_the_sink_counts_the_spans_of_a_protocol(protocol):
    path, headers, body, spans = REQUESTS[protocol]
    counter = Counter()
    counter.add(path, headers, body)
    assert counter.spans == spans


def test_a_long_zstd_stream_is_read_whole():
    plain = os.urandom(1000) * 1000
    assert zstd_plain(zstd(plain)) == plain
    with pytest.raises(ValueError, match="zstd"):
        zstd_plain(b"no such stream")


def test_a_sink_counts_what_is_sent_to_it_also_in_chunks():
    def chunks():
        yield otlp(2)

    with Sink() as sink:
        assert sink.spans == 0
        for body in otlp(3), chunks():
            headers = {"Content-Type": "application/x-protobuf"}
            request = urllib.request.Request(sink.uri + "/v1/traces", body, headers)
            urllib.request.urlopen(request, timeout=10).close()
        assert spans_at(sink.uri) == 5


# ---- the documents ----

ABOUT = {
    "commit": "0123456789ab",
    "cpu": "a processor",
    "cpus": 2,
    "date": "2020-01-02 03:04 UTC",
    "kernel": "6.0",
    "load": [0.0, 0.1, 0.2],
    "python": "3.11.0",
    "quick": False,
    "seconds": 300,
    "versions": {"mlflow": "3.0"},
}


def small_results(us: tuple[float, ...] = (0.4, 0.5, 0.6)) -> dict[str, Any]:
    ours = {"noop.us": list(us), "noop.floor": [0.25], "noop.arrived": [100.0]}
    theirs = {"noop.us": [100.0], "noop.arrived": [99.96], "root.us": [2000.0]}
    return {"about": ABOUT, "figures": {"fasttrace": ours, "mlflow": theirs}}


def test_a_report_is_made_of_the_medians():
    document = report.document(small_results())
    assert "| fasttrace | 0.50 µs |" in document
    assert "| no-op | 0.50 µs | 0.25 µs | 2.0x |" in document
    assert "| MLflow |  |  | 2,000 µs |" in document
    table = report.readme_table(small_results())
    assert "| no-op call | 100 µs | 0.50 µs | 200x |" in table
    assert "| spans that arrived | 99 % | 100 % |  |" in table


def test_the_chart_has_a_bar_for_each_figure():
    chart = report.chart(small_results())
    assert chart.count('<rect class="page"') == 1
    assert chart.count("<rect") == 1 + 3
    assert ">0.50 µs<" in chart
    assert "prefers-color-scheme: dark" in chart


def test_figures_are_read_as_they_were_written():
    results = small_results((0.123456, 0.2, 0.3))
    again = json.loads(report.to_json(results))
    assert again["about"] == ABOUT
    assert again["figures"]["fasttrace"]["noop.us"] == [0.1235, 0.2, 0.3]
    assert again["figures"]["mlflow"] == results["figures"]["mlflow"]


def test_only_what_is_between_the_markers_is_replaced():
    text = "a\n<!-- benchmarks: made by `make bench` -->\nold\n<!-- benchmarks: end -->\nb\n"
    new = report.between_markers(text, "new")
    assert new.replace("\n\nnew\n\n", "\nold\n") == text
    with pytest.raises(ValueError, match="markers"):
        report.between_markers("a\nb\n", "new")


def test_the_documents_are_those_of_the_newest_figures():
    results = json.loads(report.RESULTS.read_text())
    for path, text in report.written(results).items():
        assert path.read_text() == text, f"{path}: run benchmarks/report.py"


def test_the_newest_figures_are_of_every_tracer():
    results = json.loads(report.RESULTS.read_text())
    assert set(NAMES) <= set(results["figures"])
    assert set(NAMES) == {path.stem for path in (ROOT / "benchmarks/tracers").glob("[!_]*.py")}


# ---- two runs ----


def marks(before: tuple[float, ...], after: tuple[float, ...]) -> dict[str, bool]:
    runs = small_results(before), small_results(after)
    return {f"{d.name} {d.key}": d.outside for d in bench_compare.differences(*runs)}


def test_a_change_beyond_the_rounds_is_marked():
    found = marks((0.4, 0.5, 0.6), (0.7, 0.8, 0.9))
    assert [figure for figure, outside in found.items() if outside] == ["fasttrace noop.us"]
    assert found["mlflow root.us"] is False
    assert not any(marks((0.4, 0.5, 0.6), (0.55, 0.7, 0.8)).values())  # they overlap
    assert not any(marks((0.50, 0.51), (0.52, 0.53)).values())  # a small one
    assert marks((0.5,), (0.6,))["fasttrace noop.us"] is False  # of one round
    assert marks((0.5,), (0.7,))["fasttrace noop.us"] is True


def test_two_files_are_compared(tmp_path):
    paths = []
    for name, figures in ("a", (0.4, 0.5)), ("b", (0.8, 1.0)):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(report.to_json(small_results(figures)))
    command = [sys.executable, ROOT / "benchmarks/bench_compare.py", *paths]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split() for line in lines if "noop.us" in line] == [
        ["fasttrace", "noop.us", "0.45", "0.9", "2.00x", "more"],
        ["mlflow", "noop.us", "100", "100", "1.00x"],
    ]


# ---- a run ----


@pytest.mark.parametrize(("mode", "part"), [("on", "micro"), ("off", "switched")])
def test_this_package_runs_all_rows(mode, part, tmp_path):
    with Sink() as sink:
        environment = os.environ | base_environment(tmp_path)
        environment |= adapter("fasttrace").environment(sink.uri, mode)
        arguments = ["fasttrace", mode, part, sink.uri, "0.001"]
        try:
            result = subprocess.run(
                [sys.executable, ROOT / "benchmarks/workload.py", *arguments],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
            )
        finally:
            clean_up(tmp_path)
        assert result.returncode == 0, result.stderr
        figures = json.loads(result.stdout)
        shares = {key: value for key, value in figures.items() if key.endswith(".arrived")}
        if mode == "on":
            assert len(shares) > 15
            assert set(shares.values()) == {100.0}
            assert figures["noop.us"] > 0
            assert figures["burst_chat.sender_cpu"] > 0
        else:
            assert figures.keys() == {"off.us"}
            assert sink.spans == 0


def test_what_this_package_needs_is_measured():
    command = [sys.executable, Path(ROOT) / "benchmarks/workload.py", "fasttrace", "on", "size"]
    result = subprocess.run([*command, "", "0"], capture_output=True, text=True, check=True)
    sizes = json.loads(result.stdout)
    assert 0.5 < sizes["size.own"] < 20
    assert sizes["size.needed"] > sizes["size.own"]


@pytest.mark.parametrize("place", ["sink", "sqlite"])
def test_the_delivery_of_a_backlog_is_measured(place):
    command = [sys.executable, Path(ROOT) / "benchmarks/delivery.py", "--to", place]
    command += ["--traces", "3", "--leaves", "2"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(result.stdout)
    assert figures["arrived"] == figures["spans"] == 9
    assert figures["cpu_us_a_span"] > 0
    assert figures["peak_mb"] >= figures["memory_mb"] > 0
