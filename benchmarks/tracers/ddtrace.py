"""Datadog's tracer (APM), to its agent."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

from by_hand import recorded

from tracers import Tracer


class Adapter(Tracer):
    title = "ddtrace"
    packages = ("ddtrace",)
    imports = ("ddtrace.trace",)
    records = (
        "`tracer.trace` in a decorator, to an agent (protocol v0.5). `tracer.wrap` records no arguments "
        "and results: the decorator sets both as tags, as JSON. A generator is a span of its own loop, "
        "without its items."
    )

    @classmethod
    def environment(cls, uri: str, mode: str) -> dict[str, str]:
        variables = {
            "DD_TRACE_AGENT_URL": uri,
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
            "DD_TRACE_STARTUP_LOGS": "false",
        }
        if mode == "off":
            variables["DD_TRACE_ENABLED"] = "false"
        if mode == "unsampled":
            variables["DD_TRACE_SAMPLING_RULES"] = '[{"sample_rate": 0}]'
        return variables

    def __init__(self, uri: str, mode: str):
        from ddtrace.trace import tracer

        self.tracer = tracer

    def traced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function):
            wrapped: Callable[..., Any] = self.tracer.wrap()(function)
            return wrapped
        return recorded(function, self.tracer.trace, "set_tag")

    def step(self, inputs: dict[str, Any], output: str, key: str, value: float) -> None:
        with self.tracer.trace("step") as span:
            span.set_tag("input", json.dumps(inputs))
            span.set_tag("output", output)
            span.set_tag(key, value)

    def attributes(self, items: dict[str, Any]) -> None:
        with self.tracer.trace("step") as span:
            span.set_tags(items)

    def flush(self) -> None:
        self.tracer.flush()
