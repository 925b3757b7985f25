"""Answers are bounded in time and in size, whoever sends them; and a sender that is told to end ends."""

from __future__ import annotations

import os
import re
import resource
import signal

import pytest
from mlflow_fasttrace._internal.config import otlp
from mlflow_fasttrace._internal.sender.collectors import HttpCollector
from mlflow_fasttrace._internal.sender.exceptions import Unavailable
from mlflow_fasttrace._internal.sender.http import HttpDestination
from support.fault_proxy import FaultProxy, Reply
from support.spools import is_alive, sender_pids
from support.talkers import UNENDING, Talker
from support.texts import program_text
from support.waiting import wait_until


@pytest.fixture(params=UNENDING)
def talker(request, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1")
    with Talker(request.param) as talker:
        yield talker


@pytest.fixture
def redirected(talker):
    def move(request):
        return Reply(307, b"", {"Location": talker.uri + request.path})

    with FaultProxy("http://127.0.0.1:9", move) as proxy:
        yield proxy


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def assert_is_not_taken(uri: str) -> None:
    destination = HttpDestination(uri)
    before = peak_bytes()
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"takes too long|has no end|timed out"):
            destination.experiment_id("x")
    assert peak_bytes() - before < 64 << 20


def test_an_answer_of_a_server_ends(talker):
    assert_is_not_taken(talker.uri)


def test_an_answer_behind_a_redirect_ends(redirected):
    assert_is_not_taken(redirected.uri)


def test_an_answer_that_is_asked_for_by_mlflows_code_ends(redirected, monkeypatch):
    """MLflow's own function follows redirects, too, and reads what is there."""
    monkeypatch.setenv("MLFLOW_TRACKING_AWS_SIGV4", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with pytest.raises(Unavailable, match="answered 307"):
        HttpDestination(redirected.uri).experiment_id("x")
    assert len(redirected.requests) == 1, "what is signed for one host goes to no other"


def test_an_answer_to_a_signed_request_ends(talker, own_spool, run_program):
    """Which MLflow's own code makes; this process would be the program's, so a sender's is asked."""
    program = run_program(
        program_text(talker.uri, "signed", 1),
        MLFLOW_TRACKING_AWS_SIGV4="true",
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
        AWS_DEFAULT_REGION="eu-central-1",
        MLFLOW_FASTTRACE_EXIT_TIMEOUT="0",
    )
    assert program.returncode == 0, program.err
    (log,) = own_spool.glob("*/sender.log")
    ends = re.compile(r"takes too long|has no end|timed out")
    wait_until(lambda: ends.search(log.read_text()), 60, "the end of an answer")


def test_an_answer_of_a_collector_ends(talker):
    collector = HttpCollector(f"{otlp.SCHEME}{talker.uri}/v1/traces")
    with pytest.raises(Unavailable):
        collector.send(b"x")


def test_a_server_may_send_the_sender_round_in_a_circle():
    def move(request):
        return Reply(308, b"", {"Location": request.path})

    with FaultProxy("http://127.0.0.1:9", move) as proxy:
        with pytest.raises(Unavailable, match="answered 308"):
            HttpDestination(proxy.uri).experiment_id("x")
        assert len(proxy.requests) == 11


def test_what_signs_in_stays_with_its_host(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken\n")  # as from a file
    found = Reply(200, b'{"experiment": {"experiment_id": "7"}}')
    with FaultProxy("http://127.0.0.1:9", lambda request: found) as other:

        def move(request):
            if request.path.startswith("/moved"):
                return found
            here = request.path.startswith("/here/")
            return Reply(307, b"", {"Location": ("" if here else other.uri) + "/moved?x=1"})

        with FaultProxy("http://127.0.0.1:9", move) as proxy:
            assert HttpDestination(proxy.uri).experiment_id("x") == "7"
            assert "Authorization" in proxy.requests[0].headers
            assert "Authorization" not in other.requests[0].headers
            assert HttpDestination(proxy.uri + "/here").experiment_id("x") == "7"
            assert proxy.requests[-1].path == "/moved?x=1"
            assert proxy.requests[-1].headers["Authorization"] == "Bearer t0ken"


def test_a_sender_ends_when_it_is_told_to_whatever_keeps_it(own_spool, run_program):
    with Talker("goes on and on") as talker:
        program = run_program(
            program_text(talker.uri, "kept", 1),
            MLFLOW_FASTTRACE_EXIT_TIMEOUT="0",
            MLFLOW_HTTP_REQUEST_TIMEOUT="600",
        )
        assert program.returncode == 0, program.err
        assert talker.asked.wait(600)
        (pid,) = sender_pids(own_spool)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_alive(pid), 60, "the sender's end")
