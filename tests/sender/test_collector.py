"""Traces that go to an OpenTelemetry collector: equal to MLflow's, and none lost."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow_fasttrace as mlflow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.sender import collectors, dead_letters, life
from mlflow_fasttrace._internal.sender.exceptions import Unavailable
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from programs.run_for_collector import PROGRAMS
from support import texts
from support.bench import Bench, record
from support.fault_proxy import FaultProxy, Reply, Request
from support.made_records import span_with_value, trace_record
from support.otlp_receiver import Receiver, spans_of, trees
from support.processes import Program, run_module
from support.pythons import pip_install, venv_of
from support.records import spans_in, traces_in
from support.texts import says_that_it_waits
from support.traces import traces_of
from support.waiting import Patience, free_port, refusing_port, wait_until

HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}


def has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


needs_exporter = pytest.mark.skipif(
    not has("opentelemetry.exporter.otlp.proto.http"),
    reason="MLflow needs opentelemetry-exporter-otlp-proto-http to send to a collector",
)
needs_grpc = pytest.mark.skipif(not has("grpc"), reason="grpcio is not installed")


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


def endpoint(receiver: Receiver) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.uri, **HTTP}


# ---- equal to MLflow ----


class Run:
    """What a collector got of all programs under one module."""

    def __init__(self, module: str, folder: Path, **environment: str):
        uri = f"sqlite:///{folder}/unused.db"
        with Receiver() as receiver:
            settings = {**endpoint(receiver), **environment}
            result = run_module("programs.run_for_collector", module, uri, **settings)
            self.times = json.loads(result.stdout.splitlines()[-1])
            self.spans = receiver.spans()
        self.paths = set(receiver.paths)

    def of(self, program: str) -> list[dict]:
        begin, end = self.times[program]
        return trees([span for span in self.spans if begin <= span["start"] <= end])


def both(tmp_path_factory, name: str, **environment: str) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp(name)
    return Run("mlflow", folder, **environment), Run("mlflow_fasttrace", folder, **environment)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return both(tmp_path_factory, "plain")


@pytest.fixture(scope="module")
def translated(tmp_path_factory):
    # The resource of a named service, too.
    return both(
        tmp_path_factory,
        "translated",
        MLFLOW_ENABLE_OTEL_GENAI_SEMCONV="true",
        OTEL_SERVICE_NAME="shop",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment=te%20st,n=1",
    )


@needs_exporter
@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_the_spans_are_mlflows(plain, program):
    pure, core = plain
    assert pure.of(program), "MLflow itself sent nothing"
    assert core.of(program) == pure.of(program)


@needs_exporter
@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_the_spans_are_mlflows_in_the_words_of_generative_ai(translated, program):
    def without_instance(run: Run):
        for span in run.spans:
            span["resource"].pop("service.instance.id", None)
        return run.of(program)

    pure, core = map(without_instance, translated)
    assert pure
    assert core == pure


@needs_exporter
def test_the_address_is_mlflows(plain):
    pure, core = plain
    assert core.paths == pure.paths == {"/v1/traces"}


def test_tags_travel_with_the_root(receiver, run_program):
    """MLflow means to do so, and does with older versions of OpenTelemetry's SDK."""
    code = """
import mlflow_fasttrace as mlflow
with mlflow.start_span("root"):
    mlflow.update_current_trace(tags={"fruit": "apple", "mlflow.own": "no"})
    with mlflow.start_span("child"):
        pass
"""
    process = run_program(code, **endpoint(receiver))
    assert process.returncode == 0, process.err
    tags = {
        span["name"]: {k: v for k, v in span["attributes"].items() if k.startswith("mlflow.traceT")}
        for span in receiver.spans()
    }
    assert tags == {"root": {"mlflow.traceTag.fruit": ("string_value", "'apple'")}, "child": {}}


# ---- encoding ----


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=40),
    st.binary(max_size=12),
    st.one_of(st.none(), st.text(max_size=4).map(lambda name: name.encode("utf-8", "replace"))),
    st.booleans(),
)
def test_a_damaged_span_is_left_out_of_its_request(value, extra, name, as_json):
    good, empty = span_with_value(_core.encode({"k": [1, "x"]})), _core.encode({})
    spans = [
        (good, 1, empty, None),
        (span_with_value(value), 1, extra, name),
        (good, 1, empty, None),
    ]
    body, refused = _core.collector_request(spans, empty, as_json)
    assert refused in ([], [1])
    sent = spans_of(ExportTraceServiceRequest.FromString(body))
    assert len(sent) == 3 - len(refused)
    assert sent[0] == sent[-1], "the good ones are as they were"


