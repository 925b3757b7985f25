"""Whatever a server answers, and however: no trace is lost or counted as delivered too early, and a trace
that is refused holds up no other. The ways to a server: proxies, TLS, signing in."""

from __future__ import annotations

import pytest
from support.fault_proxy import HTML, INFO, JSON, SPANS, FaultProxy, Reply, Request, Times, TooLarge
from support.processes import Program
from support.servers import MlflowServer
from support.spools import refusals
from support.texts import assert_all_there, program_text
from support.traces import traces_of
from support.waiting import wait_until

TEMPORARY = {
    "500 without a word": Times(3, Reply(500)),
    "500 of MLflow": Times(
        3, Reply(500, b'{"error_code": "INTERNAL_ERROR", "message": "x"}', JSON)
    ),
    "502 of a proxy": Times(3, Reply(502, b"<html>Bad Gateway</html>", HTML)),
    "503": Times(3, Reply(503)),
    "401": Times(2, Reply(401, b"who are you?")),
    "403": Times(2, Reply(403, b"no")),
    "400 that is not MLflow's": Times(2, Reply(400, b"<html>what?</html>", HTML)),
    "404 that is not MLflow's": Times(2, Reply(404, b"<html>nothing here</html>", HTML), INFO),
    "429 of spans": Times(2, Reply(429), SPANS),
    "429 and when to come back": Times(1, Reply(429, headers={"Retry-After": "1"})),
    "503 with a senseless Retry-After": Times(1, Reply(503, headers={"Retry-After": "soon"})),
    "200 with a page": Times(2, Reply(200, b"<html>Sign in</html>", HTML)),
    "200 with other JSON": Times(2, Reply(200, b"[1]", JSON), INFO),
    "200 with nothing": Times(2, Reply(200)),
    "half an answer": Times(2, Reply(200, b'{"trace": ' + b"1" * 500, JSON, cut=True)),
    "half an answer to what was taken": Times(
        2, Reply(200, b"1" * 500, JSON, forward=True, cut=True)
    ),
    "no answer to what was taken": Times(3, Reply(forward=True, drop=True)),
    "dropped connections": Times(4, Reply(drop=True)),
}


@pytest.fixture(scope="module")
def delivered_through(server, tmp_path_factory):
    """A program for each fault has run; all ran at once."""
    folder = tmp_path_factory.mktemp("faults")
    started = []
    for number, (name, fault) in enumerate(TEMPORARY.items()):
        proxy = FaultProxy(server.uri, fault)
        code = program_text(proxy.uri, f"fault: {name}", 10)
        # The exits do not wait for delivery: each fault takes its time, and programs need none of it.
        process = Program(code, folder, f"program{number}", MLFLOW_FASTTRACE_EXIT_TIMEOUT="0.1")
        started.append((proxy, process))
    for _proxy, process in started:
        process.succeeds()
    yield
    for proxy, _process in started:
        proxy.__exit__()


@pytest.mark.parametrize("name", TEMPORARY)
def test_a_fault_that_passes_loses_nothing(server, delivered_through, name):
    assert_all_there(server.uri, f"fault: {name}", 10)
    assert TEMPORARY[name].left == 0, "the fault did not happen"


def test_requests_that_are_too_large_go_in_parts(server, own_spool, run_program):
    """The spans of one trace may go in parts too."""
    then = """
with mlflow.start_span("many children", attributes={"n": 0}) as span:
    span.set_inputs({"n": 30})
    for n in range(40):
        leaf(n)
"""
    with FaultProxy(server.uri, TooLarge(3000)) as proxy:
        process = run_program(program_text(proxy.uri, "too large", 30, then))
        assert process.returncode == 0, process.err
        assert process.err == ""
    traces = {len(trace.data.spans) for trace in traces_of(server.uri, "too large")}
    assert traces == {2, 41}
    assert len(traces_of(server.uri, "too large")) == 31
    assert not refusals(own_spool)


def test_one_span_that_is_too_large_goes_as_a_file(server, own_spool, run_program):
    then = "\nwith mlflow.start_span('big') as span:\n    span.set_inputs({'n': 'x' * 300_000})\n"
    with FaultProxy(server.uri, TooLarge(100_000)) as proxy:
        process = run_program(program_text(proxy.uri, "one too large", 3, then))
        assert process.returncode == 0, process.err
    found = {trace.data.spans[0].name: trace for trace in traces_of(server.uri, "one too large")}
    assert len(found["big"].data.spans[0].inputs["n"]) == 300_000
    assert "root" in found


def poisoned(request: Request) -> bool:
    return b"poison" in request.body


