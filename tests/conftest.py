"""A real MLflow server on loopback, a private spool, and senders that are ended with the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
sys.path[:0] = [str(TESTS), *(str(TESTS / layer) for layer in ("sender", "spool", "api", "values"))]
pytest.register_assert_rewrite("support", "programs")

from support.databases import Mysql, Postgres  # noqa: E402
from support.traces import MlflowServer, base_environment, rings_of  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def spool(tmp_path_factory):
    """The spool folder of everything that the tests start; its senders end with the session."""
    folder = tmp_path_factory.mktemp("spool")
    os.environ.update(base_environment(folder))
    yield folder
    clean_up(folder)


def clean_up(spool: Path) -> None:
    """Ends a spool's senders and removes what they and their agents left in shared memory."""
    for lock in spool.glob("*/sender.lock"):
        try:
            pid = int(lock.read_text().split()[0])
            if pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
        except (IndexError, ValueError, ProcessLookupError):
            pass
    for rings in rings_of(spool):
        shutil.rmtree(rings, ignore_errors=True)


@pytest.fixture(autouse=True)
def mlflow_itself():
    """What a test reaches through the drop-in namespace leaves MLflow on the core: not so the next."""
    yield
    if (module := sys.modules.get("mlflow_fasttrace._internal.seams.install")) is not None:
        module.uninstall()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres():
    database = Postgres()
    yield database
    database.remove()


@pytest.fixture(scope="session")
def mysql():
    database = Mysql()
    yield database
    database.remove()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Of 127.0.0.1, signed by itself: (certificate, key)."""
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 "
        "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return str(folder / "cert.pem"), str(folder / "key.pem")


@pytest.fixture
def own_spool(tmp_path, monkeypatch):
    """A spool of this test alone; its senders end with the test."""
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setenv("MLFLOW_FASTTRACE_SPOOL_DIR", str(folder))
    yield folder
    clean_up(folder)


@pytest.fixture
def agent(tmp_path):
    """Runs a program in a process of its own; what is still running at the end is killed."""
    started = []

    def start(code: str, *, wait: bool = True, **environment: str):
        script = tmp_path / f"agent{len(started)}.py"
        script.write_text(code)
        process = subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            cwd=tmp_path,
        )
        started.append(process)
        if wait:
            process.out, process.err = process.communicate(timeout=120)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    for name in ("ext", "python", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    for built in source.rglob("*.so"):
        built.unlink()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel
