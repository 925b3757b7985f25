"""Checks that no handler on the program's side swallows what belongs to the program.

    python .ci/check_interruptions.py [ROOT]

A signal handler may raise anywhere, a ``TimeoutError``, which is an ``OSError``, for one. So a handler for one
of the wide exceptions in a module that the traced program runs begins by letting that pass: it calls
``let_pass`` (``base/interruptions.py``), asks ``_core.is_interruption``, or raises again. ``contextlib.suppress``
cannot do that and is not used with them. Nor can functions of Python's library that take an OSError for an
answer, as ``os.path.exists`` does.

Prints a line a fault, and exits with 1 when there is one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

#: What a program runs in its own process, below ``python/mlflow_fasttrace``. Not the sender and the commands,
#: where a signal ends the process, and not what a program runs once, while it installs.
MODULES = (
    "fluent.py",
    "otel.py",
    "tracing.py",
    "traces.py",
    "_internal/base/*.py",
    "_internal/recording/*.py",
    "_internal/spans/*.py",
    "_internal/spool/database.py",
    "_internal/spool/file_locks.py",
    "_internal/spool/folder.py",
    "_internal/spool/lock.py",
    "_internal/spool/places.py",
    "_internal/spool/private_files.py",
)
WIDE = {"Exception", "BaseException", "OSError", "RuntimeError"}
#: The last two hand the exception on to a generator's body.
PASSES = {"let_pass", "is_interruption", "throw", "athrow"}

#: Functions of Python's own that take an OSError for an answer.
SWALLOWING = {
    *(f"os.path.{name}" for name in ("exists", "lexists", "isdir", "isfile", "islink", "ismount")),
    *("os.path.realpath", "os.makedirs", "os.removedirs", "os.renames", "os.walk"),
}


def _names(kind: ast.expr | None) -> set[str]:
    if kind is None:
        return {"BaseException"}
    parts = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return {part.id for part in parts if isinstance(part, ast.Name)}


def _lets_pass(handler: ast.ExceptHandler) -> bool:
    for node in ast.walk(handler):
        if isinstance(node, ast.Raise) and node.exc is None and node in handler.body:
            return True
        if isinstance(node, ast.Call):
            function = node.func
            name = (
                function.attr
                if isinstance(function, ast.Attribute)
                else getattr(function, "id", "")
            )
            if name in PASSES:
                return True
    return False


def faults_of(source: str) -> Iterator[tuple[int, str]]:
    """The lines and messages of what is wrong in a module."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.ExceptHandler)
            and _names(node.type) & WIDE
            and not _lets_pass(node)
        ):
            yield (
                node.lineno,
                "this handler swallows an exception of a signal handler; see let_pass()",
            )
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", "") == "suppress"
            and set().union(*(_names(argument) for argument in node.args)) & WIDE
        ):
            yield (
                node.lineno,
                "suppress() swallows an exception of a signal handler; see let_pass()",
            )
        if isinstance(node, ast.Call) and ast.unparse(node.func) in SWALLOWING:
            yield (
                node.lineno,
                f"{ast.unparse(node.func)}() swallows an OSError of a signal handler; see base/paths.py",
            )


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1])
    package = root / "python/mlflow_fasttrace"
    found = False
    for pattern in MODULES:
        for path in sorted(package.glob(pattern)):
            for line, message in faults_of(path.read_text()):
                print(f"{path.relative_to(root)}:{line}: {message}")
                found = True
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
