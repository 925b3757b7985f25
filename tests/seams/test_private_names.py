"""The table of MLflow's private names: every name of it is needed, every name that is needed is in it, and
``install()`` refuses an MLflow that lacks one that is required."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mlflow_fasttrace
import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import version
from mlflow_fasttrace._internal.cli import doctor
from mlflow_fasttrace._internal.seams import apply, private_names
from mlflow_fasttrace._internal.seams.autolog import INTEGRATIONS
from mlflow_fasttrace._internal.seams.private_names import NAMES, PROGRAM, SENDER, Kind

PACKAGE = Path(mlflow_fasttrace.__file__).parent

#: Modules whose exports MLflow documents.
DOCUMENTED = {
    "mlflow",
    "mlflow.entities",
    "mlflow.exceptions",
    "mlflow.otel",
    "mlflow.tracing",
    "mlflow.tracking",
    *INTEGRATIONS.values(),
}

# ---- what the package uses ----


def layer_of(file: Path) -> str:
    """The folder of ``_internal`` that a file is in, or the public module."""
    parts = file.relative_to(PACKAGE).parts
    return parts[1] if parts[0] == "_internal" else file.stem


@cache
def sources() -> dict[Path, ast.Module]:
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if layer_of(file) != "__init__"]
    return {file: ast.parse(file.read_text()) for file in files}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and len(name) > 1


@cache
def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def module_of(path: str) -> str:
    """The module that a dotted name is looked up in."""
    while not is_module(path):
        path = path.rpartition(".")[0]
    return path


@cache
def defined() -> dict[str, set[str]]:
    """The names that each layer defines."""
    names: dict[str, set[str]] = {}
    for file, tree in sources().items():
        found = names.setdefault(layer_of(file), set())
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
                found.add(node.id if isinstance(node, ast.Name) else node.attr)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
    return names


@cache
def own_names(layer: str) -> frozenset[str]:
    """The private names in a layer that may be this package's own, its core's or the language's. A name
    that the table has is so only where the layer itself defines it: elsewhere it may be MLflow's."""
    of_python = {"_asdict", "_replace", "_getframe", "_at_fork_reinit", "_is_owned"}
    own = {"_core", "_internal", "_twin", *of_python}.union(*defined().values())
    for kind in [_core, *(kind for kind in vars(_core).values() if isinstance(kind, type))]:
        own |= set(dir(kind))
    theirs = {entry.name.rpartition(".")[2] for entry in NAMES if layer != "seams"}
    return frozenset((own - theirs) | defined()[layer])


