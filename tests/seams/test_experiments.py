"""The experiment of a first run, which the sender makes too."""

from __future__ import annotations

import pytest

PROGRAM = """
import time
from unittest import mock

import mlflow_fasttrace
mlflow_fasttrace.install()
import mlflow
from mlflow.store.tracking.rest_store import RestStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

store = RestStore if mlflow.get_tracking_uri().startswith("http") else SqlAlchemyStore
own = store.create_experiment

def make_after_the_sender(self, name, *args, **kwargs):
    deadline = time.monotonic() + 60
    while self.get_experiment_by_name(name) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return own(self, name, *args, **kwargs)

@mlflow.trace
def work():
    return 1

with mock.patch.object(store, "create_experiment", make_after_the_sender):
    work()
    with mlflow.start_run() as run:
        work()
    client = mlflow.MlflowClient()
    if client.get_experiment_by_name("unknown") is None:
        print("a look-up makes none")
found = client.search_traces([run.info.experiment_id])
print(len(found), mlflow.get_experiment(run.info.experiment_id).name)
"""


@pytest.fixture(params=["server", "sqlite"])
def uri(request, tmp_path):
    if request.param == "server":
        return request.getfixturevalue("server").uri
    return f"sqlite:///{tmp_path}/new.db"


def test_a_program_takes_the_experiment_that_its_sender_has_just_made(
    uri, own_spool, run_program, experiment
):
    program = run_program(PROGRAM, MLFLOW_TRACKING_URI=uri, MLFLOW_EXPERIMENT_NAME=experiment)
    assert program.returncode == 0, program.err
    assert program.out.splitlines()[-2:] == ["a look-up makes none", f"2 {experiment}"]
    assert "Traceback" not in program.err
