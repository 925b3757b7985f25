"""Signing in as MLflow's client does: the requests that really arrive at a server, beside those of MLflow's
own client with the same settings; credentials that change while the program runs."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.fault_proxy import FaultProxy, Reply, Request
from support.servers import MlflowServer
from support.spools import is_alive, sender_pids
from support.texts import assert_all_there, program_text, says_that_it_waits, wait_for_file
from support.waiting import wait_until

# ---- the same as from MLflow's client ----

AWS = {
    "MLFLOW_TRACKING_AWS_SIGV4": "true",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
    "AWS_SESSION_TOKEN": "session",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
PASSWORD = {"MLFLOW_TRACKING_USERNAME": "mé", "MLFLOW_TRACKING_PASSWORD": "p:ss"}
SETTINGS = {
    "nothing": {},
    "user and password": PASSWORD,
    "user alone": {"MLFLOW_TRACKING_USERNAME": "me"},
    "token": {"MLFLOW_TRACKING_TOKEN": "t0ken"},
    "password and token": {**PASSWORD, "MLFLOW_TRACKING_TOKEN": "t0ken"},
    "file": {},
    "workspace": {"MLFLOW_WORKSPACE": "team"},
    "signature": AWS,
    "signature and token": {**AWS, "MLFLOW_TRACKING_TOKEN": "t0ken"},
}


@pytest.mark.parametrize("user", ["", "you:s3cret@"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_headers_are_those_of_mlflows_client(monkeypatch, tmp_path, setting, user):
    from mlflow.tracking import MlflowClient
    from mlflow_fasttrace._internal.sender.http import HttpDestination

    monkeypatch.setenv("HOME", str(tmp_path))
    if setting == "file":
        (tmp_path / ".mlflow").mkdir()
        (tmp_path / ".mlflow/credentials").write_text(
            "[mlflow]\nmlflow_tracking_username = filed\nmlflow_tracking_password = away\n"
        )
    for name, value in SETTINGS[setting].items():
        monkeypatch.setenv(name, value)
    found = Reply(
        200,
        # (The second: MLflow's client asks for it where there is a workspace.)
        b'{"experiment": {"experiment_id": "7"}, "workspaces_enabled": true}',
        {"Content-Type": "application/json"},
    )
    with FaultProxy("http://127.0.0.1:9", lambda request: found) as proxy:
        uri = proxy.uri.replace("http://", "http://" + user)
        assert HttpDestination(uri).experiment_id("x y&") == "7"
        ours = proxy.requests[-1]
        assert MlflowClient(uri).get_experiment_by_name("x y&").experiment_id == "7"
        theirs = proxy.requests[-1]

    def comparable(request: Request) -> dict[str, str]:
        # (Of a signature the time and what it is of differ; MLflow's client says what its body is
        # that it does not send.)
        headers = {name.lower(): value for name, value in request.headers.items()}
        for name in ("content-type", "content-length", "x-amz-date", "x-amz-content-sha256"):
            headers.pop(name, None)
        if headers.get("authorization", "").startswith("AWS4"):
            headers["authorization"] = re.sub("Signature=.*", "", headers["authorization"])
        return headers

    assert comparable(ours) == comparable(theirs)
    if user or setting not in ("nothing", "user alone", "workspace"):
        assert "Authorization" in ours.headers
    if setting == "workspace":
        assert ours.headers["X-MLFLOW-WORKSPACE"] == "team"


def signature_is_right(request: Request) -> bool:
    """AWS's Signature Version 4, made once more from what arrived."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    match = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/((\d+)/eu-central-1/execute-api/aws4_request), ?"
        r"SignedHeaders=([\w;-]+), ?Signature=(\w+)",
        headers.get("authorization", ""),
    )
    if match is None:
        return False
    scope, day, names, signature = match.groups()
    path, _, query = request.path.partition("?")
    lines = [f"{name}:{headers[name]}\n" for name in names.split(";")]
    payload = hashlib.sha256(request.body).hexdigest()
    canonical = "\n".join([request.method, path, query, "".join(lines), names, payload])
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, digest])
    key = b"AWS4wJalrXUtnFEMI"
    for part in (day, "eu-central-1", "execute-api", "aws4_request", text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex() == signature and headers["x-amz-security-token"] == "session"


def test_requests_are_signed_for_aws(server, own_spool, run_program):
    """A gateway refuses requests without a right signature."""

    def gateway(request: Request) -> Reply | None:
        return None if signature_is_right(request) else Reply(403, b'{"message": "Forbidden"}')

    with FaultProxy(server.uri, gateway) as proxy:
        process = run_program(program_text(proxy.uri, "signed", 5), **AWS)
        assert process.returncode == 0, process.err
        assert process.err == ""
        assert proxy.requests
    assert_all_there(server.uri, "signed", 5)


PLUGIN = """
import os
from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

class Auth(RequestAuthProvider):
    def get_name(self):
        return "house-key"

    def get_auth(self):
        def sign(request):
            request.headers["Authorization"] = "House " + os.environ["HOUSE_KEY"]
            request.headers["X-Signed-Path"] = request.path_url.partition("?")[0]
            return request
        return sign

class Headers(RequestHeaderProvider):
    def in_context(self):
        return True

    def request_headers(self):
        return {"X-Team": "tracing", "User-Agent": "of-the-house"}
"""


@pytest.fixture
def plugin(tmp_path) -> Path:
    """A folder of installed packages, of which one has plugins for MLflow."""
    folder = tmp_path / "site"
    info = folder / "house_key-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "house_key.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: house-key\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[mlflow.request_auth_provider]\nhouse = house_key:Auth\n"
        "[mlflow.request_header_provider]\nhouse = house_key:Headers\n"
    )
    return folder


