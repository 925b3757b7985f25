"""Programs that run under MLflow and under the core, in processes of their own; what then arrives is
compared.

A program is a function that takes the module (``mlflow`` or ``mlflow_fasttrace``) and traces something.
Each module holds those of one subject in its ``PROGRAMS``; nothing is added to them from outside, so
that who names a module gets the same programs whatever else is imported.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from types import ModuleType
from typing import Any

Program = Callable[[Any], None]

try:
    #: The release of MLflow under which the programs run; None where there is none.
    MLFLOW: str | None = importlib.metadata.version("mlflow")
except importlib.metadata.PackageNotFoundError:
    MLFLOW = None


def is_mlflow(release: str) -> bool:
    """Whether MLflow is of this release, such as ``3.15``, or of a later one, or not there."""
    return MLFLOW is None or _numbers(MLFLOW) >= _numbers(release)


def _numbers(release: str) -> list[int]:
    return [int(number) for number in release.split(".")[:2]]


def with_mlflow(release: str, **arguments: Any) -> dict[str, Any]:
    """Arguments that MLflow takes from this release on; none where it is older."""
    return arguments if is_mlflow(release) else {}


class Programs(dict[str, Program]):
    """Programs by their names."""

    def add(self, function: Program) -> Program:
        """Decorates a program of the module."""
        assert function.__name__ not in self, function.__name__
        self[function.__name__] = function
        return function

    def add_with_mlflow(self, release: str) -> Callable[[Program], Program]:
        """Decorates a program of the module that MLflow can run from this release on."""
        return self.add if is_mlflow(release) else lambda function: function


def of_modules(*modules: ModuleType) -> Programs:
    """All programs of these modules."""
    together = Programs()
    for module in modules:
        for function in module.PROGRAMS.values():
            together.add(function)
    return together
