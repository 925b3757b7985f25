"""What tests of every folder have: a real MLflow server on loopback, spools whose senders end with the
tests, databases, a certificate, programs in processes of their own."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Test modules import ``support`` and ``programs`` from here, whichever folder they lie in.
sys.path.insert(0, str(TESTS))
pytest.register_assert_rewrite("support")

import mlflow_fasttrace  # noqa: E402
from mlflow_fasttrace._internal.recording import destination  # noqa: E402
from support import figures  # noqa: E402
from support.bench import Bench  # noqa: E402
from support.databases import Mysql, Postgres  # noqa: E402
from support.processes import ROOT, Program  # noqa: E402
from support.records import Recorded  # noqa: E402
from support.scheduling import FilesThatShare, takes_minutes  # noqa: E402
from support.servers import MlflowServer  # noqa: E402
from support.spools import base_environment, clean_up  # noqa: E402

# A function that a test module traces while it is collected would put MLflow on the core.
mlflow_fasttrace.uninstall()


def pytest_xdist_make_scheduler(config, log):
    return FilesThatShare(config, log)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not takes_minutes(item.nodeid))


def pytest_terminal_summary(terminalreporter):
    reports = [
        report
        for kind in terminalreporter.stats.values()
        for report in kind
        if isinstance(report, pytest.TestReport)
    ]
    if found := figures.parts(reports):
        terminalreporter.section("figures of each folder")
        terminalreporter.write("\n".join(figures.lines(found)) + "\n")


@pytest.fixture(scope="session", autouse=True)
def spool(tmp_path_factory):
    """The spool folder of everything that the tests start; its senders end with the session."""
    folder = tmp_path_factory.mktemp("spool")
    os.environ.update(base_environment(folder))
    yield folder
    clean_up(folder)


#: Variables of pytest's, and of the telemetry of MLflow, which takes them away when it likes.
NOT_OF_TESTS = {"PYTEST_CURRENT_TEST", "_MLFLOW_TELEMETRY_SESSION_ID"}


@pytest.fixture(scope="module", autouse=True)
def environment_after_a_module(spool):
    """What a module's own fixtures do, too, is undone."""
    yield from environment_as_before()


@pytest.fixture(autouse=True)
def environment_after_a_test():
    yield from environment_as_before()


def environment_as_before():
    """Programs of the tests get this process's environment, so who leaves a variable behind sends the next
    test's traces elsewhere; ``mlflow.set_tracking_uri()`` sets one."""
    before = dict(os.environ)
    yield
    left = {
        name: os.environ.get(name)
        for name in (before.keys() | os.environ.keys()) - NOT_OF_TESTS
        if os.environ.get(name) != before.get(name)
    }
    for name in left:
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]
    assert left == {}, "variables that were left behind"


@pytest.fixture(autouse=True)
def mlflow_itself():
    """In the tests' own process MLflow is as it is until a test calls install(), or reaches for MLflow through the
    drop-in namespace. The next one finds it as it is."""
    yield
    mlflow_fasttrace.uninstall()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with MlflowServer(tmp_path_factory.mktemp("server")) as server:
        yield server


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
    """A certificate of 127.0.0.1, signed by itself: the paths of it and of its key."""
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
def memory():
    """A folder on tmpfs, which takes what does not fit into a ring before the disk does."""
    folder = tempfile.mkdtemp(dir="/dev/shm", prefix="fasttrace-test-")
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture
def run_program(tmp_path):
    """Runs a program in a process of its own; one that still runs at the end is killed."""
    started: list[Program] = []

    def run(code: str, *, wait: bool = True, **environment: str) -> Program:
        process = Program(code, tmp_path, f"program{len(started)}", **environment)
        started.append(process)
        if wait:
            process.finish()
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def recorded(tmp_path):
    """What this process records during the test."""
    recorded = Recorded(tmp_path)
    yield recorded
    recorded.end()


@pytest.fixture
def bench(tmp_path, caplog):
    """A sender in this process, whose log lines are caught."""
    caplog.set_level(logging.INFO, "mlflow_fasttrace.sender")
    yield Bench(tmp_path)
    destination.reset()


@pytest.fixture
def experiment():
    """The name of an experiment that no other test has."""
    return f"experiment {uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The package's wheel, built from its sources."""
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