def test_lone_surrogates_become_question_marks():
    span = span_with_value(_core.encode({"\ud800a": ["b\udfff", "\ud7ff", "\ue000"]}))
    empty = _core.encode({})
    body, refused = _core.collector_request([(span, 1, empty, None)], empty, True)
    assert not refused
    (sent,) = spans_of(ExportTraceServiceRequest.FromString(body))
    assert json.loads(eval(sent["attributes"]["k"][1])) == {"?a": ["b?", "\ud7ff", "\ue000"]}


@pytest.mark.parametrize(
    "args",
    [
        (None, b"\x80", True),
        ([None], b"\x80", True),
        ([(b"", 1)], b"\x80", True),
        ([(b"", "1", b"\x80", None)], b"\x80", True),
        ([], b"", True),
        ([], b"\x81\x01", True),
    ],
)
def test_odd_arguments_are_refused(args):
    with pytest.raises((TypeError, ValueError)):
        _core.collector_request(*args)


# ---- delivery ----


def program_text(traces: int, then: str = "") -> str:
    """Such a program, whose environment says where its traces go."""
    return texts.program_text(None, None, traces, then)


def assert_all_there(receiver: Receiver, traces: int, seconds: float = 60) -> None:
    """Every span, once."""
    wait_until(lambda: len(receiver.spans()) >= 2 * traces, seconds, f"{traces} traces")
    found = receiver.spans()
    assert len({(span["trace"], span["id"]) for span in found}) == len(found) == 2 * traces
    inputs = sorted(json.loads(eval(s["attributes"]["mlflow.spanInputs"][1]))["n"] for s in found)
    assert inputs == sorted(2 * list(range(traces)))


def test_a_collector_that_comes_later_gets_all(own_spool, run_program):
    port = free_port()
    patience = Patience(15)
    process = run_program(
        program_text(50),
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://127.0.0.1:{port}/x/traces",
        **HTTP,
    )
    assert process.returncode == 0, process.err
    assert not patience.is_over(), "the exit must not wait for the collector"
    with Receiver(port) as receiver:
        assert_all_there(receiver, 50)
        assert set(receiver.paths) == {"/x/traces"}


def test_a_busy_collector_gets_all_once(receiver, own_spool, run_program):
    """The collector says when to come again, or does not say it."""
    receiver.answers += [(503, {"retry-after": "1"}), (429, {}), (404, {})]
    began = time.monotonic()
    process = run_program(program_text(20), **endpoint(receiver))
    assert process.returncode == 0, process.err
    assert_all_there(receiver, 20)
    assert not receiver.answers
    assert time.monotonic() - began >= 1


def test_a_span_that_makes_the_collector_fail_holds_up_no_other(receiver, own_spool, run_program):
    receiver.refuses = lambda request: any(s["name"] == "bad" for s in spans_of(request))
    receiver.refusal = 500
    code = program_text(5, '\nwith mlflow.start_span("bad"): pass\n') + "\nroot(5)\n"
    process = run_program(code, **endpoint(receiver))
    assert process.returncode == 0, process.err
    assert_all_there(receiver, 6)
    receiver.refuses = lambda request: False
    wait_until(lambda: "bad" in {span["name"] for span in receiver.spans()}, 30)
    assert not list(own_spool.glob("*/refused-*"))


def test_a_collector_that_fails_gets_all_later(receiver, own_spool, run_program):
    """The fault is the collector's, not the spans': none becomes a dead letter."""
    receiver.refuses, receiver.refusal = (lambda request: True), 500
    process = run_program(program_text(5), **endpoint(receiver))
    assert process.returncode == 0, process.err
    wait_until(lambda: list(own_spool.glob("*/packed-*.seg")))
    receiver.refuses = lambda request: False
    assert_all_there(receiver, 5)
    assert not list(own_spool.glob("*/refused-*"))


