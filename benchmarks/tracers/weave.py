"""Weave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracers import Tracer


class Adapter(Tracer):
    title = "Weave"
    packages = ("weave",)
    imports = ("weave",)
    records = (
        "`@weave.op` and, since it has no context manager, its client's `create_call` and `finish_call`: "
        "arguments and results by name; to its trace server. The sink answers its login, too."
    )
    pending = 6000
    calls = 1000

    @classmethod
    def environment(cls, uri: str, mode: str) -> dict[str, str]:
        variables = {
            "WF_TRACE_SERVER_URL": uri,
            "WANDB_BASE_URL": uri,
            "WANDB_API_KEY": "0" * 40,
            "WANDB_ENTITY": "benchmark",
            "WANDB_ERROR_REPORTING": "false",
            "WEAVE_PRINT_CALL_LINK": "false",
        }
        if mode == "off":
            variables["WEAVE_DISABLED"] = "true"
        return variables

    def __init__(self, uri: str, mode: str):
        import weave

        self.client: Any = weave.init("benchmark")
        self.op: Any = weave.op(tracing_sample_rate=0.0) if mode == "unsampled" else weave.op

    def traced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        traced: Callable[..., Any] = self.op(function)
        return traced

    def step(self, inputs: dict[str, Any], output: str, key: str, value: float) -> None:
        call = self.client.create_call("step", inputs, attributes={key: value})
        self.client.finish_call(call, output)

    def attributes(self, items: dict[str, Any]) -> None:
        call = self.client.create_call("step", {}, attributes=items)
        self.client.finish_call(call)

    def flush(self) -> None:
        self.client.flush()
