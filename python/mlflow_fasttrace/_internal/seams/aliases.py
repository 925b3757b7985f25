"""MLflow's modules under this package's name: ``import mlflow_fasttrace.openai``,
``from mlflow_fasttrace.entities.span import Span``.

They are MLflow's own modules, not copies; MLflow itself runs on the core as soon as one is imported. The
import hook here gives a module another name. It shares nothing with that of ``base/patching.py``, which waits
for a module under its own.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence

_PREFIX = "mlflow_fasttrace."


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules of MLflow under this package's name.

    Args:
        own: The modules that this package has itself.
    """

    def __init__(self, own: frozenset[str]):
        self._own = own

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith(_PREFIX):
            return None
        rest = name[len(_PREFIX) :]
        first, _, deeper = rest.partition(".")
        if first.startswith("_") or (first in self._own and not deeper):
            return None
        real = "mlflow." + rest
        from mlflow_fasttrace._internal.seams import install

        install.install()
        try:
            if importlib.util.find_spec(real) is None:
                return None
        except ImportError:
            return None
        return importlib.machinery.ModuleSpec(name, _Loader(real))


class _Loader(importlib.abc.Loader):
    """Imports a module of MLflow and gives it a second name.

    Args:
        real: The module's name in MLflow.
    """

    def __init__(self, real: str):
        self._real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        # The import statement returns what sys.modules holds afterwards.
        sys.modules[module.__name__] = importlib.import_module(self._real)
        # Modules below it that are loaded are found at once. To import such a module anew would set it as
        # an attribute of the one above, where a function may have that name: mlflow.openai.autolog.
        for name in [name for name in sys.modules if name.startswith(self._real + ".")]:
            sys.modules.setdefault(_PREFIX + name.removeprefix("mlflow."), sys.modules[name])


def enable(own: frozenset[str]) -> None:
    """Find MLflow's modules under this package's name from now on.

    Args:
        own: The modules that this package has itself.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(own))
