"""What MLflow's source says of its packages, without importing them: their names in the release that is
installed."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mlflow_fasttrace._internal.base.interruptions import let_pass


class Names(NamedTuple):
    """What MLflow's source says of a module."""

    #: All that are public.
    public: frozenset[str]
    #: What ``from module import *`` takes.
    exported: frozenset[str]


#: Modules that are attributes of ``mlflow`` because others import them, though its source does not name them.
_IMPORTED_BY_OTHERS = (
    "azure",
    "error_classification",
    "legacy_databricks_cli",
    "mismatch",
    "ml_package_versions",
    "prompt",
    "protos",
    "store",
    "system_metrics",
    "types",
)


@functools.cache
def names(module: str) -> Names:
    """The names of a package of MLflow, by its source; none where that cannot be read.

    Args:
        module: Its name, ``mlflow`` or one below it.
    """
    spec = importlib.util.find_spec("mlflow")
    if spec is None or spec.origin is None:
        return Names(frozenset(), frozenset())
    folder = Path(spec.origin).parent.joinpath(*module.split(".")[1:])
    try:
        tree = ast.parse((folder / "__init__.py").read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        let_pass(error)
        return Names(frozenset(), frozenset())
    bound: set[str] = set()
    exported: set[str] = set()
    for statement in _statements(tree.body):
        bound.update(_bound(statement, module))
        exported.update(_exported(statement))
    if module == "mlflow":
        bound.update(name for name in _IMPORTED_BY_OTHERS if _is_module(folder / name))
    public = frozenset(name for name in bound if not name.startswith("_"))
    return Names(public, frozenset(exported) & public or public)


def _is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").is_file()


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that a module runs when it is imported, in whatever they are nested."""
    for statement in body:
        if isinstance(statement, ast.If):
            condition = ast.unparse(statement.test)
            if condition == "TYPE_CHECKING" or (
                condition == "not IS_TRACING_SDK_ONLY" and _is_tracing_alone()
            ):
                continue
            yield from _statements([*statement.body, *statement.orelse])
        elif isinstance(statement, (ast.Try, ast.With)):
            yield from _statements(statement.body)
        else:
            yield statement


def _is_tracing_alone() -> bool:
    """Whether ``mlflow-tracing`` is installed without the rest of MLflow."""
    for distribution in ("mlflow", "mlflow-skinny"):
        try:
            importlib.metadata.distribution(distribution)
            return False
        except importlib.metadata.PackageNotFoundError:
            pass
    return True


def _bound(statement: ast.stmt, module: str) -> Iterator[str]:
    """The names that a statement binds, but for those of packages that are not MLflow."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("mlflow"):
        below = (statement.module or "").split(".")[1:]
        if below and module == "mlflow":  # what it is imported from is a name of the package, too
            yield below[0]
        for alias in statement.names:
            yield alias.asname or alias.name
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id


def _exported(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement adds to ``__all__``."""
    if isinstance(statement, (ast.Assign, ast.AugAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        added: ast.AST = statement.value
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        function = statement.value.func
        targets = [function.value] if isinstance(function, ast.Attribute) else []
        added = statement.value
    else:
        return
    if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
        for node in ast.walk(added):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
