"""Datadog's LLM Observability, through its agent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tracers import Tracer, ddtrace


class Adapter(Tracer):
    title = "ddtrace, LLMObs"
    packages = ("ddtrace",)
    imports = ("ddtrace.llmobs",)
    records = (
        "`@task` of `ddtrace.llmobs.decorators`: arguments and results by name, inside of the spans that go to "
        "the agent (protocol v0.4)."
    )

    @classmethod
    def environment(cls, uri: str, mode: str) -> dict[str, str]:
        variables = ddtrace.Adapter.environment(uri, "on")
        if mode == "unsampled":
            variables["DD_LLMOBS_SAMPLE_RATE"] = "0"
        return variables

    def __init__(self, uri: str, mode: str):
        from ddtrace.llmobs import LLMObs
        from ddtrace.llmobs.decorators import task

        if mode != "off":
            LLMObs.enable(ml_app="benchmark", agentless_enabled=False, integrations_enabled=False)
        self.llmobs, self.task = LLMObs, task

    def traced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        traced: Callable[..., Any] = self.task(function)
        return traced

    def step(self, inputs: dict[str, Any], output: str, key: str, value: float) -> None:
        with self.llmobs.task("step") as span:
            self.llmobs.annotate(
                span, input_data=json.dumps(inputs), output_data=output, metadata={key: value}
            )

    def attributes(self, items: dict[str, Any]) -> None:
        with self.llmobs.task("step") as span:
            self.llmobs.annotate(span, metadata=items)

    def flush(self) -> None:
        from ddtrace.trace import tracer

        tracer.flush()
        self.llmobs.flush()
