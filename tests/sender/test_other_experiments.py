"""A trace that another process has begun, in another experiment than this one's: servers of MLflow from 3.18 on
keep it where it was first heard of, and refuse what names another place."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow_fasttrace as mlflow
import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracing.utils.artifact_utils import get_artifact_uri_for_trace
from mlflow_fasttrace.tracing import (
    get_tracing_context_headers_for_http_request,
    set_tracing_context_from_http_request_headers,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.bench import Bench
from support.fault_proxy import HTML, INFO, JSON, SPANS, FaultProxy, Reply, Request
from support.lengths import long_but
from support.servers import MlflowServer, python_of_release
from support.spools import clean_up
from support.traces import names_of, traces_of
from support.waiting import wait_until

CALLER = """
import os, time
import mlflow_fasttrace as mlflow
from mlflow_fasttrace.tracing import get_tracing_context_headers_for_http_request

os.chdir({folder!r})
mlflow.set_experiment({experiment!r})
with mlflow.start_span("start"):
    mlflow.update_current_trace(tags={{"begun": "here"}})
    with mlflow.start_span("first"):
        pass
    if {known}:
        mlflow.flush_trace_async_logging()
    with open("headers.new", "w") as file:
        file.write(get_tracing_context_headers_for_http_request()["traceparent"])
    os.rename("headers.new", "headers")
    while not os.path.exists("go on"):
        time.sleep(0.01)
mlflow.flush_trace_async_logging()
"""

SERVICE = """
import mlflow_fasttrace as mlflow
from mlflow.tracing.attachments import Attachment
from mlflow_fasttrace.tracing import set_tracing_context_from_http_request_headers

mlflow.set_experiment({experiment!r})
with set_tracing_context_from_http_request_headers({{"traceparent": {traceparent!r}}}):
    with mlflow.start_span("continued") as span:
        span.set_outputs(Attachment(content_type="image/png", content_bytes=b"picture"))