@pytest.mark.parametrize("way", ["PYTHONPATH", "sys.path"])
def test_plugins_of_the_programs_environment_sign(server, own_spool, run_program, plugin, way):
    def house(request: Request) -> Reply | None:
        signed = request.headers.get("Authorization") == "House 42"
        right = request.headers.get("X-Signed-Path") == request.path.partition("?")[0]
        return None if signed and right else Reply(401)

    settings = {"MLFLOW_TRACKING_AUTH": "house-key", "HOUSE_KEY": "42"}
    before = f"import sys; sys.path.insert(0, {str(plugin)!r})\n"
    if way == "PYTHONPATH":
        settings["PYTHONPATH"], before = str(plugin), ""
    experiment = f"plugins by {way}"
    with FaultProxy(server.uri, house) as proxy:
        code = before + program_text(proxy.uri, experiment, 5)
        process = run_program(code, **settings)
        assert process.returncode == 0, process.err
        assert process.err == ""
        ours = {request.path.partition("?")[0]: request for request in proxy.requests}
        assert_all_there(server.uri, experiment, 5)
        proxy.requests.clear()
        if way == "sys.path":
            return
        pure = code.replace("mlflow_fasttrace as mlflow", "mlflow")
        process = run_program(pure + "\nmlflow.flush_trace_async_logging()\n", **settings)
        assert process.returncode == 0, process.err
        for path in ("/v1/traces", "/api/3.0/mlflow/traces"):
            theirs = next(request for request in proxy.requests if request.path == path)
            for name in ("Authorization", "X-Signed-Path", "X-Team", "User-Agent"):
                assert ours[path].headers[name] == theirs.headers[name]


def test_a_server_that_asks_for_a_certificate_is_shown_it(
    server, own_spool, run_program, certificate, tmp_path
):
    """MLflow takes one file with the certificate and its key."""
    both = tmp_path / "both.pem"
    both.write_text("".join(Path(part).read_text() for part in certificate))
    with FaultProxy(server.uri, certificate=certificate, client_authority=certificate[0]) as proxy:
        settings = {"MLFLOW_TRACKING_SERVER_CERT_PATH": certificate[0]}
        code = program_text(proxy.uri, "certified", 5)
        process = run_program(code, **settings, MLFLOW_FASTTRACE_EXIT_TIMEOUT="1")
        assert process.returncode == 0, process.err
        assert says_that_it_waits(process.err)
        assert not proxy.requests
        settings["MLFLOW_TRACKING_CLIENT_CERT_PATH"] = str(both)
        process = run_program(code, **settings)
        assert process.returncode == 0, process.err
        assert process.err == ""
    assert_all_there(server.uri, "certified", 5)


# ---- MLflow's own accounts ----


