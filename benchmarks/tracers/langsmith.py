"""LangSmith."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracers import Tracer


class Adapter(Tracer):
    title = "LangSmith"
    packages = ("langsmith",)
    imports = ("langsmith",)
    records = "`@traceable` and `langsmith.trace`: arguments and results by name; to its server (multipart, zstd)."

    @classmethod
    def environment(cls, uri: str, mode: str) -> dict[str, str]:
        variables = {
            "LANGSMITH_TRACING": "false" if mode == "off" else "true",
            "LANGSMITH_ENDPOINT": uri,
            "LANGSMITH_API_KEY": "benchmark",
            "LANGSMITH_PROJECT": "benchmark",
        }
        if mode == "unsampled":
            variables["LANGSMITH_TRACING_SAMPLING_RATE"] = "0"
        return variables

    def __init__(self, uri: str, mode: str):
        import langsmith

        self.langsmith: Any = langsmith

    def traced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        traced: Callable[..., Any] = self.langsmith.traceable(function)
        return traced

    def step(self, inputs: dict[str, Any], output: str, key: str, value: float) -> None:
        with self.langsmith.trace("step", inputs=inputs, metadata={key: value}) as run:
            run.end(outputs={"output": output})

    def attributes(self, items: dict[str, Any]) -> None:
        with self.langsmith.trace("step", metadata=items):
            pass

    def flush(self) -> None:
        from langsmith.run_trees import get_cached_client

        get_cached_client().flush()