def test_a_refused_span_is_a_dead_letter(receiver, own_spool, run_program):
    receiver.refuses = lambda request: any(s["name"] == "bad" for s in spans_of(request))
    code = program_text(10, '\nwith mlflow.start_span("bad"): pass\n')
    process = run_program(code, **endpoint(receiver))
    assert process.returncode == 0, process.err
    assert_all_there(receiver, 10)
    (refused,) = wait_until(lambda: list(own_spool.glob("*/refused-*.seg.refused")))
    assert [span.name for span in spans_in(refused)] == ["bad"]
    note = refused.with_name(refused.name.removesuffix(".seg.refused") + ".txt")
    assert "400" in note.read_text()


def test_a_refused_span_that_cannot_be_set_aside_stays_in_its_ring(receiver, tmp_path, monkeypatch):
    """The spool folder is gone for a while; no other span is sent twice."""
    monkeypatch.setattr(dead_letters, "RETRY_SECONDS", 0.5)
    receiver.refuses = lambda request: any(s["name"] == "bad" for s in spans_of(request))
    bench = Bench(tmp_path)
    uri = f"otlp+{receiver.uri}/v1/traces"
    bench.sender = life.sender_for(str(bench.folder), bench.rings, uri)
    bench.to(uri, {"id": "0"})
    try:
        gone = bench.folder.rename(bench.folder.with_name("gone"))
        with mlflow.start_span("good"):
            record(1, "bad")
            record(1, "good too")
        bench.run(lambda: bench.left() == 1 and len(receiver.spans()) == 2)
        asked = len(receiver.paths)
        bench.run(lambda: len(receiver.paths) > asked)
        (ring,) = bench.sender.intake.rings.values()
        assert ring.reader.tail < ring.reader.head
        gone.rename(bench.folder)
        bench.run()
        assert ring.reader.tail == ring.reader.head
    finally:
        destination.reset()
    assert len(bench.dead_letters()) == 1
    assert sorted(span["name"] for span in receiver.spans()) == ["good", "good too"]


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_headers_and_compression_are_as_set(receiver, own_spool, run_program, compression):
    process = run_program(
        program_text(3),
        **endpoint(receiver),
        OTEL_EXPORTER_OTLP_COMPRESSION=compression,
        OTEL_EXPORTER_OTLP_HEADERS="x-other=1",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS="Authorization=Bearer%20s3cret,x-tenant=t",
    )
    assert process.returncode == 0, process.err
    assert_all_there(receiver, 3)
    headers = receiver.headers[0]
    assert headers["authorization"] == "Bearer s3cret"
    assert headers["x-tenant"] == "t"
    assert "x-other" not in headers
    assert headers["content-encoding"] == compression
    assert headers["content-type"] == "application/x-protobuf"


def test_secrets_stay_off_the_disk(own_spool, run_program):
    port = free_port()
    process = run_program(
        program_text(3),
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://me:s3cret@127.0.0.1:{port}/v1/traces?key=s3cret",
        OTEL_EXPORTER_OTLP_HEADERS="authorization=s3cret",
        **HTTP,
    )
    assert process.returncode == 0, process.err
    assert "s3cret" not in process.err
    segments = wait_until(lambda: list(own_spool.glob("*/packed-*.seg")))
    destinations = [trace.destination for _trace_id, trace in traces_in(segments[0])]
    assert {destination["uri"] for destination in destinations} == {
        f"otlp+http://127.0.0.1:{port}/v1/traces"
    }
    for file in own_spool.rglob("*"):
        assert not file.is_file() or b"s3cret" not in file.read_bytes()
    # With other credentials there is another spool, whose sender has them.
    process = run_program(
        program_text(1),
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://127.0.0.1:{port}/v1/traces",
        OTEL_EXPORTER_OTLP_HEADERS="authorization=other",
        **HTTP,
    )
    assert len(list(own_spool.glob("*/sender.lock"))) == 2


def test_spans_go_before_their_root_ends(receiver, own_spool, run_program):
    process = run_program(program_text(0, texts.ENDS_LATER), wait=False, **endpoint(receiver))
    assert process.stdout.readline() == "leaf ended\n"
    wait_until(lambda: [s["name"] for s in receiver.spans()] == ["leaf"], 20)
    (process.folder / "go").touch()
    process.finish()
    assert [span["name"] for span in receiver.spans()] == ["leaf", "root"]


