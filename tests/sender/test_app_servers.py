"""Application servers: all workers' traces arrive, by one sender that holds nothing of theirs."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from support.spools import is_alive, sender_pids
from support.texts import TRACED, assert_all_there
from support.waiting import free_port, wait_until


def environment(uri: str, experiment: str) -> dict[str, str]:
    return {**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": experiment}


def answer(port: int, n: int) -> bytes | None:
    """A service's answer to a number; None when there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/?n={n}", timeout=30) as response:
            return response.read()
    except OSError:
        return None


def ask_until_several_answer(port: int) -> int:
    """Asks with the numbers from 0 on until two workers have answered; returns how many it asked."""
    # (The first answer only shows that the service is up.)
    wait_until(lambda: answer(port, 0), 60, "the service")
    asked, workers = 1, set()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:

        def another_round() -> bool:
            nonlocal asked
            workers.update(pool.map(lambda n: answer(port, n), range(asked, asked + 40)))
            asked += 40
            return len(workers) > 1

        wait_until(another_round, 30, "a second worker's answer")
    assert None not in workers
    return asked


def only_sender(spool: Path) -> int:
    (pid,) = wait_until(lambda: sender_pids(spool), 30, "the sender")
    return pid


def assert_holds_nothing_of_others(pid: int) -> None:
    """No listening socket of a web server, no pipe, no terminal: a sender has its own log, its own
    connections to the MLflow server, and what lies in its spool."""
    own_log = os.path.realpath(f"/proc/{pid}/fd/1")
    assert own_log.endswith("/sender.log")
    assert os.path.realpath(f"/proc/{pid}/fd/2") == own_log
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    listening = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            assert not target.startswith("pipe:"), target
            assert target[len("socket:[") : -1] not in listening, "a web server's socket"
            assert not target.startswith(("/dev/pts/", "/dev/tty")), target
    assert os.getsid(pid) != os.getsid(0)


def children(pid: int) -> list[int]:
    return [
        int(child)
        for tasks in Path(f"/proc/{pid}/task").glob("*/children")
        for child in tasks.read_text().split()
    ]


def assert_no_zombies(pid: int) -> None:
    for process in (pid, *children(pid)):
        for child in children(process):
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
            assert state != "Z", f"{child}, a child of {process}"


@contextlib.contextmanager
def running(command: list[str], cwd: Path, uri: str, experiment: str):
    """A service with one log; ended by SIGTERM, which must not take long."""
    log = cwd / "service.log"
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=environment(uri, experiment),
        start_new_session=True,
    )
    process.log = log
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def assert_ends_promptly(process: subprocess.Popen) -> None:
    assert_no_zombies(process.pid)
    workers = children(process.pid)
    process.terminate()
    # (Its own exit waits up to 5 s for delivery.)
    wait_until(lambda: process.poll() is not None, 20, "the server's end")
    wait_until(lambda: not any(map(is_alive, workers)), 10, "the workers' end")


# ---- ASGI ----

FASTAPI = (
    TRACED
    + """
import asyncio
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

app = FastAPI()

@mlflow.trace
async def part(n):
    await asyncio.sleep(0)
    return n

@mlflow.trace
async def answer(n):
    await part(n)
    return n

@app.get("/")
async def ask(n: int):
    await answer(n)
    return PlainTextResponse(str(os.getpid()))
"""
)


def test_all_arrives_from_two_workers_of_uvicorn(server, own_spool, tmp_path):
    (tmp_path / "service.py").write_text(FASTAPI)
    port = free_port()
    command = f"-m uvicorn service:app --workers 2 --port {port} --log-level warning".split()
    with running(command, tmp_path, server.uri, "uvicorn") as process:
        asked = ask_until_several_answer(port)
        pid = only_sender(own_spool)
        assert_all_there(server.uri, "uvicorn", asked)
        assert_holds_nothing_of_others(pid)
        assert_ends_promptly(process)
        assert only_sender(own_spool) == pid
        assert is_alive(pid), "the sender is there a while longer"
        with socket.socket() as listener:  # as the service does that is started anew
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen()
    assert "mlflow_fasttrace" not in (text := process.log.read_text()), text
    assert "does not answer" not in text


