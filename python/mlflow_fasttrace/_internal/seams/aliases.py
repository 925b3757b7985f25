"""MLflow's modules under this package's name: ``import mlflow_fasttrace.openai``,
``from mlflow_fasttrace.entities.span import Span``.

They are MLflow's own modules, not copies; MLflow itself runs on the core as soon as one is imported. The
import hook here gives a module another name. It shares nothing with that of ``base/patching.py``, which waits
for a module under its own.

A finder imports nothing: Python before 3.12 holds the lock of all imports while it asks one, so that a
finder that waits for another thread's import waits for ever. The loader imports.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlflow_fasttrace._internal.base import patching
from mlflow_fasttrace._internal.base.imports import imported
from mlflow_fasttrace._internal.config import engine

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:  # importlib.abc takes longer to import than all of this package
    Loader = MetaPathFinder = object

_PREFIX = "mlflow_fasttrace."

#: What takes the place of this package's modules where MLflow's own code records, if it is not MLflow's module of
#: the same name.
_ON_MLFLOW = {"otel": "mlflow_fasttrace._internal.seams.mlflows_otel"}
#: The same, of those whose functions lead to MLflow's then, but need the core to be imported.
_WITHOUT_CORE = {"fluent": "mlflow", "traces": "mlflow"}


class _Finder(MetaPathFinder):
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
        if first.startswith("_"):
            return None
        real = "mlflow." + rest
        if first in self._own and not deeper:
            if engine.why_mlflow() is None:
                return None
            others = {**_ON_MLFLOW, **(_WITHOUT_CORE if engine.lacks_core() else {})}
            real = others.get(rest, real)
        if not _exists(real):
            return None
        return importlib.machinery.ModuleSpec(name, _Loader(real))


def _exists(real: str) -> bool:
    """Whether there is such a module of MLflow. Nothing is imported to find out."""
    parts = real.split(".")
    path: Sequence[str] | None = None
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        if (module := sys.modules.get(name)) is not None:
            path = getattr(module, "__path__", None)
        else:
            spec = _spec(name, path)
            if spec is None:
                return False
            path = spec.submodule_search_locations
        if path is None and depth < len(parts):
            return False
    return True


def _spec(name: str, path: Sequence[str] | None) -> importlib.machinery.ModuleSpec | None:
    """What the other finders know of a module that is not loaded."""
    for finder in list(sys.meta_path):
        if not isinstance(finder, _Finder) and hasattr(finder, "find_spec"):
            if (spec := finder.find_spec(name, path)) is not None:
                return spec
    return None


class _Loader(Loader):
    """Imports a module of MLflow and gives it a second name.

    Args:
        real: The module's name in MLflow.
    """

    def __init__(self, real: str):
        self._real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        from mlflow_fasttrace._internal.seams import install

        install.install()
        patching.wait_for_mlflow()
        # The import statement returns what sys.modules holds afterwards.
        sys.modules[module.__name__] = imported(self._real)
        # Modules below it that are loaded are found at once. To import such a module anew would set it as
        # an attribute of the one above, where a function may have that name: mlflow.openai.autolog.
        for name in [name for name in sys.modules if name.startswith(self._real + ".")]:
            below = name.removeprefix(self._real)
            sys.modules.setdefault(module.__name__ + below, sys.modules[name])


def enable(own: frozenset[str]) -> None:
    """Find MLflow's modules under this package's name from now on.

    Args:
        own: The modules that this package has itself.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(own))
