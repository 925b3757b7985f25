"""Whatever a server answers, and however: nothing is lost, nothing is counted as delivered that is
not, and what is wrong with one trace never holds up another."""

from __future__ import annotations

import os
import threading

import pytest
from fault_proxy import FaultProxy, Reply, Request
from support import MlflowServer, traces_of, wait_until
from test_delivery import agent_code, assert_all_there

SPANS, INFO = "/v1/traces", "/api/3.0/mlflow/traces"
HTML = {"Content-Type": "text/html"}
JSON = {"Content-Type": "application/json"}


class Times:
    """A fault for the first requests to a path (all of them, where no path is given)."""

    def __init__(self, times: int, reply: Reply, path: str | None = None):
        self.left, self.reply, self.path = times, reply, path
        self.lock = threading.Lock()

    def __call__(self, request: Request) -> Reply | None:
        with self.lock:
            if request.path not in ((SPANS, INFO) if self.path is None else (self.path,)):
                return None
            if self.left <= 0:
                return None
            self.left -= 1
            return self.reply


TEMPORARY = {
    "500 without a word": Times(3, Reply(500)),
    "500 of MLflow": Times(3, Reply(500, b'{"error_code": "INTERNAL_ERROR", "message": "x"}', JSON)),
    "502 of a proxy": Times(3, Reply(502, b"<html>Bad Gateway</html>", HTML)),
    "503": Times(3, Reply(503)),
    "401": Times(2, Reply(401, b"who are you?")),
    "403": Times(2, Reply(403, b"no")),
    "400 that is not MLflow's": Times(2, Reply(400, b"<html>what?</html>", HTML)),
    "404 that is not MLflow's": Times(2, Reply(404, b"<html>nothing here</html>", HTML), INFO),
    "405 of spans that is not MLflow's": Times(2, Reply(429), SPANS),
    "429 and when to come back": Times(1, Reply(429, headers={"Retry-After": "1"})),
    "503 with a senseless Retry-After": Times(1, Reply(503, headers={"Retry-After": "soon"})),
    "200 with a page": Times(2, Reply(200, b"<html>Sign in</html>", HTML)),
    "200 with other JSON": Times(2, Reply(200, b"[1]", JSON), INFO),
    "200 with nothing": Times(2, Reply(200)),
    "half an answer": Times(2, Reply(200, b'{"trace": ' + b"1" * 500, JSON, cut=True)),
    "half an answer to what was taken": Times(2, Reply(200, b"1" * 500, JSON, forward=True, cut=True)),
    "no answer to what was taken": Times(3, Reply(forward=True, drop=True)),
    "dropped connections": Times(4, Reply(drop=True)),
}


@pytest.fixture(scope="module")
def delivered_through(server, tmp_path_factory):
    """One agent for each fault, all at once; their processes, by the fault's name."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("faults")
    started = {}
    for number, (name, fault) in enumerate(TEMPORARY.items()):
        proxy = FaultProxy(server.uri, fault)
        script = folder / f"{number}.py"
        script.write_text(agent_code(proxy.uri, f"fault: {name}", 10))
        started[name] = proxy, [sys.executable, str(script)]
    processes = {}
    for name, (_, command) in started.items():
        processes[name] = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={
                **os.environ,
                # One process serves all of them, and none has to load MLflow anew.
                "MLFLOW_FASTTRACE_EXIT_TIMEOUT": "0.1",
            },
        )
    for process in processes.values():
        process.communicate(timeout=120)
        assert process.returncode == 0
    yield
    for proxy, _ in started.values():
        proxy.__exit__()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", TEMPORARY)
def test_nothing_is_lost(server, delivered_through, name):
    assert_all_there(server.uri, f"fault: {name}", 10)
    assert TEMPORARY[name].left == 0, "the fault did not happen"