class ServerWithAccounts(MlflowServer):
    options = ("--app-name", "basic-auth")

    def __init__(self, folder: Path):
        super().__init__(folder)
        settings = folder / "basic_auth.ini"
        settings.write_text(
            "[mlflow]\ndefault_permission = READ\n"
            f"database_uri = sqlite:///{folder}/accounts.db\n"
            "admin_username = admin\nadmin_password = passw0rd-12345\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        self.environment = {
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests",
        }


ADMIN = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "passw0rd-12345"}


@pytest.fixture(params=["proxy", pytest.param("MLflow", marks=pytest.mark.long)])
def guarded(request, tmp_path):
    """The URI of a server that knows one account, ADMIN: MLflow's own, or the tests' behind a proxy
    that asks for it."""
    if request.param == "MLflow":
        with ServerWithAccounts(tmp_path) as server:
            yield server.uri
        return

    def guard(asked: Request) -> Reply | None:
        signed = asked.headers.get("Authorization") == "Basic YWRtaW46cGFzc3cwcmQtMTIzNDU="
        return None if signed else Reply(401, b"You are not authenticated.")

    with FaultProxy(request.getfixturevalue("server").uri, guard) as proxy:
        yield proxy.uri


def test_what_was_recorded_with_a_wrong_password_is_sent_with_the_right_one(
    guarded, own_spool, run_program, monkeypatch
):
    wrong = {**ADMIN, "MLFLOW_TRACKING_PASSWORD": "wrong-12345"}
    code = program_text(guarded, "wrong password", 5)
    process = run_program(code, **wrong)
    assert process.returncode == 0, process.err
    assert "refuses the credentials of this process. What this process recorded" in process.err
    assert "does not answer" not in process.err
    log = next(own_spool.glob("*/sender.log"))
    wait_until(lambda: "set MLFLOW_TRACKING_USERNAME" in log.read_text(), 20, "the hint")
    (stuck,) = sender_pids(own_spool)

    code = program_text(guarded, "right password", 3)
    process = run_program(code, **ADMIN)
    assert process.returncode == 0, process.err
    assert process.err == ""
    for name, value in ADMIN.items():
        monkeypatch.setenv(name, value)  # for the test's own client
    assert_all_there(guarded, "right password", 3)

    # The sender with the wrong password still tries.
    os.kill(stuck, 15)
    wait_until(lambda: not is_alive(stuck), 30, "the sender's end")
    done = subprocess.run(
        [sys.executable, "-m", "mlflow_fasttrace", "send"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_all_there(guarded, "wrong password", 5)


# ---- credentials that change ----

REFRESHED = {
    # The program sees the 401 in its ring some seconds later; it does not ask for delivery.
    "while it runs": """
from mlflow_fasttrace._internal.recording.rings import rings
(ring,) = rings.in_use.values()
n = 10
while ring.progress()[2] == 0:
    root(n)
    n += 1
    time.sleep(0.1)
print(n)
""",
    "and ends": "print(10)\n",
}


@pytest.mark.parametrize("how", REFRESHED)
def test_a_token_that_is_refreshed_reaches_the_sender(
    server, own_spool, run_program, tmp_path, how
):
    """After a 401 the program looks at its environment again. A sender gets each token once."""
    then = f"""{wait_for_file("go")}
os.environ["MLFLOW_TRACKING_TOKEN"] = "fresh"
"""

    def fault(request: Request) -> Reply | None:
        return None if request.headers.get("Authorization") == "Bearer fresh" else Reply(401)

    experiment = f"refreshed {how}"
    with FaultProxy(server.uri, fault) as proxy:
        process = run_program(
            program_text(proxy.uri, experiment, 10, then + REFRESHED[how]),
            wait=False,
            MLFLOW_TRACKING_TOKEN="stale",
        )
        wait_until(lambda: proxy.requests, 30, "a request")
        (first,) = sender_pids(own_spool)
        (tmp_path / "go").touch()
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert err == ""
        assert_all_there(server.uri, experiment, int(out))
        (second,) = sender_pids(own_spool)
        assert second != first
    sent = [request.headers["Authorization"] for request in proxy.requests]
    assert sent == sorted(sent, reverse=True), "stale ones, then fresh ones"
    assert set(sent) == {"Bearer stale", "Bearer fresh"}
    for file in own_spool.rglob("*"):
        assert not file.is_file() or not {b"stale", b"fresh"} & set(file.read_bytes().split())
