"""The experiment of a first run, which the sender makes too; and one that is chosen without MLflow."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient
from support.lengths import long_but

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
    deadline = time.monotonic() + 600
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


@pytest.fixture(params=long_but(["server"], ["server", "sqlite"]))
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


#: Each chooses an experiment that is there, by its name or its id, and then asks for all that MLflow's own code gives.
CHOOSES = """
import copy, os, pickle, sys
import mlflow_fasttrace as mlflow

mlflow.set_tracking_uri({uri!r})
experiment = mlflow.set_experiment({arguments})
with mlflow.start_span("span") as span:
    pass
mlflow.flush_trace_async_logging()
assert [name for name in sys.modules if name.split(".")[0] == "mlflow"] == []
assert os.environ["MLFLOW_EXPERIMENT_ID"] == experiment.experiment_id == {experiment_id!r}
assert experiment.name == {name!r}
assert not hasattr(experiment, "__array__")
assert [name for name in sys.modules if name.split(".")[0] == "mlflow"] == []
whole = mlflow.get_experiment(experiment.experiment_id)
assert isinstance(experiment, mlflow.entities.Experiment)
assert dict(experiment) == dict(whole) and repr(experiment) == repr(whole)
assert experiment.tags == {{"team": "blue"}} and set(dir(whole)) == set(dir(experiment))
for other in copy.copy(experiment), copy.deepcopy(experiment), pickle.loads(pickle.dumps(experiment)):
    assert type(other) is type(whole) and dict(other) == dict(whole)
assert mlflow.get_trace(span.trace_id).info.experiment_id == experiment.experiment_id
with mlflow.start_run() as run:
    assert run.info.experiment_id == experiment.experiment_id
    with mlflow.start_span("in a run") as span:
        pass
assert mlflow.get_trace(span.trace_id).info.experiment_id == experiment.experiment_id
"""


@pytest.mark.parametrize("by", ["name", "id"])
def test_an_experiment_that_is_there_is_chosen_without_mlflow(
    server, own_spool, run_program, experiment, by
):
    client = MlflowClient(server.uri)
    experiment_id = client.create_experiment(experiment, tags={"team": "blue"})
    arguments = repr(experiment) if by == "name" else f"experiment_id={experiment_id!r}"
    program = CHOOSES.format(
        uri=server.uri, arguments=arguments, experiment_id=experiment_id, name=experiment
    )
    # That of the environment, which contradicts what is chosen, must not count for runs either.
    process = run_program(program, MLFLOW_EXPERIMENT_NAME="another")
    assert process.returncode == 0, process.err
    assert process.err == ""


REFUSED = """
import {module} as mlflow
mlflow.set_tracking_uri({uri!r})
for arguments in {arguments}:
    try:
        print("chosen", mlflow.set_experiment(**arguments).lifecycle_stage)
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_what_cannot_be_chosen_is_left_to_mlflow(server, own_spool, run_program, experiment):
    client = MlflowClient(server.uri)
    deleted = client.create_experiment(f"{experiment} deleted")
    client.delete_experiment(deleted)
    arguments = [
        {"experiment_name": f"{experiment} deleted"},
        {"experiment_id": deleted},
        {"experiment_id": "987654321"},
        {"experiment_name": experiment, "experiment_id": "1"},
        {"experiment_name": ""},
        {"experiment_name": 7},
        {},
    ]
    said = [
        run_program(REFUSED.format(module=module, uri=server.uri, arguments=arguments))
        for module in ("mlflow", "mlflow_fasttrace")
    ]
    assert said[1].out == said[0].out
    assert said[0].out.count("\n") == len(arguments)
