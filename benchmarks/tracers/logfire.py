"""Logfire, to a collector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracers import Tracer


class Adapter(Tracer):
    title = "Logfire"
    packages = ("logfire",)
    imports = ("logfire",)
    records = (
        "`@logfire.instrument(record_return=True)` and `logfire.span`: arguments and results by name; "
        "`send_to_logfire=False`, to a collector by OTLP. Of a generator only its arguments."
    )
    calls = 1500  # it has OpenTelemetry's queue

    @classmethod
    def environment(cls, uri: str, mode: str) -> dict[str, str]:
        variables = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": uri + "/v1/traces"}
        if mode == "off":
            variables["OTEL_SDK_DISABLED"] = "true"
        if mode == "unsampled":
            variables["LOGFIRE_TRACE_SAMPLE_RATE"] = "0"
        return variables

    def __init__(self, uri: str, mode: str):
        import logfire

        logfire.configure(send_to_logfire=False, console=False)
        self.logfire: Any = logfire

    def traced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import inspect

        if inspect.isgeneratorfunction(function):
            instrument = self.logfire.instrument(allow_generator=True)
        else:
            instrument = self.logfire.instrument(record_return=True)
        traced: Callable[..., Any] = instrument(function)
        return traced

    def step(self, inputs: dict[str, Any], output: str, key: str, value: float) -> None:
        with self.logfire.span("step", **inputs) as span:
            span.set_attribute("output", output)
            span.set_attribute(key, value)

    def attributes(self, items: dict[str, Any]) -> None:
        with self.logfire.span("step") as span:
            span.set_attributes(items)

    def flush(self) -> None:
        self.logfire.force_flush(60_000)
