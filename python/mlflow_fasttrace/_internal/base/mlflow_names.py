"""The names that this package's modules take over from MLflow's: looked up in MLflow when one is asked for, and
listed without importing it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlflow_fasttrace._internal.base import patching
from mlflow_fasttrace._internal.base.imports import imported

if TYPE_CHECKING:
    from mlflow_fasttrace._internal.base.mlflow_source import Names


#: Modules that ask each module of the process for the value of each name that it lists, which would import MLflow.
_ASK_FOR_ALL = frozenset({"freezegun.api"})


def take_over(
    own: dict[str, Any], source: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and the ``__dir__`` of a module that has MLflow's names besides its own.

    Args:
        own: The module's globals. Its ``_OWN`` are the public names that it has itself.
        source: The module of MLflow that has the others.
    """
    module, own_names = own["__name__"], own["_OWN"]

    def look_up(name: str) -> Any:
        if name == "__all__":
            return sorted({*own_names, *names(source).exported})
        # What looks at modules asks for such names, and must not import MLflow.
        if name.startswith("_"):
            raise unknown(module, name)
        return of_mlflow(module, source, name)

    def listed() -> list[str]:
        if sys._getframe(1).f_globals.get("__name__") in _ASK_FOR_ALL:
            return sorted(own)
        loaded = vars(sys.modules[source]) if source in sys.modules else {}
        of_mlflow = {name for name in loaded if not name.startswith("_")}
        return sorted({*own_names, *names(source).public, *of_mlflow, *filter(_is_special, own)})

    return look_up, listed


def of_mlflow(module: str, source: str, name: str) -> Any:
    """An attribute of a module of MLflow, or a module below it.

    Args:
        module: The module of this package that was asked for it.
        source: The module of MLflow.
        name: Name of the attribute.

    Raises:
        AttributeError: MLflow does not have it.
        ImportError: MLflow has it, but a package that it needs is missing.
    """
    patching.wait_for_mlflow()
    try:
        found = imported(source)
    except ImportError:
        if name in names(source).public:
            raise
        raise unknown(module, name) from None
    try:
        return getattr(found, name)
    except AttributeError:
        pass
    try:
        return imported(f"{source}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{source}.{name}":  # there is one, and it needs what is missing
            raise
        raise unknown(module, name) from None


def unknown(module: str, name: str) -> AttributeError:
    """What a module of this package raises of a name that it does not have."""
    return AttributeError(f"module {module!r} has no attribute {name!r}", name=name)


def _is_special(name: str) -> bool:
    return name.startswith("__")


def names(module: str) -> Names:
    """The names of a package of MLflow."""
    # Slow to import, and only who looks around needs it.
    from mlflow_fasttrace._internal.base import mlflow_source

    return mlflow_source.names(module)