def test_all_arrives_from_preloaded_workers_of_gunicorn(server, own_spool, tmp_path):
    app = """
root(0)  # before the workers are forked

def app(environ, start_response):
    root(int(environ["QUERY_STRING"].removeprefix("n=")) + 1)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""
    (tmp_path / "service.py").write_text(TRACED + app)
    port = free_port()
    command = f"-m gunicorn --preload -w 3 -b 127.0.0.1:{port} --log-level warning service:app"
    with running(command.split(), tmp_path, server.uri, "gunicorn") as process:
        asked = ask_until_several_answer(port)
        assert_all_there(server.uri, "gunicorn", asked + 1)
        assert_holds_nothing_of_others(only_sender(own_spool))
        assert_ends_promptly(process)
    assert "mlflow_fasttrace" not in process.log.read_text()


# ---- a queue's workers ----

CELERY = (
    TRACED
    + """
from celery import Celery

app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control",
}
app.conf.broker_connection_retry_on_startup = True

@app.task
def work(n):
    root(n)
"""
)


def test_all_arrives_from_forked_workers_of_celery(server, own_spool, tmp_path):
    (tmp_path / "tasks.py").write_text(CELERY)
    (tmp_path / "queue").mkdir()
    (tmp_path / "control").mkdir()
    ask = "import tasks\nfor n in range(40): tasks.work.delay(n)"
    subprocess.run(
        [sys.executable, "-c", ask],
        cwd=tmp_path,
        check=True,
        env={**environment(server.uri, "celery"), "PYTHONPATH": str(tmp_path)},
    )
    command = "-m celery -A tasks worker --pool prefork --concurrency 2 --loglevel WARNING"
    command += " --without-gossip --without-mingle --without-heartbeat"
    with running(command.split(), tmp_path, server.uri, "celery") as process:
        assert_all_there(server.uri, "celery", 40)
        assert_holds_nothing_of_others(only_sender(own_spool))
        assert_ends_promptly(process)
    text = process.log.read_text()
    assert "mlflow_fasttrace" not in text, text
    assert "Traceback" not in text, text


# ---- notebooks ----

CELL = "for n in range({first}, {first} + 5): root(n)"


def test_all_arrives_from_two_notebook_kernels(server, own_spool, tmp_path, monkeypatch):
    from jupyter_client.manager import KernelManager

    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    kernels = []
    try:
        for _ in range(2):
            manager = KernelManager()
            manager.start_kernel(
                cwd=str(tmp_path),
                env=environment(server.uri, "kernels"),
                stdin=subprocess.DEVNULL,
            )
            client = manager.client()
            client.start_channels()
            kernels.append((manager, client))
        for _, client in kernels:
            client.wait_for_ready(timeout=600)
        shown = []

        def run(client, code: str) -> None:
            reply = client.execute_interactive(
                code, timeout=600, output_hook=lambda message: shown.append(message["content"])
            )
            assert reply["content"]["status"] == "ok", reply

        for number, (_, client) in enumerate(kernels):
            run(client, TRACED)
            run(client, CELL.format(first=10 * number))
        for number, (_, client) in enumerate(kernels):  # cells of both, in turns
            run(client, CELL.format(first=10 * number + 5))
        assert_all_there(server.uri, "kernels", 20)
        assert [content for content in shown if "text" in content] == []
        pid = only_sender(own_spool)
        assert_holds_nothing_of_others(pid)
        # A kernel that is restarted, which kills it if it does not go.
        manager, client = kernels[0]
        run(client, "root(20)")
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=600)
        run(client, TRACED + "root(21)")
        assert_all_there(server.uri, "kernels", 22)
        assert only_sender(own_spool) == pid
    finally:
        for manager, client in kernels:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
