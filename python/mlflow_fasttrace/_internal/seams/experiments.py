"""Experiments that the sender makes when it delivers their first traces. MLflow makes one as soon as a trace
begins; so a program that has begun one finds the experiment, and does not make it beside the sender, where one
of the two fails."""

from __future__ import annotations

from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.client import TrackingServiceClient

from mlflow_fasttrace._internal.base.patching import original
from mlflow_fasttrace._internal.recording import destination

#: The method of MLflow's client that leads to the function below.
look_up: Any = TrackingServiceClient.get_experiment_by_name


def get_experiment_by_name(self: TrackingServiceClient, name: str) -> Any:
    """``TrackingServiceClient.get_experiment_by_name``: makes an experiment that traces of this process name."""
    found = original(look_up)(self, name)
    if found is not None or not destination.is_named(self.tracking_uri, name):
        return found
    try:
        self.create_experiment(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return original(look_up)(self, name)
