"""A SQLite file that is not there yet: MLflow makes its tables when it is first opened, and the program
and its sender open it at about the same time."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from mlflow_fasttrace._internal.spool import database
from sqlalchemy.engine import make_url
from support.lengths import long_but
from support.texts import IMPORTS

PROGRAM = """
import os, time
{imports}

for n in range(3):
    path = os.path.join({folder!r}, f"{{n}}.db")
    mlflow.set_tracking_uri("sqlite:///" + (path if n else os.path.relpath(path)))

    @mlflow.trace
    def f(x):
        return x

    f(1)
    while not (os.path.exists(path) and os.path.getsize(path)):
        time.sleep(0.001)
    time.sleep(n * 0.1)  # the sender is at work now
    assert mlflow.search_experiments()
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id(), flush=True)
    assert trace.data.spans[0].inputs == {{"x": 1}}
    assert len(mlflow.search_traces(return_type="list")) == 1
"""


@pytest.mark.parametrize("how", long_but(["installed"], IMPORTS))
def test_program_and_sender_make_a_databases_tables_in_turns(own_spool, run_program, tmp_path, how):
    process = run_program(PROGRAM.format(imports=IMPORTS[how], folder=str(tmp_path)))
    assert process.returncode == 0, process.err
    tables = {}
    for path in sorted(tmp_path.glob("*.db")):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables[path.name] = {name for (name,) in found}
    assert len(tables) == 3
    assert not [name for names in tables.values() for name in names if "_alembic_tmp" in name]
    assert len({frozenset(names) for names in tables.values()}) == 1


@pytest.mark.parametrize("folder", ["spools", "not there/spools", "./spools", "{tmp_path}/a/b"])
def test_turns_are_taken_in_any_folder(tmp_path, monkeypatch, folder):
    """Without a folder for its lock file there would be none, and no word of that."""
    monkeypatch.chdir(tmp_path)
    folder = folder.format(tmp_path=tmp_path)
    monkeypatch.setenv("MLFLOW_FASTTRACE_SPOOL_DIR", folder)
    with database.turn(make_url("sqlite:///a.db")):
        assert len(list(Path(folder).glob("database-*.lock"))) == 1
    assert Path(folder).stat().st_mode & 0o777 == 0o700


THREE_THREADS = """
import os, threading
{imports}

os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///{folder}/traces.db"
with mlflow.start_span("span"):
    pass
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

def make(n):
    barrier.wait(600)
    SqlAlchemyStore("sqlite:///{folder}/" + f"{{n}}.db", "{folder}/artifacts")
    made.append(n)

made = []
barrier = threading.Barrier(3)
threads = [threading.Thread(target=make, args=(n,)) for n in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(made))
"""


@pytest.mark.parametrize("how", long_but(["installed"], IMPORTS))
def test_threads_may_make_different_databases_at_a_time(own_spool, run_program, tmp_path, how):
    """A thread that delivers may be one of them."""
    program = THREE_THREADS.format(imports=IMPORTS[how], folder=tmp_path)
    process = run_program(program, MLFLOW_FASTTRACE_SENDER="none")
    assert process.out == "[0, 1, 2]\n", process.err