mlflow.flush_trace_async_logging()
"""


class KeepsTraces:
    """Answers for a server as one of MLflow 3.18 does, where a trace is sent to two experiments."""

    def __init__(self):
        self.experiments: dict[str, str] = {}
        self.most_spans = 1000  # in a request; the proxy before the server refuses more

    def __call__(self, request: Request) -> Reply | None:
        sent: list[tuple[str, str]] = []
        if request.method == "POST" and request.path == SPANS:
            spans = ExportTraceServiceRequest.FromString(request.body).resource_spans[0]
            sent = [
                ("tr-" + span.trace_id.hex(), request.headers["x-mlflow-experiment-id"])
                for span in spans.scope_spans[0].spans
            ]
            if len(sent) > self.most_spans:
                return Reply(413)
        elif request.method == "POST" and request.path == INFO:
            info = json.loads(request.body)["trace"]["trace_info"]
            place = info["trace_location"]["mlflow_experiment"]["experiment_id"]
            sent = [(info["trace_id"], place)]
        for trace_id, experiment in sent:
            if self.experiments.setdefault(trace_id, experiment) != experiment:
                words = f"Trace with ID '{trace_id}' already exists in another experiment."
                body = (
                    {"detail": words}
                    if request.path == SPANS
                    else {
                        "error_code": "INVALID_PARAMETER_VALUE",
                        "message": words,
                    }
                )
                return Reply(400, json.dumps(body).encode(), JSON)
        return None


@pytest.fixture(scope="module", params=long_but(["as 3.18"], ["as 3.18", "3.18.0"]))
def keeper(request, tmp_path_factory):
    """The address of a server that keeps traces where they are."""
    if request.param == "as 3.18":
        with FaultProxy(request.getfixturevalue("server").uri, KeepsTraces()) as proxy:
            yield proxy.uri
        return
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.python = python_of_release(request.param)
    with server:
        yield server.uri


@pytest.mark.parametrize("known", [True, False], ids=["begun before", "begun after"])
def test_a_part_of_a_trace_goes_where_the_rest_is(
    keeper, known, own_spool, run_program, tmp_path, experiment
):
    """The two are sent by two senders, as from two machines."""
    other_spool, headers = tmp_path / "other spool", tmp_path / "headers"
    other_spool.mkdir()
    caller = run_program(
        CALLER.format(folder=str(tmp_path), experiment=experiment, known=known),
        wait=False,
        MLFLOW_TRACKING_URI=keeper,
        MLFLOW_FASTTRACE_OPEN_TRACE_SECONDS="1000",
    )
    wait_until(headers.exists, what="the headers")
    service = run_program(
        SERVICE.format(experiment=f"{experiment}, service", traceparent=headers.read_text()),
        MLFLOW_TRACKING_URI=keeper,
        MLFLOW_FASTTRACE_SPOOL_DIR=str(other_spool),
    )
    try:
        assert service.returncode == 0, service.err
        (tmp_path / "go on").touch()
        caller.succeeds()
        found = {name: traces_of(keeper, name) for name in (experiment, f"{experiment}, service")}
        empty = f"{experiment}, service" if known else experiment
        assert found.pop(empty) == []
        ((trace,),) = found.values()
        assert names_of(trace) == [("", "start"), ("start", "continued"), ("start", "first")]
        assert trace.info.tags["begun"] == "here"
        assert trace.info.state == "OK"
        repository = get_artifact_repository(get_artifact_uri_for_trace(trace.info))
        (attachment,) = repository.list_artifacts("attachments")
        path = repository.download_artifacts(attachment.path, str(tmp_path))
        assert Path(path).read_bytes() == b"picture"
        for spool in own_spool, other_spool:
            assert not list(spool.glob("*/refused-*"))
    finally:
        clean_up(other_spool)


def begun_elsewhere(count: int, uri: str, experiment: str, folder: Path) -> list[dict[str, str]]:
    """Traces that another sender has delivered; the headers by which they are continued."""
    folder = folder / "elsewhere"
    folder.mkdir()
    elsewhere = Bench(folder)
    elsewhere.to(uri, experiment)
    headers = []
    for _ in range(count):
        with mlflow.start_span("start"):
            headers.append(get_tracing_context_headers_for_http_request())
    elsewhere.run()
    return headers


@pytest.mark.parametrize("most_spans", [1000, 1], ids=["at once", "in parts"])
def test_traces_that_another_process_has_begun_are_looked_up_once(
    server, bench, experiment, most_spans, tmp_path
):
    keeps = KeepsTraces()
    with FaultProxy(server.uri, keeps) as proxy:
        headers = begun_elsewhere(8, proxy.uri, experiment, tmp_path)
        bench.to(proxy.uri, f"{experiment}, service")
        with mlflow.start_span("own"):
            pass
        for each in headers:
            with set_tracing_context_from_http_request_headers(each):
                for name in "a", "b":
                    with mlflow.start_span(name):
                        pass
        keeps.most_spans = most_spans
        already = len(proxy.requests)
        bench.run(seconds=60)
        asked = [request for request in proxy.requests[already:] if request.method == "GET"]
        sent = [request for request in proxy.requests[already:] if request.path == SPANS]
    assert sum("/traces/tr-" in request.path for request in asked) == 8
    if most_spans > 1:
        assert len(sent) <= 4
    traces = traces_of(server.uri, experiment)
    expected = [("", "start"), ("start", "a"), ("start", "b")]
    assert [names_of(trace) for trace in traces] == [expected] * 8
    (own,) = traces_of(server.uri, f"{experiment}, service")
    assert names_of(own) == [("", "own")]
    assert not bench.dead_letters()


def test_a_trace_that_nobody_lets_it_look_up_waits_and_others_go(
    server, bench, experiment, tmp_path
):
    keeps = KeepsTraces()

    def fault(request: Request) -> Reply | None:
        if request.method == "GET" and "/traces/tr-" in request.path:
            return Reply(403, b"not yours", HTML)
        return keeps(request)

    with FaultProxy(server.uri, fault) as proxy:
        (headers,) = begun_elsewhere(1, proxy.uri, experiment, tmp_path)
        bench.to(proxy.uri, f"{experiment}, service")
        with set_tracing_context_from_http_request_headers(headers):
            with mlflow.start_span("continued"):
                pass
        for _ in range(3):
            with mlflow.start_span("own"):
                pass
        bench.run(until=lambda: bench.left() == 1)
    assert len(traces_of(server.uri, f"{experiment}, service")) == 3
    assert not bench.dead_letters()
