"""A database server as the tracking URI: MLflow's store, opened by the sender. The programs do not name
the URI, which has a password in it: it is in their environment."""

from __future__ import annotations

import random
from urllib.parse import quote

import pytest
import sqlalchemy
from mlflow_fasttrace._internal.config.uris import without_credentials, without_secrets
from mlflow_fasttrace._internal.sender.store import StoreDestination
from support.databases import PASSWORD, Database
from support.processes import run_programs
from support.texts import assert_all_there, program_text, says_that_it_waits
from support.traces import described, traces_of
from support.waiting import Patience, wait_until

PROGRAMS = ("bare_decorator", "exceptions", "trace_updates", "usage_and_cost", "tags_in_flight")


class Target:
    """A database of a server, with MLflow's tables."""

    def __init__(self, database: Database):
        self.database = database
        self.uri = database.create("tracing")
        traces_of(self.uri, "none")  # makes MLflow's tables, which takes its time


@pytest.fixture(scope="module")
def targets(request):
    """Each database with MLflow's tables in it, made when it is first asked for."""
    made: dict[str, Target] = {}

    def target(kind: str) -> Target:
        if kind not in made:
            made[kind] = Target(request.getfixturevalue(kind))
        return made[kind]

    return target


def assert_no_secret(spool) -> None:
    for file in spool.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for secret in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD)):
                assert secret.encode() not in content, file


@pytest.mark.parametrize("kind", ["postgres", pytest.param("mysql", marks=pytest.mark.long)])
def test_a_database_gets_what_mlflow_puts_there(targets, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where this store keeps artifacts
    uri = targets(kind).uri
    run_programs("mlflow", uri, "pure", *PROGRAMS)
    run_programs("mlflow_fasttrace", uri, "core", *PROGRAMS)
    for name in PROGRAMS:
        pure = [described(trace) for trace in traces_of(uri, f"pure-{name}")]
        core = [described(trace) for trace in traces_of(uri, f"core-{name}")]
        assert pure, "MLflow itself recorded nothing"
        assert core == pure


@pytest.mark.parametrize("kind", ["postgres", pytest.param("mysql", marks=pytest.mark.long)])
def test_a_database_that_comes_back_gets_all(targets, own_spool, run_program, kind):
    target = targets(kind)
    target.database.stop()
    try:
        code, environment = program_text(None, "down", 30), {"MLFLOW_TRACKING_URI": target.uri}
        patience = Patience(10)
        process = run_program(code, **environment, MLFLOW_FASTTRACE_EXIT_TIMEOUT="2")
        assert not patience.is_over(), "the exit must not wait for the database"
        assert process.returncode == 0, process.err
        assert says_that_it_waits(process.err)
        assert PASSWORD not in process.err
        assert quote(PASSWORD, safe="") not in process.err
        wait_until(lambda: list(own_spool.glob("*/packed-*.seg")), 30, "the segments")
        assert_no_secret(own_spool)
    finally:
        target.database.start()
    assert_all_there(target.uri, "down", 30)
    assert_no_secret(own_spool)
    assert not list(own_spool.glob("*/refused-*"))


PHASES = """
for n in range(10, 30):
    if n % 10 == 0:
        mlflow.flush_trace_async_logging()
        print("flushed", flush=True)
        while not os.path.exists(f"go{n}"):
            time.sleep(0.01)
    root(n)
"""


def test_a_database_that_restarts_and_then_only_reads_gets_all(
    targets, own_spool, run_program, tmp_path
):
    """First the sender's connections are dead, then the database refuses to write, as after a failover: no
    trace is to blame."""
    target = targets("postgres")
    code, environment = (
        program_text(None, "restarts", 10, PHASES),
        {"MLFLOW_TRACKING_URI": target.uri},
    )
    process = run_program(code, wait=False, **environment, MLFLOW_FASTTRACE_EXIT_TIMEOUT="1")
    assert process.stdout.readline() == "flushed\n"
    target.database.stop()
    target.database.start()
    (tmp_path / "go10").touch()
    assert process.stdout.readline() == "flushed\n"
    assert_all_there(target.uri, "restarts", 20)
    end_sessions = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tracing'"
    )
    target.database.execute("ALTER DATABASE tracing SET default_transaction_read_only = on")
    try:
        target.database.execute(end_sessions)
        (tmp_path / "go20").touch()
        _, err = process.communicate()
        assert process.returncode == 0, err
        log = next(own_spool.glob("*/sender.log"))
        wait_until(lambda: "read-only transaction" in log.read_text(), 60, "the refusal")
    finally:
        target.database.execute("ALTER DATABASE tracing RESET default_transaction_read_only")
    target.database.execute(end_sessions)  # a session keeps the setting that it began with
    assert_all_there(target.uri, "restarts", 30)
    assert not list(own_spool.glob("*/refused-*"))