def test_all_arrives_of_a_killed_program(receiver, own_spool, run_program):
    run_program(program_text(200, texts.KILLS_ITSELF), **endpoint(receiver))
    assert_all_there(receiver, 200)


def test_a_sender_thread_delivers_all(receiver, own_spool, run_program):
    process = run_program(program_text(5), **endpoint(receiver), MLFLOW_FASTTRACE_SENDER="thread")
    assert process.returncode == 0, process.err
    assert_all_there(receiver, 5)


# ---- which of the two, or both ----


def to_both(receiver_uri: str, server_uri: str, experiment: str | None = None) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver_uri,
        **HTTP,
        "MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT": "true",
        "MLFLOW_TRACKING_URI": server_uri,
        **({"MLFLOW_EXPERIMENT_NAME": experiment} if experiment else {}),
    }


READ_BACK = """
begin = time.monotonic()
trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
print(len(trace.data.spans), time.monotonic() - begin)
"""


def assert_read_back(process: Program) -> None:
    """READ_BACK found the last trace whole, before long."""
    assert process.returncode == 0, process.err
    spans, seconds = process.out.split()
    assert int(spans) == 2
    assert float(seconds) < 25


def test_a_trace_goes_to_the_server_and_the_collector(receiver, server, own_spool, run_program):
    process = run_program(program_text(20, READ_BACK), **to_both(receiver.uri, server.uri, "both"))
    assert_read_back(process)
    assert len(traces_of(server.uri, "both")) == 20
    assert_all_there(receiver, 20)
    ids = {trace.info.trace_id for trace in traces_of(server.uri, "both")}
    assert ids == {"tr-" + span["trace"] for span in receiver.spans()}


def test_a_collector_that_is_away_keeps_nothing_from_the_server(server, own_spool, run_program):
    port = free_port()
    environment = to_both(f"http://127.0.0.1:{port}", server.uri, "collector away")
    process = run_program(program_text(20, READ_BACK), **environment)
    assert_read_back(process)
    wait_until(lambda: len(traces_of(server.uri, "collector away")) == 20, 60, "20 traces")
    with Receiver(port) as receiver:
        assert_all_there(receiver, 20)
    assert len(traces_of(server.uri, "collector away")) == 20


def test_a_server_that_is_away_keeps_nothing_from_the_collector(receiver, own_spool, run_program):
    environment = to_both(receiver.uri, f"http://127.0.0.1:{refusing_port()}")
    process = run_program(program_text(20), **environment)
    assert process.returncode == 0, process.err
    assert_all_there(receiver, 20)
    assert wait_until(lambda: list(own_spool.glob("*/packed-*.seg"))), "nothing waits for MLflow"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"MLFLOW_ENABLE_OTLP_EXPORTER": "false"}, []),
        ({"MLFLOW_TRACING_DESTINATION": "0"}, []),
        ({}, ["leaf", "root"]),
    ],
)
def test_a_trace_goes_to_the_collector_unless_the_environment_says_otherwise(
    receiver, own_spool, run_program, tmp_path, given, names
):
    uri = f"sqlite:///{tmp_path}/x.db"
    process = run_program(program_text(1), **endpoint(receiver), MLFLOW_TRACKING_URI=uri, **given)
    assert process.returncode == 0, process.err
    assert sorted(span["name"] for span in receiver.spans()) == names
    assert (tmp_path / "x.db").exists() == (not names)


# ---- gRPC ----


def with_client_certificate(certificate: tuple[str, str]) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": certificate[0],
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": certificate[0],
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": certificate[1],
    }


def test_a_collector_that_asks_for_a_certificate_is_shown_it(
    receiver, own_spool, run_program, certificate
):
    """Without a certificate, or without the collector's authority, everything waits."""
    with FaultProxy(receiver.uri, certificate=certificate, client_authority=certificate[0]) as tls:
        to = {"OTEL_EXPORTER_OTLP_ENDPOINT": tls.uri, **HTTP}
        both = with_client_certificate(certificate)
        for number, missing in enumerate(("CERTIFICATE", "CLIENT_CERTIFICATE"), 1):
            given = {k: v for k, v in both.items() if k != f"OTEL_EXPORTER_OTLP_{missing}"}
            process = run_program(program_text(1), **to, **given, MLFLOW_FASTTRACE_EXIT_TIMEOUT="1")
            assert process.returncode == 0, process.err
            assert says_that_it_waits(process.err)

            def tried() -> bool:
                logs = [log.read_text() for log in own_spool.glob("*/sender.log")]
                return sum("does not answer" in log for log in logs) == number  # noqa: B023

            wait_until(tried, 30, "the refusal in the log")
        assert receiver.spans() == []
        process = run_program(program_text(5), **to, **both)
        assert process.returncode == 0, process.err
        assert process.err == ""
    assert_all_there(receiver, 5)


