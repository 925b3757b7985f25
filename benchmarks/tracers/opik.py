"""Opik."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracers import Tracer


class Adapter(Tracer):
    title = "Opik"
    packages = ("opik",)
    imports = ("opik",)
    records = (
        "`@track` and `start_as_current_span`: arguments and results by name; to its server. It has no "
        "sampling ratio."
    )
    samples = False
    pending = 6000
    calls = 1000

    @classmethod
    def environment(cls, uri: str, mode: str) -> dict[str, str]:
        variables = {
            "OPIK_URL_OVERRIDE": uri + "/api",
            "OPIK_SENTRY_ENABLE": "false",
            "OPIK_ANALYTICS_ENABLE": "false",
            "OPIK_ENABLE_LITELLM_MODELS_MONITORING": "false",
        }
        if mode == "off":
            variables["OPIK_TRACK_DISABLE"] = "true"
        return variables

    def __init__(self, uri: str, mode: str):
        import opik

        self.opik: Any = opik

    def traced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        traced: Callable[..., Any] = self.opik.track(function)
        return traced

    def step(self, inputs: dict[str, Any], output: str, key: str, value: float) -> None:
        with self.opik.start_as_current_span("step", input=inputs) as span:
            span.output = {"output": output}
            span.metadata = {key: value}

    def attributes(self, items: dict[str, Any]) -> None:
        with self.opik.start_as_current_span("step", metadata=items):
            pass

    def flush(self) -> None:
        self.opik.flush_tracker()