class Uses(ast.NodeVisitor):
    """The private names of MLflow and OpenTelemetry that a file uses: full dotted names where the source
    tells them, otherwise the last part alone."""

    def __init__(self, file: Path, tree: ast.Module):
        self.found: set[str] = set()
        self._own = own_names(layer_of(file))
        self._known: dict[str, str] = {}  # what a name of this file stands for
        self.visit(tree)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] in ("mlflow", "opentelemetry"):
                self._known[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if (node.module or "").split(".")[0] not in ("mlflow", "opentelemetry"):
            return
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            self._known[alias.asname or alias.name] = full
            if not is_module(full):
                self._use(full)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        module = self._module_of(node.value)
        if module is not None:
            for target in node.targets:
                if isinstance(target, ast.Name):
                    self._known[target.id] = module

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.generic_visit(node)
        if (module := self._module_of(node.value)) is not None:
            self._known[node.target.id] = module

    def visit_If(self, node: ast.If) -> None:
        """What only a type checker sees costs nothing when it moves."""
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        full = self._full(node)
        if full is not None:
            if not is_module(full):
                self._use(full)
        elif is_private(node.attr) and node.attr not in self._own:
            self.found.add(node.attr)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Names in texts: of a module that is looked up, of an attribute that ``getattr`` reads."""
        text = node.value
        if not isinstance(text, str) or not text.replace(".", "").replace("_", "").isalnum():
            return
        if (
            text.startswith("mlflow.") and text != "mlflow.db" and is_module(text)
        ):  # a file's name too
            self._use(text)
        elif "." not in text and is_private(text) and text not in self._own:
            if text in {name.name.rpartition(".")[2] for name in NAMES}:
                self.found.add(text)

    def _module_of(self, node: ast.expr) -> str | None:
        """The module of MLflow that an expression looks up by its name, anywhere in it."""
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                if part.value.startswith("mlflow.") and is_module(part.value):
                    if isinstance(node, (ast.Call, ast.Subscript)):
                        return part.value
        return None

    def _full(self, node: ast.Attribute) -> str | None:
        path = [node.attr]
        value = node.value
        while isinstance(value, ast.Attribute):
            path.append(value.attr)
            value = value.value
        if isinstance(value, ast.Name) and value.id in self._known:
            return ".".join([self._known[value.id], *reversed(path)])
        return None

    def _use(self, full: str) -> None:
        private = any(map(is_private, full.split(".")))
        documented = full.startswith("opentelemetry") or module_of(full) in DOCUMENTED
        if private or not documented:
            self.found.add(full)


def uses() -> Iterator[tuple[Path, str]]:
    for file, tree in sources().items():
        if layer_of(file) == "seams" and file.name == "private_names.py":
            continue
        for name in sorted(Uses(file, tree).found):
            yield file, name


def canonical(path: str) -> set[str]:
    """The names that a dotted name may have in the table: its own, and that by each class above its own."""
    if is_module(path):
        return {path}
    module, _, name = path.rpartition(".")
    value = importlib.import_module(module_of(path))
    for part in module.removeprefix(module_of(path)).split(".")[1:]:
        value = getattr(value, part, None)
    kinds = getattr(value, "__mro__", ())
    return {path, *(f"{kind.__module__}.{kind.__qualname__}.{name}" for kind in kinds)}


def listed(path: str, layer: str) -> bool:
    """Whether the table has a name for a layer. A class counts by way of its members."""
    of_layer = [entry for entry in NAMES if layer in entry.needed_by]
    last = path.rpartition(".")[2]
    if "." not in path:
        return any(entry.name.rpartition(".")[2] == last for entry in of_layer)
    paths = canonical(path)
    return any(
        path in (entry.path, entry.module)
        or entry.path in paths
        or any(entry.path.startswith(name + ".") for name in paths)
        # A member of an object that is listed: only what its class keeps to itself is a name of its own.
        or (
            any(name.startswith(entry.path + ".") for name in paths)
            and (not is_private(last) or listed(last, layer))
        )
        for entry in of_layer
    )


def test_every_private_name_that_is_used_is_in_the_table():
    missing = [
        f"{file.relative_to(PACKAGE)} uses {name}: list it in _internal/seams/private_names.py"
        for file, name in uses()
        if not listed(name, layer_of(file))
    ]
    assert not missing, "\n".join(missing)


def mlflow_bases(node: ast.ClassDef, known: dict[str, str]) -> list[type]:
    """The classes of MLflow that a class is made of."""
    bases = []
    for base in node.bases:
        text = ast.unparse(base)
        first, _, rest = text.partition(".")
        if first in known:
            module, _, name = (known[first] + ("." + rest if rest else "")).rpartition(".")
            found = getattr(importlib.import_module(module), name, None)
            if isinstance(found, type):
                bases.append(found)
    return bases


def test_what_subclasses_of_mlflows_classes_override_is_in_the_table():
    known_names = {entry.name.rpartition(".")[2] for entry in NAMES}
    for file, tree in sources().items():
        visitor = Uses(file, tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            for base in mlflow_bases(node, visitor._known):
                if not base.__module__.startswith("mlflow"):
                    continue
                code = [vars(one).get("__init__") for one in base.__mro__]
                theirs = {n for f in code if inspect.isfunction(f) for n in f.__code__.co_names}
                theirs |= set(dir(base))
                own = {
                    part.attr
                    for part in ast.walk(node)
                    if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store)
                } | {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
                unlisted = {n for n in own & theirs if is_private(n)} - known_names
                assert not unlisted, f"{file.name}: {node.name} overrides {unlisted}"


def test_every_name_in_the_table_is_used():
    """By a file of each layer that is named, as an attribute, an import or a text."""
    words: dict[str, set[str]] = {}
    for file, tree in sources().items():
        if file.name == "private_names.py" and layer_of(file) == "seams":
            continue
        found = words.setdefault(layer_of(file), set())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, (ast.FunctionDef, ast.Name, ast.alias)):
                found.add(getattr(node, "id", None) or getattr(node, "name", ""))
            elif isinstance(node, ast.keyword):
                found.add(node.arg or "")
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    unused = [
        f"{entry.path} is not used by {layer}"
        for entry in NAMES
        for layer in entry.needed_by
        if (entry.name.rpartition(".")[2] or entry.module) not in words[layer]
        and entry.lost != private_names.NOTHING
    ]
    assert not unused, "\n".join(unused)


def test_the_table_has_no_name_twice():
    entries = [(entry.path, entry.needed_in) for entry in NAMES]
    assert len(entries) == len(set(entries))


def test_this_mlflow_has_them_all():
    private_names.check()
    for entry in NAMES:
        if entry.late and "llama_index" not in entry.module:  # which needs the library
            importlib.import_module(entry.module)
    assert list(private_names.missing(PROGRAM)) == list(private_names.missing(SENDER)) == []


# ---- what is replaced ----


def test_functions_that_are_replaced_are_those_of_the_table():
    replaced = {entry.path: entry for entry in NAMES if entry.kind is Kind.REPLACED}
    targets = {
        f"{module}.{name}": target
        for module, names in apply.FUNCTIONS.items()
        for name, target in names.items()
    }
    assert replaced.keys() == targets.keys()
    for path, entry in replaced.items():
        assert list(inspect.signature(targets[path]).parameters) == (entry.parameters or "").split()


# ---- an MLflow that lacks one ----

REQUIRED = [entry for entry in NAMES if entry.required and version.is_mlflow(*entry.since)]


def take_away(entry: private_names.Name, monkeypatch) -> None:
    """Makes MLflow one that lacks the name."""
    module = importlib.import_module(entry.module)
    if entry.kind is Kind.MODULE:
        monkeypatch.setitem(sys.modules, entry.module, None)
        return
    owner, _, member = entry.name.rpartition(".")
    holder = getattr(module, owner) if owner else module
    if entry.kind is not Kind.FIELD:
        monkeypatch.delattr(holder, member)
        return
    for base in holder.__mro__:
        if member in getattr(base, "__dataclass_fields__", ()):
            monkeypatch.delitem(base.__dataclass_fields__, member)
        if member in vars(base):
            monkeypatch.delattr(base, member)
        code = getattr(vars(base).get("__init__"), "__code__", None)
        if code is not None and member in code.co_names:
            monkeypatch.setattr(base, "__init__", lambda self, *args, **kwargs: None)


@pytest.mark.parametrize("entry", REQUIRED, ids=lambda entry: entry.path)
def test_install_refuses_an_mlflow_that_lacks(entry, caplog):
    # Taken away and given back within the test: what else runs in it may need the name.
    with pytest.MonkeyPatch.context() as monkeypatch:
        importlib.import_module(entry.module)
        take_away(entry, monkeypatch)
        installed = mlflow_fasttrace.install()
        said = [record.getMessage() for record in caplog.records]
        mlflow_fasttrace.uninstall()
    assert not installed
    assert len(said) == 1
    # A class that is gone is named in the place of its member.
    assert entry.path in said[0] or entry.path.rpartition(".")[0] in said[0]
    assert said[0].startswith("Tracing runs on MLflow itself: MLflow 3.")


@pytest.mark.parametrize("module", sorted(private_names.late_modules()))
def test_install_is_taken_back_when_a_late_module_has_moved(module, tmp_path):
    """The module is another one, found before MLflow's own, with no more than MLflow needs to import it."""
    program = f"""
import importlib.util, sys
import mlflow_fasttrace
assert mlflow_fasttrace.install()
import mlflow
assert mlflow_fasttrace.is_installed()
assert {module!r} not in sys.modules
class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            return importlib.util.spec_from_file_location(name, {str(tmp_path / "moved.py")!r})
sys.meta_path.insert(1, Finder())
import {module}
assert not mlflow_fasttrace.is_installed()
assert not mlflow_fasttrace.install()
"""
    (tmp_path / "moved.py").write_text("Context = set_prediction_context = None")
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert f"{module}." in result.stderr
    assert "is missing" in result.stderr


def test_what_is_lost_without_an_optional_name(monkeypatch):
    from mlflow.tracing.export.genai_semconv import translator

    monkeypatch.delattr(translator, "translate_span_to_genai")
    ((entry, reason),) = private_names.missing(SENDER)
    assert entry.lost == "MLFLOW_ENABLE_OTEL_GENAI_SEMCONV"
    assert reason.endswith("translate_span_to_genai is missing")
    assert [finding.label for finding in doctor._names_that_moved()] == [entry.path]
    private_names.check()
