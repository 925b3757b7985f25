"""How each tracer is used: a module for each, with a class ``Adapter``.

An adapter imports its package only when it is made, so that the modules can be read without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

#: Keys of results and names of modules here; titles are in the adapters.
NAMES = (
    "mlflow",
    "mlflow_512",
    "fasttrace",
    "opentelemetry",
    "ddtrace",
    "ddtrace_llmobs",
    "logfire",
    "langfuse",
    "langsmith",
    "opik",
    "weave",
)


class Tracer:
    """What the workload asks of a tracer.

    Args:
        mode: ``on``, ``off`` or ``unsampled`` (a sampling ratio of 0).
    """

    title: str
    #: The distributions on PyPI that a program installs, and the modules that it imports.
    packages: tuple[str, ...]
    imports: tuple[str, ...]
    #: A sentence on what it records and how it is used here.
    records: str
    #: The calls in a row that its own queue holds. More would be dropped, and look cheap.
    calls = 2000
    #: As many spans may wait for those of later rows, because a flush takes long.
    pending = 0
    #: Whether its interpreter is that of `.venv-peers`, not of `.venv`.
    peer = True
    #: Whether it can be told to sample nothing.
    samples = True

    @classmethod
    def environment(cls, uri: str, mode: str) -> dict[str, str]:
        """The variables that a program would be started with."""
        return {}

    def __init__(self, uri: str, mode: str):
        """Imports the package (most of it is there) and sets it up."""

    def traced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function, a coroutine function or a generator function with its inputs and outputs recorded."""
        raise NotImplementedError

    def step(self, inputs: dict[str, Any], output: str, key: str, value: float) -> None:
        """A span as a context manager, with inputs, an output and an attribute."""
        raise NotImplementedError

    def attributes(self, items: dict[str, Any]) -> None:
        """A span with these attributes."""
        raise NotImplementedError

    def flush(self) -> None:
        """Returns when what was recorded has been sent."""
        raise NotImplementedError


def adapter(name: str) -> type[Tracer]:
    found: type[Tracer] = importlib.import_module(f"tracers.{name}").Adapter
    return found