UNFIT = """
with mlflow.start_span("a\\0b") as span:
    span.set_inputs("a\\0b")
with mlflow.start_span("tagged"):
    mlflow.update_current_trace(tags={"a\\0b": "c\\0d"}, metadata={"e\\0f": "g\\0h"})
for n in range(5, 10):
    root(n)
"""


def test_values_that_a_database_cannot_keep_hold_up_no_other(targets, own_spool, run_program):
    """PostgreSQL's texts have no NUL."""
    uri = targets("postgres").uri
    process = run_program(program_text(None, "NUL", 5, UNFIT), MLFLOW_TRACKING_URI=uri)
    assert process.returncode == 0, process.err
    assert "does not answer" not in process.err

    def inputs():
        roots = [
            t for t in traces_of(uri, "NUL") if t.data.spans and t.data.spans[0].name == "root"
        ]
        return sorted(trace.data.spans[0].inputs["n"] for trace in roots)

    assert inputs() == list(range(10))


@pytest.mark.parametrize(
    ("uri", "written"),
    [
        ("postgresql://me:s3cret@host/db", "postgresql://host/db"),
        ("postgresql://me:s3/cr?et#@host:1/db", "postgresql://host:1/db"),
        ("postgresql://me@host/db", "postgresql://host/db"),
        ("postgresql://host/db?user=me&password=s3cret", "postgresql://host/db"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Ds3cret", "mssql+pyodbc:///"),
        ("sqlite:////home/me:a@b/x.db?timeout=9", "sqlite:////home/me:a@b/x.db?timeout=9"),
        ("sqlite:///x@y.db", "sqlite:///x@y.db"),
        ("file:///home/me@b/mlruns", "file:///home/me@b/mlruns"),
        ("https://me:s3cret@host/a?token=s3cret#s3cret", "https://host/a"),
        ("http://host:1?token=s3cret", "http://host:1"),
    ],
)
def test_a_uri_is_written_without_credentials(uri, written):
    assert without_credentials(uri) == written
    if uri.startswith("http"):
        assert "s3cret" not in without_secrets(f"trying {uri}/api: '{uri}'")


def an_info(number: int) -> dict:
    return {
        "trace_id": f"tr-{number:032x}",
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": "0"},
        },
        "request_time": "2026-01-02T03:04:05.678Z",
        "state": "OK",
        "trace_metadata": {"mlflow.user": "somebody", "mlflow.traceInputs": "{}"},
        "tags": {"mlflow.traceName": "step", "team": "a"},
        "request_preview": "why",
        "response_preview": "because",
        "client_request_id": f"request {number}",
        "execution_duration_ms": 12,
    }


def kept(destination: StoreDestination, info: dict) -> dict:
    """What the store has of a trace, without what is its own."""
    found = destination.store.get_trace_info(info["trace_id"]).to_dict()
    assert found.pop("trace_id") == info["trace_id"]
    assert found.pop("client_request_id") == info["client_request_id"]
    found["tags"].pop("mlflow.artifactLocation")
    return found


@pytest.fixture(params=["sqlite", "postgres", pytest.param("mysql", marks=pytest.mark.long)])
def store(request, targets, tmp_path, monkeypatch):
    """A database that is opened as the sender opens it."""
    monkeypatch.chdir(tmp_path)  # where this store keeps artifacts
    if request.param == "sqlite":
        uri = f"sqlite:///{tmp_path}/traces.db"
    else:
        uri = targets(request.param).uri
    return StoreDestination(uri)


def test_new_traces_are_written_many_a_transaction(store):
    first = random.getrandbits(100)
    infos = [an_info(first + number) for number in range(60)]
    alone = an_info(first + 60)
    store.send_info(alone)
    commits: list[object] = []
    listener = store.store.engine, "commit", commits.append
    sqlalchemy.event.listen(*listener)
    try:
        for start in range(0, 60, store.new_infos_at_once):
            assert store.send_new_infos(infos[start : start + store.new_infos_at_once])
    finally:
        sqlalchemy.event.remove(*listener)
    assert len(commits) == 3  # of 25, 25 and 10
    wanted = kept(store, alone)
    assert [kept(store, info) for info in infos] == [wanted] * 60


def test_a_trace_that_is_there_already_leaves_the_others_to_be_sent_one_by_one(store):
    first = random.getrandbits(100)
    infos = [an_info(first + number) for number in range(10)]
    store.send_info(infos[7])
    assert not store.send_new_infos(infos)
    assert [store.has_trace(info["trace_id"]) for info in infos] == [n == 7 for n in range(10)]
    for info in infos:
        store.send_info(info)
    assert [kept(store, info) for info in infos] == [kept(store, infos[7])] * 10
