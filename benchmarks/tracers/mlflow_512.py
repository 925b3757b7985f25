"""MLflow with larger batches."""

from __future__ import annotations

from tracers import mlflow


class Adapter(mlflow.Adapter):
    title = "MLflow, batch 512"
    records = "The same with `MLFLOW_ASYNC_TRACE_LOGGING_MAX_SPAN_BATCH_SIZE=512`."

    @classmethod
    def environment(cls, uri: str, mode: str) -> dict[str, str]:
        larger = {"MLFLOW_ASYNC_TRACE_LOGGING_MAX_SPAN_BATCH_SIZE": "512"}
        return super().environment(uri, mode) | larger
