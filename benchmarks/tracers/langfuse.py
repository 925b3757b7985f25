"""Langfuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracers import Tracer


class Adapter(Tracer):
    title = "Langfuse"
    packages = ("langfuse",)
    imports = ("langfuse",)
    records = "`@observe` and `start_as_current_observation`: arguments and results; to its server by OTLP."
    calls = 1500  # it has OpenTelemetry's queue

    @classmethod
    def environment(cls, uri: str, mode: str) -> dict[str, str]:
        variables = {
            "LANGFUSE_HOST": uri,
            "LANGFUSE_BASE_URL": uri,
            "LANGFUSE_PUBLIC_KEY": "pk-lf-benchmark",
            "LANGFUSE_SECRET_KEY": "sk-lf-benchmark",
        }
        if mode == "off":
            variables["LANGFUSE_TRACING_ENABLED"] = "false"
        if mode == "unsampled":
            variables["LANGFUSE_SAMPLE_RATE"] = "0.0"
        return variables

    def __init__(self, uri: str, mode: str):
        from langfuse import get_client, observe

        self.client, self.observe = get_client(), observe

    def traced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        traced: Callable[..., Any] = self.observe(function)
        return traced

    def step(self, inputs: dict[str, Any], output: str, key: str, value: float) -> None:
        with self.client.start_as_current_observation(name="step", input=inputs) as span:
            span.update(output=output, metadata={key: value})

    def attributes(self, items: dict[str, Any]) -> None:
        with self.client.start_as_current_observation(name="step") as span:
            span.update(metadata=items)

    def flush(self) -> None:
        self.client.flush()
