"""Experiments that are chosen without MLflow, whose import takes seconds: a program that records traces and reads
none needs none of it."""

from __future__ import annotations

import sys
from typing import Any

from mlflow_fasttrace._internal.base import patching
from mlflow_fasttrace._internal.base.imports import imported
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.recording import destination

_OF_MLFLOW = "mlflow.tracking.fluent"


class FoundExperiment:
    """An ``mlflow.entities.Experiment``, which is made as soon as more than its name and id are asked for.

    Args:
        fields: Those of the server's answer.
    """

    def __init__(self, fields: dict[str, Any]):
        vars(self).update(name=fields["name"], experiment_id=fields["experiment_id"])
        vars(self)["_fields"] = fields

    def _whole(self) -> Any:
        whole = vars(self).get("_made")
        if whole is None:
            messages = imported("mlflow.protos.service_pb2")
            message = messages.Experiment()
            json_format = imported("mlflow.utils.proto_json_utils")
            json_format.parse_dict(self._fields, message)
            entities = imported("mlflow.entities")
            whole = vars(self)["_made"] = entities.Experiment.from_proto(message)
        return whole

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._whole())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # somebody looks what kind of object this is
            raise AttributeError(name)
        return getattr(self._whole(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._whole(), name, value)

    def __iter__(self) -> Any:
        return iter(self._whole())

    def __dir__(self) -> list[str]:
        return dir(self._whole())

    def __repr__(self) -> str:
        return repr(self._whole())

    def __reduce__(self) -> Any:
        return _itself, (self._whole(),)


def _itself(experiment: Any) -> Any:
    return experiment


def choose(uri: str, name: str | None, experiment_id: str | None) -> FoundExperiment | None:
    """Looks an experiment up and has new traces go there, and runs, once MLflow is loaded.

    Args:
        uri: The tracking URI.
        name: The experiment's name.
        experiment_id: Its id, in the place of the name.

    Returns:
        The experiment; None where MLflow is to be asked: it is loaded anyway, the experiment is not there or is
        not one that can be chosen, or only MLflow knows how the server is reached.
    """
    one = [text for text in (name, experiment_id) if text is not None]
    if _OF_MLFLOW in sys.modules or len(one) != 1 or type(one[0]) is not str:
        return None
    if not uri.startswith(("http://", "https://")):
        return None
    try:
        from mlflow_fasttrace._internal.sender import http

        if http.needs_mlflow():
            return None
        fields = http.HttpDestination(uri).experiment(name=name, experiment_id=experiment_id)
        if fields["lifecycle_stage"] != "active":
            return None
        found = FoundExperiment(fields)
    except Exception as error:
        let_pass(error)
        return None  # MLflow meets it, too, and says what it is
    destination.set_experiment(experiment_id=found.experiment_id)
    environment.set_experiment_id(found.experiment_id)
    patching.when_loaded(_OF_MLFLOW, _tell_mlflow)
    return found


def _tell_mlflow() -> None:
    """Has MLflow, which is loaded only now, take the experiment for the active one."""
    experiment_id = destination.chosen.experiment.get("id")
    module: Any = sys.modules[_OF_MLFLOW]
    if experiment_id is not None and module._active_experiment_id is None:
        module._active_experiment_id = experiment_id
