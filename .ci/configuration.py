"""The table of docs/configuration.md: every environment variable that this package reads, as ``_internal/config`` says it.

    python .ci/configuration.py     writes the table anew

What a variable does stands in the docstring of the function that reads it, in a paragraph that begins with its name;
its default is the argument behind its name in the code. tests/package/test_configuration.py fails where the document is not
that of the code.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCES = [
    ROOT / "python/mlflow_fasttrace/_internal/config" / f"{name}.py"
    for name in ("environment", "otlp")
]
DOCUMENT = ROOT / "docs/configuration.md"
OPENING, CLOSING = "<!-- variables: made by .ci/configuration.py -->", "<!-- variables: end -->"

#: Variables that this package sets for its own processes, or hands on to them.
INTERNAL = {"MLFLOW_FASTTRACE_AGENT_PATIENCE", "PYTHONPATH"}

_PARAGRAPH = re.compile(r"((?:``[A-Z][A-Z0-9_]+``(?:, )?)+): (.+)", re.DOTALL)
_OPERATORS = {ast.LShift: operator.lshift, ast.Mult: operator.mul}


class Variable(NamedTuple):
    """What one function says of a variable, or of some that mean the same."""

    names: tuple[str, ...]
    default: str  # as one would set it; empty where there is none
    meaning: str


def variables() -> list[Variable]:
    """All variables: this package's own first, then MLflow's and others', as they stand in the code."""
    found = [variable for source in SOURCES for variable in _of(source)]
    found = [variable for variable in found if not INTERNAL.intersection(variable.names)]
    return sorted(found, key=lambda found: not found.names[0].startswith("MLFLOW_FASTTRACE"))


def _of(source: Path) -> Iterator[Variable]:
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
            if match := _PARAGRAPH.fullmatch(paragraph):
                names = tuple(re.findall(r"``(\w+)``", match[1]))
                yield Variable(names, _default(node, names[0]), " ".join(match[2].split()))


def _default(function: ast.FunctionDef, name: str) -> str:
    """The default of a variable: the argument behind its name."""
    for node in ast.walk(function):
        # a function that reads it, or that function's result: "_positive(_seconds(name, None)) or 1.0"
        if isinstance(node, ast.BoolOp) and name in ast.dump(node.values[0]):
            return _text(_value(node.values[-1]))
        if isinstance(node, ast.Call) and node.args and _value(node.args[0]) == name:
            words = [_value(word) for argument in node.args[2:] for word in ast.walk(argument)]
            default = _value(node.args[1]) if len(node.args) > 1 else None
            if "on" in words:
                return "on" if default else "off"
            return _text(default)
    return ""


def _value(node: ast.AST) -> object:
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        return _OPERATORS[type(node.op)](left, right)
    return node.value if isinstance(node, ast.Constant) else None


def _text(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def table() -> str:
    """The table as Markdown."""
    rows = ["| variable | default | |", "|---|---|---|"]
    for names, default, meaning in variables():
        cell = ", ".join(f"`{name}`" for name in names)
        text = meaning.replace("``", "`").replace("|", "\\|")
        rows.append(f"| {cell} | {f'`{default}`' if default else ''} | {text} |")
    return "\n".join(rows)


def document() -> str:
    """docs/configuration.md as it is to be.

    Raises:
        ValueError: it lacks the marks that the table stands between.
    """
    before, opening, rest = DOCUMENT.read_text(encoding="utf-8").partition(OPENING)
    _, closing, after = rest.partition(CLOSING)
    if not opening or not closing:
        raise ValueError(f"{DOCUMENT} lacks {OPENING} or {CLOSING}")
    return f"{before}{OPENING}\n\n{table()}\n\n{CLOSING}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
