"""This package."""

from __future__ import annotations

from tracers import mlflow


class Adapter(mlflow.Adapter):
    title = "fasttrace"
    packages = ("mlflow-fasttrace",)
    imports = ("mlflow_fasttrace",)
    records = "The same functions of `mlflow_fasttrace`: the same spans, to an MLflow server."
    calls = 2000
    pending = 0
