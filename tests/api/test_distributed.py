"""One trace over several processes: services of FastAPI that call each other, over loopback."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import httpx
import mlflow_fasttrace
import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.sender.assemble import Assembler
from mlflow_fasttrace._internal.sender.sources import Entry
from mlflow_fasttrace._internal.spool.records import PHASE_COMPLETE
from mlflow_fasttrace.tracing import (
    get_tracing_context_headers_for_http_request,
    set_tracing_context_from_http_request_headers,
)
from support.processes import module_path
from support.records import NoSource, items_of, traces_in
from support.traces import traces_of
from support.waiting import free_port, wait_until

REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


@contextlib.contextmanager
def service(way, server, following=""):
    """A service of tests/programs/service.py; gives its address."""
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "uvicorn",
            "programs.service:app",
            "--port",
            str(port),
            "--log-level",
            "error",
        ],
        env={
            **os.environ,
            "PYTHONPATH": module_path(),
            "WAY": way,
            "NEXT": following,
            "MLFLOW_TRACKING_URI": server.uri,
            "EXPERIMENT": "distributed",
        },
    )
    uri = f"http://127.0.0.1:{port}"

    def answers():
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(uri + "/health").status_code == 200

    try:
        wait_until(answers, what="the service")
        yield uri
    finally:
        process.terminate()
        process.wait()


def test_a_service_that_calls_another_gives_one_trace(server):
    with service("installed", server) as back, service("dropin", server, back) as front:
        begun = httpx.post(front + "/start", params={"n": 1}, timeout=600).json()
        unsampled = httpx.post(
            back + "/continue",
            params={"n": 7},
            headers={"Traceparent": REMOTE + "-00"},
            timeout=600,
        ).json()
        foreign = httpx.post(
            back + "/continue",
            params={"n": 8},
            headers={"traceparent": REMOTE + "-01", "tracestate": "vendor=value"},
        ).json()

    def arrived():
        found = {trace.info.trace_id: trace for trace in traces_of(server.uri, "distributed")}
        sizes = sorted(len(trace.data.spans) for trace in found.values())
        # A part of the trace may have gone before its root had ended: its info goes behind the rest.
        known = begun["trace_id"] in found and found[begun["trace_id"]].info.tags.get("begun")
        return found if sizes == [2, 7] and known else None

    traces = wait_until(arrived, what="the traces' arrival")
    trace = traces[begun["trace_id"]]
    names = {span.span_id: span.name for span in trace.data.spans}
    assert sorted((span.name, names.get(span.parent_id, "")) for span in trace.data.spans) == [
        *((f"continue {n}", "start") for n in (1, 2, 3)),
        ("start", ""),
        *(("work", f"continue {n}") for n in (1, 2, 3)),
    ]
    assert trace.info.state == "OK"
    assert trace.info.tags["begun"] == "here"
    assert trace.info.tags["mlflow.traceName"] == "start"
    assert trace.info.trace_metadata["mlflow.trace.session"] == "session-1"
    assert trace.data.spans[0].outputs == 9

    # A caller that does not sample a trace is followed.
    assert unsampled["sent"]["traceparent"].endswith("-00")
    assert unsampled["trace_id"] == "MLFLOW_NO_OP_SPAN_TRACE_ID"

    # A trace that another vendor began is continued, with its state, though its own span is elsewhere.
    assert foreign["received"] == {"traceparent": REMOTE + "-01", "tracestate": "vendor=value"}
    assert foreign["sent"]["traceparent"].startswith(REMOTE[:36])
    assert foreign["sent"]["tracestate"] == "vendor=value"
    spans = {span.name: span for span in traces[foreign["trace_id"]].data.spans}
    assert set(spans) == {"continue 8", "work"}
    assert spans["continue 8"].parent_id == REMOTE[36:]
    assert set(traces) == {begun["trace_id"], foreign["trace_id"]}


def test_headers_without_a_trace_begin_none(recorded, caplog):
    assert get_tracing_context_headers_for_http_request() == {}
    assert "No active span found" in caplog.text
    with pytest.raises(Exception, match="required key 'traceparent'"):
        with set_tracing_context_from_http_request_headers({"a": "b"}):
            pass
    with set_tracing_context_from_http_request_headers({"traceparent": "nonsense"}):
        with mlflow_fasttrace.start_span("root") as root:
            assert root.parent_id is None


def test_a_request_that_comes_back_joins_the_trace(recorded):
    with mlflow_fasttrace.start_span("root") as root:
        headers = get_tracing_context_headers_for_http_request()
        with set_tracing_context_from_http_request_headers(headers):
            assert mlflow_fasttrace.get_current_active_span() is None
            with mlflow_fasttrace.start_span("back") as back:
                assert back.parent_id == root.span_id
                assert back.trace_id == root.trace_id
                assert back._trace is root._trace
        assert mlflow_fasttrace.get_current_active_span() is root
    infos = [trace.info for _id, trace in traces_in(recorded.reader)]
    assert infos
    assert not any("remote" in info for info in infos)


def test_an_info_of_another_processs_trace_is_remote(recorded):
    with set_tracing_context_from_http_request_headers({"traceparent": REMOTE + "-01"}):
        with mlflow_fasttrace.start_span("part"):
            mlflow_fasttrace.update_current_trace(tags={"t": "v"})
    traces = [trace for _id, trace in traces_in(recorded.reader)]
    assert traces
    assert all(trace.info["remote"] for trace in traces)
    assert traces[-1].phase == PHASE_COMPLETE, "it does not wait for a root"


@pytest.mark.parametrize("remote_first", [True, False])
def test_the_info_is_that_of_the_process_that_began_the_trace(recorded, remote_first):
    """One sender may deliver for both processes."""
    with set_tracing_context_from_http_request_headers({"traceparent": REMOTE + "-01"}):
        with mlflow_fasttrace.start_span("part"), mlflow_fasttrace.start_span("deeper"):
            pass
    part = items_of(recorded.reader)
    trace_id = bytes.fromhex(REMOTE[3:35])
    root = _core.start_span("root", None, None, None, None, None, trace_id)
    child = _core.start_span("child", root, None, None, None, None)
    child.end()
    begun = items_of(recorded.reader)  # the root is open still
    assembler = Assembler()
    for kind, _trace, record in part + begun if remote_first else begun + part:
        assembler.add([Entry(NoSource(), 0, kind, trace_id, record)])
    trace = assembler.open[trace_id]
    assert not trace.remote
    assert trace.info.info["name"] == "root"
    root.end()