@pytest.mark.parametrize(
    "answer",
    [
        Reply(500, b'{"error_code": "INTERNAL_ERROR", "message": "cannot"}', JSON),
        Reply(400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "cannot"}', JSON),
        Reply(422, b'{"detail": "cannot"}', JSON),
    ],
    ids=lambda reply: reply.status,
)
@pytest.mark.parametrize("path", [INFO, SPANS])
def test_one_trace_that_is_not_taken_holds_up_no_other(
    server, own_spool, run_program, path, answer
):
    then = """
with mlflow.start_span("poison") as span:
    span.set_inputs("poison")
for n in range(10, 20):
    root(n)
mlflow.flush_trace_async_logging()
for n in range(20, 30):
    root(n)
"""
    experiment = f"poison {path} {answer.status}"

    def fault(request: Request) -> Reply | None:
        return answer if request.path == path and poisoned(request) else None

    with FaultProxy(server.uri, fault) as proxy:
        process = run_program(program_text(proxy.uri, experiment, 10, then))
        assert process.returncode == 0, process.err

        def others():
            found = traces_of(server.uri, experiment)
            named = [t for t in found if t.data.spans and t.data.spans[0].name == "root"]
            return len(named) == 30

        wait_until(others, 30, "the others")
        if path == SPANS and answer.status < 500:  # a file, as MLflow's client does
            wait_until(lambda: len(traces_of(server.uri, experiment)) == 31, 30, "the file")
        elif answer.status < 500:
            (note,) = wait_until(lambda: refusals(own_spool), 30, "the dead letter")
            assert "cannot" in note


def test_a_server_that_is_no_mlflow_makes_no_dead_letters(own_spool, run_program):
    """The address is wrong: something else answers there."""
    page = Reply(404, b"<html>nothing here</html>", HTML)
    with FaultProxy("http://127.0.0.1:9", lambda request: page) as proxy:
        process = run_program(
            program_text(proxy.uri, None, 1),
            MLFLOW_EXPERIMENT_ID="1",
            MLFLOW_FASTTRACE_EXIT_TIMEOUT="3",
        )
        assert process.returncode == 0, process.err
        assert f"{proxy.uri} takes nothing now ({proxy.uri}" in process.err
    wait_until(lambda: list(own_spool.glob("*/packed-*.seg")), 30, "the segments that wait")
    assert not refusals(own_spool)


def test_a_server_that_never_answers_does_not_hold_the_program(own_spool, run_program):
    with FaultProxy("http://127.0.0.1:9", lambda request: Reply(silent=True)) as proxy:
        then = "\nprint(time.monotonic())\n"
        process = run_program(
            program_text(proxy.uri, "silent", 5, then)
            + "import atexit\natexit.register(lambda: print(time.monotonic()))\n"
            "from mlflow_fasttrace._internal.recording import flush\n"
            "atexit.unregister(flush.at_exit)\natexit.register(flush.at_exit)\n"
            "atexit.register(lambda: print(time.monotonic()))\n",
            MLFLOW_FASTTRACE_EXIT_TIMEOUT="1",
        )
        assert process.returncode == 0, process.err
        _, before, after = map(float, process.out.split())
        assert after - before < 25, "the exit waits a second, not for an answer"
    wait_until(lambda: list(own_spool.glob("*/packed-*.seg")), 30, "the segments that wait")


@pytest.mark.parametrize("answer", [Reply(404, b"<html>Not Found</html>", HTML), Reply(405)])
def test_servers_without_otlp_get_files(server, own_spool, run_program, answer):
    experiment = f"no OTLP {answer.status}"
    then = """
with mlflow.start_span("open for long"):
    leaf(0)
    mlflow.flush_trace_async_logging()
    leaf(1)
from mlflow_fasttrace.tracing import set_tracing_context_from_http_request_headers as carry_on
with carry_on({"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}):
    leaf(2)
"""

    def fault(request: Request) -> Reply | None:
        return answer if request.path == SPANS else None

    with FaultProxy(server.uri, fault) as proxy:
        process = run_program(program_text(proxy.uri, experiment, 5, then))
        assert process.returncode == 0, process.err
        assert process.err == ""
        asked = [request for request in proxy.requests if request.path == SPANS]
        assert len(asked) == 1, "it is not asked again for every trace"
    traces = {trace.data.spans[0].name: trace for trace in traces_of(server.uri, experiment)}
    assert len(traces["open for long"].data.spans) == 3
    assert len(traces_of(server.uri, experiment)) == 6
    # A part of another process's trace has no file to be in.
    (reason,) = own_spool.glob(f"*/refused-*{'a' * 32}*.txt")
    assert "the trace is another process's" in reason.read_text()


class FileStoreServer(MlflowServer):
    """A server that keeps everything in files, and has no table of spans."""

    store = "{folder}/mlruns"