def test_a_collector_that_does_not_answer_is_asked_again(receiver, own_spool, run_program):
    """The collector has as long as OTEL_EXPORTER_OTLP_TRACES_TIMEOUT says, then the request is made again."""
    asked = []

    def fault(request: Request) -> Reply | None:
        asked.append(time.monotonic())
        return Reply(silent=True) if len(asked) == 1 else None

    with FaultProxy(receiver.uri, fault) as proxy:
        process = run_program(
            program_text(5),
            OTEL_EXPORTER_OTLP_ENDPOINT=proxy.uri,
            OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="1",
            **HTTP,
        )
        assert process.returncode == 0, process.err
        assert_all_there(receiver, 5)
    assert 1 <= asked[1] - asked[0] < 9, "not the usual 10 s"


@needs_grpc
@pytest.mark.parametrize("tls", [False, True])
def test_a_collector_gets_all_by_grpc(own_spool, run_program, certificate, tls):
    import grpc
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )

    requests, metadata, busy = [], [], [1]

    def export(request, context):
        metadata.append(dict(context.invocation_metadata()))
        if busy:
            busy.pop()
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        requests.append(request)
        return ExportTraceServiceResponse()

    handler = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService",
        {
            "Export": grpc.unary_unary_rpc_method_handler(
                export,
                ExportTraceServiceRequest.FromString,
                ExportTraceServiceResponse.SerializeToString,
            )
        },
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    if tls:
        chain, key = (Path(file).read_bytes() for file in certificate)
        credentials = grpc.ssl_server_credentials([(key, chain)], chain, True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        process = run_program(
            program_text(10),
            # (gRPC is MLflow's default.)
            OTEL_EXPORTER_OTLP_ENDPOINT=f"{'https' if tls else 'http'}://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_HEADERS="X-Tenant=t",
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            **(with_client_certificate(certificate) if tls else {}),
        )
        assert process.returncode == 0, process.err
        wait_until(lambda: sum(len(spans_of(request)) for request in requests) >= 20)
    finally:
        server.stop(None)
    assert sum(len(spans_of(request)) for request in requests) == 20
    assert metadata[0]["x-tenant"] == "t"


def test_one_line_says_that_grpc_is_not_installed(receiver, own_spool, run_program):
    without = "import sys; sys.modules['grpc'] = None\n"
    process = run_program(
        without + program_text(3), OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1"
    )
    assert process.returncode == 0, process.err
    assert process.err.count("gRPC is not installed") == 1
    assert "opentelemetry-exporter-otlp-proto-grpc" in process.err

    def waiting() -> int:
        return sum(len(spans_in(path)) for path in own_spool.glob("*/*.seg"))

    wait_until(lambda: waiting() == 6, 30, "six spans on disk")


# ---- a server that others wrote ----


class Phoenix:
    """Arize Phoenix, from PyPI, in a virtual environment of its own."""

    def __init__(self, folder: Path):
        python = venv_of("{}.{}".format(*sys.version_info), folder / "venv")
        try:
            pip_install(python, "arize-phoenix")
        except subprocess.CalledProcessError:
            pytest.skip("arize-phoenix cannot be installed here")
        self.port, self.grpc_port = free_port(), free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [Path(python).parent / "phoenix", "serve"],
            stdout=(folder / "phoenix.log").open("wb"),
            stderr=subprocess.STDOUT,
            env={
                "PATH": os.environ["PATH"],
                "PHOENIX_HOST": "127.0.0.1",
                "PHOENIX_PORT": str(self.port),
                "PHOENIX_GRPC_PORT": str(self.grpc_port),
                "PHOENIX_WORKING_DIR": str(folder),
                "PHOENIX_TELEMETRY_ENABLED": "false",
            },
        )

    def spans(self) -> list[dict]:
        url = self.uri + "/v1/projects/default/spans?limit=1000"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except OSError:  # not up yet, or no span yet
            return []

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.mark.long
@needs_grpc
def test_phoenix_gets_all(own_spool, run_program, tmp_path):
    phoenix = Phoenix(tmp_path)
    try:
        http = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": phoenix.uri,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        }
        grpc = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{phoenix.grpc_port}"}
        for environment in ({**http, **HTTP}, grpc):
            process = run_program(program_text(50), **environment)
            assert process.returncode == 0, process.err
        spans = wait_until(lambda: len(found := phoenix.spans()) >= 200 and found, 120, "the spans")
        assert len(spans) == 200
        assert {span["name"] for span in spans} == {"leaf", "root"}
        assert {span["status_code"] for span in spans} == {"OK"}
        roots = {span["context"]["span_id"] for span in spans if span["name"] == "root"}
        assert {span["parent_id"] for span in spans if span["name"] == "leaf"} == roots
        inputs = [json.loads(span["attributes"]["mlflow.spanInputs"])["n"] for span in spans]
        assert sorted(inputs) == sorted(4 * list(range(50)))
    finally:
        phoenix.stop()


