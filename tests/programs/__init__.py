"""Programs that run under MLflow and under the core, in processes of their own; what then arrives is
compared.

A program is a function that takes the module (``mlflow`` or ``mlflow_fasttrace``) and traces something.
Each module holds those of one subject in its ``PROGRAMS``; nothing is added to them from outside, so
that who names a module gets the same programs whatever else is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

Program = Callable[[Any], None]


class Programs(dict[str, Program]):
    """Programs by their names."""

    def add(self, function: Program) -> Program:
        """Decorates a program of the module."""
        assert function.__name__ not in self, function.__name__
        self[function.__name__] = function
        return function


def of_modules(*modules: ModuleType) -> Programs:
    """All programs of these modules."""
    together = Programs()
    for module in modules:
        for function in module.PROGRAMS.values():
            together.add(function)
    return together