def test_a_file_store_gets_all(tmp_path, own_spool, run_program, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with FileStoreServer(tmp_path) as server:
        process = run_program(program_text(server.uri, "files", 10))
        assert process.returncode == 0, process.err
        assert process.err == ""
        assert_all_there(server.uri, "files", 10)


ODD_USAGE = """
from mlflow_fasttrace import tracing
for key, value in (
    ("mlflow.chat.tokenUsage", {"input_tokens": None, "output_tokens": 1, "total_tokens": 1}),
    ("mlflow.chat.tokenUsage", {"input_tokens": "x", "output_tokens": 1, "total_tokens": 1}),
    ("mlflow.llm.cost", {"input_cost": None, "output_cost": 1, "total_cost": 1}),
    ("mlflow.llm.cost", [1]),
):
    with mlflow.start_span("odd") as span:
        span.set_attribute(key, value)
for n in range(10):
    root(n)
"""


def test_odd_usage_does_not_stop_a_database(tmp_path, own_spool, run_program):
    uri = f"sqlite:///{tmp_path}/traces.db"
    process = run_program(program_text(uri, "odd usage", 0, ODD_USAGE))
    assert process.returncode == 0, process.err
    assert process.err == ""
    found = [trace.data.spans[0].name for trace in traces_of(uri, "odd usage")]
    assert sorted(found) == ["odd"] * 4 + ["root"] * 10


# ---- the way to the server ----


def test_the_environments_proxy_is_used(server, own_spool, run_program):
    with FaultProxy(server.uri) as proxy:
        process = run_program(
            # (Another name for loopback, or the variables would not apply to it.)
            program_text("http://mlflow.test:5000", "through a proxy", 5),
            HTTP_PROXY=proxy.uri.replace("http://", "http://user:secret@"),
            NO_PROXY="",
        )
        assert process.returncode == 0, process.err
        assert process.err == ""
        sent = [request for request in proxy.requests if request.path.endswith(SPANS)]
    assert_all_there(server.uri, "through a proxy", 5)
    assert sent[0].path == f"http://mlflow.test:5000{SPANS}"
    assert "proxy-authorization" in map(str.lower, sent[0].headers)


@pytest.mark.parametrize(
    "variable", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "insecure"]
)
def test_an_authority_of_ones_own_is_trusted_where_it_is_named(
    server, own_spool, run_program, certificate, variable
):
    settings = {variable: certificate[0]}
    if variable == "insecure":
        settings = {"MLFLOW_TRACKING_INSECURE_TLS": "true"}
    experiment = f"TLS {variable}"
    with FaultProxy(server.uri, certificate=certificate) as proxy:
        process = run_program(program_text(proxy.uri, experiment, 5), **settings)
        assert process.returncode == 0, process.err
        assert process.err == ""
    assert_all_there(server.uri, experiment, 5)


def test_an_unknown_certificate_is_not_trusted(server, own_spool, run_program, certificate):
    with FaultProxy(server.uri, certificate=certificate) as proxy:
        process = run_program(
            program_text(proxy.uri, "stranger", 5), MLFLOW_FASTTRACE_EXIT_TIMEOUT="2"
        )
        assert process.returncode == 0, process.err
        assert proxy.requests == []
    wait_until(lambda: list(own_spool.glob("*/packed-*.seg")), 30, "the segments that wait")


SIGN_IN = {
    "password": {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "pass"},
    "token": {"MLFLOW_TRACKING_TOKEN": "t0ken"},
    "netrc": {},
}


@pytest.mark.parametrize("way", SIGN_IN)
def test_the_sender_signs_in(server, own_spool, run_program, tmp_path, way):
    expected = "Bearer t0ken" if way == "token" else "Basic bWU6cGFzcw=="

    def fault(request: Request) -> Reply | None:
        return None if request.headers.get("Authorization") == expected else Reply(401)

    settings = dict(SIGN_IN[way])
    if way == "netrc":
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password pass\n")
        netrc.chmod(0o600)
        settings["NETRC"] = str(netrc)
    with FaultProxy(server.uri, fault) as proxy:
        process = run_program(program_text(proxy.uri, f"signed in by {way}", 5), **settings)
        assert process.returncode == 0, process.err
        assert process.err == ""
    assert_all_there(server.uri, f"signed in by {way}", 5)


def test_the_log_says_how_to_sign_in(server, own_spool, run_program):
    with FaultProxy(server.uri, lambda request: Reply(401)) as proxy:
        process = run_program(
            program_text(proxy.uri, "nobody", 5), MLFLOW_FASTTRACE_EXIT_TIMEOUT="2"
        )
        assert process.returncode == 0, process.err
        log = next(own_spool.glob("*/sender.log"))
        wait_until(lambda: "MLFLOW_TRACKING_TOKEN" in log.read_text(), 20, "the hint")
    assert list(own_spool.glob("*/packed-*.seg"))
    assert not refusals(own_spool)


def test_the_workspace_is_named_in_every_request(server, own_spool, run_program):
    with FaultProxy(server.uri) as proxy:
        # (This server has no workspaces, and refuses.)
        run_program(
            program_text(proxy.uri, "in a workspace", 2),
            MLFLOW_WORKSPACE="team",
            MLFLOW_FASTTRACE_EXIT_TIMEOUT="0",
        )
        wait_until(lambda: proxy.requests, 30, "a request")
        sent = {request.headers.get("X-MLFLOW-WORKSPACE") for request in proxy.requests}
    assert sent == {"team"}
