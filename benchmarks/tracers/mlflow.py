"""MLflow as it comes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from tracers import Tracer


class Adapter(Tracer):
    title = "MLflow"
    packages = ("mlflow",)
    imports = ("mlflow",)
    records = "`@mlflow.trace` and `mlflow.start_span`: arguments and results by name; to an MLflow server."
    calls = 400  # its queue holds 2,048 spans, and it takes seconds to deliver them
    pending = 1500
    peer = False

    @classmethod
    def environment(cls, uri: str, mode: str) -> dict[str, str]:
        variables = {"MLFLOW_TRACKING_URI": uri}
        if mode == "unsampled":
            variables["MLFLOW_TRACE_SAMPLING_RATIO"] = "0"
        return variables

    def __init__(self, uri: str, mode: str):
        self.mlflow: Any = importlib.import_module(self.imports[0])
        # Not by a variable: MLflow would ask the server for it in the call, and wait where that is down.
        self.mlflow.set_experiment(experiment_id="0")
        if mode == "off":
            self.mlflow.tracing.disable()

    def traced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        traced: Callable[..., Any] = self.mlflow.trace(function)
        return traced

    def step(self, inputs: dict[str, Any], output: str, key: str, value: float) -> None:
        with self.mlflow.start_span("step") as span:
            span.set_inputs(inputs)
            span.set_outputs(output)
            span.set_attribute(key, value)

    def attributes(self, items: dict[str, Any]) -> None:
        with self.mlflow.start_span("step") as span:
            span.set_attributes(items)

    def flush(self) -> None:
        self.mlflow.flush_trace_async_logging()