# ---- what a collector says of a request, in the test's own process ----


def collector_bench(folder: Path, uri: str) -> Bench:
    bench = Bench(folder)
    uri = f"otlp+{uri}/v1/traces"
    bench.sender = life.sender_for(str(bench.folder), bench.rings, uri)
    bench.to(uri, {"id": "0"})
    return bench


def test_the_size_that_a_collector_takes_is_remembered(receiver, tmp_path):
    """A 413 of the first request makes the later ones smaller; nothing is sent twice."""

    def fault(request: Request) -> Reply | None:
        return Reply(413) if len(request.body) > 100_000 else None

    with FaultProxy(receiver.uri, fault) as proxy:
        bench = collector_bench(tmp_path, proxy.uri)
        try:
            record(20, inputs="x" * 20_000)
            bench.run()
            refused = len([request for request in proxy.requests if fault(request)])
            assert refused > 0
            record(20, inputs="x" * 20_000)
            bench.run()
            assert len([request for request in proxy.requests if fault(request)]) == refused
            record(1, "alone too large", inputs="x" * 200_000)
            bench.run()
        finally:
            destination.reset()
    assert len(receiver.spans()) == 40
    (reason,) = bench.dead_letters()
    assert "413" in reason


def test_a_span_that_cannot_be_encoded_is_a_dead_letter(receiver, tmp_path):
    bench = collector_bench(tmp_path, receiver.uri)
    try:
        damaged = span_with_value(b"\xc7\x01\x63x")  # an ext type that no program writes
        _core.write_segment(
            str(bench.folder / "packed-1-1.seg"),
            [trace_record({"uri": "x", "experiment": {"id": "0"}}), damaged],
            3,
        )
        record(3)
        bench.run(lambda: len(receiver.spans()) == 3 and bench.dead_letters())
    finally:
        destination.reset()
    assert "cannot be encoded" in bench.dead_letters()[0]


def test_each_reason_why_a_collector_takes_nothing_is_logged(receiver, tmp_path, caplog):
    """Reasons that differ in more than their words do not pass for one another."""
    answers = [Reply(503), Reply(503), Reply(429), Reply(drop=True)]
    with FaultProxy(receiver.uri, lambda request: answers.pop() if answers else None) as proxy:
        bench = collector_bench(tmp_path, proxy.uri)
        try:
            record(1)
            bench.run()
        finally:
            destination.reset()
    waits = [message for message in caplog.messages if "delivery waits" in message]
    assert [word in text for word, text in zip(("429", "503"), waits, strict=True)] == [True, True]


@needs_grpc
@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED"])
def test_a_grpc_collector_that_lets_nobody_in_gets_a_hint(code):
    import grpc

    def export(request, context):
        context.abort(getattr(grpc.StatusCode, code), "who are you?")

    handler = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService",
        {"Export": grpc.unary_unary_rpc_method_handler(export)},
    )
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(Unavailable, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
            collectors.open_collector(f"otlp+grpc://127.0.0.1:{port}").send(b"")
    finally:
        server.stop(None)
    assert caught.value.unauthenticated
