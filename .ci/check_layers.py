"""Checks the layers where import-linter and the C compiler do not: see docs/design.md.

    python .ci/check_layers.py [ROOT]

Python (``python/mlflow_fasttrace``): modules import each other by statements, which import-linter
sees, and the package's root only for the C core and public submodules. A function that imports a
module below ``mlflow`` calls ``wait_for_mlflow()`` before it: another thread may be importing MLflow. What runs in the
program takes clock, pause and system calls from ``_internal/base``: the program's tests replace Python's.

C (``ext``): the folders are layers. A file includes headers of its own folder and of folders below,
the units of a folder (a .c and the .h of its name) do not include each other in a circle, a function
that other units may call is declared in its own unit's header and nowhere else, and no unit calls one
that is defined above it or whose header it does not include. Files that lie directly in ``ext``, but
for ``module.c``, belong to no layer and are not checked.

Prints a line a fault, and exits with 1 when there is one.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

PACKAGE = "mlflow_fasttrace"
#: The modules that may import others by name, and the root: the root itself, whose names are lazy, and the
#: one that Python imports where the package may not be installed.
BY_NAME = frozenset({"__init__.py", "_internal/bootstrap/sitecustomize.py"})
#: Where functions import modules of MLflow as they are: processes of their own, and what is imported
#: after MLflow.
AFTER_MLFLOW = (
    "_internal/cli/",
    "_internal/seams/",
    "_internal/sender/",
    "_internal/spans/entities.py",
)
#: By modules of Python's that tests of the program replace: where they may be imported all the same, what
#: to take instead, and where that counts.
REPLACED_BY_TESTS = {
    "time": (
        "_internal/base/clock.py",
        "base/clock.py",
        ("_internal/base/", "_internal/recording/"),
    ),
    "os": ("_internal/base/system.py", "base/system.py", ("_internal/recording/",)),
    "fcntl": ("_internal/base/system.py", "base/system.py", ("_internal/recording/",)),
    "subprocess": ("", "os.posix_spawn of base/system.py", ("_internal/recording/",)),
}
IMPORT_FUNCTIONS = frozenset({"import_module", "__import__"})

#: The folders of ext/, each above those before it; module.c stands above all.
LAYERS = ("base", "value", "record", "spool", "trace", "objects", "api")
TOP_FILE = "module.c"
#: Functions of Python that fail where code runs that was given other builtins.
BY_THE_FRAMES_BUILTINS = frozenset({"PyImport_Import", "PyImport_ImportModule"})
#: Functions that Python finds by name.
ENTRY_POINT = re.compile(r"PyInit_\w+")


# ---- Python ----


def check_python(package: Path) -> list[str]:
    """The faults of a package's modules."""
    public = {
        path.stem
        for path in package.iterdir()
        if not path.name.startswith("_")
        and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    faults = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        tree = ast.parse(path.read_text(), str(path))
        folders = (PACKAGE, *path.relative_to(package).parts[:-1])
        for node in ast.walk(tree):
            for fault in _faults_of(node, name, folders, public):
                faults.append(f"{path}:{node.lineno}: {fault}")
        if not name.startswith(AFTER_MLFLOW):
            faults += [f"{path}:{line}: {fault}" for line, fault in _unguarded_imports(tree)]
    return faults


def _faults_of(
    node: ast.AST, name: str, folders: tuple[str, ...], public: set[str]
) -> Iterator[str]:
    for module, (allowed, instead, folders_of_program) in REPLACED_BY_TESTS.items():
        if name != allowed and name.startswith(folders_of_program) and _imports(node, module):
            yield f"{module} may be replaced by a test of the program; take {instead}"
    if isinstance(node, ast.Call):
        module = _imported_by_name(node)
        if module is not None and name not in BY_NAME:
            yield f"{module!r} is imported by a string; use an import statement"
    elif isinstance(node, ast.Import) and name not in BY_NAME:
        for alias in node.names:
            if alias.name == f"{PACKAGE}._core":
                continue
            binds_root = alias.name.startswith(f"{PACKAGE}.") and alias.asname is None
            if alias.name == PACKAGE or binds_root:
                yield f"the root, {PACKAGE}, is imported"
    elif isinstance(node, ast.ImportFrom) and _module_of(node, folders) == PACKAGE:
        for alias in node.names:
            if alias.name != "_core" and alias.name not in public:
                yield f"{alias.name} is imported from the root, which is no public submodule"


def _imports(node: ast.AST, module: str) -> bool:
    """Whether a statement imports a module, or something of it."""
    if isinstance(node, ast.ImportFrom):
        return node.level == 0 and node.module == module
    return isinstance(node, ast.Import) and any(alias.name == module for alias in node.names)


def _unguarded_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The imports of MLflow's modules in functions that do not wait for MLflow before."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        nodes = sorted(
            (node for node in ast.walk(function) if hasattr(node, "lineno")),
            key=lambda node: node.lineno,
        )
        waits = False
        for node in nodes:
            if isinstance(node, ast.Call) and "wait_for_mlflow" in ast.unparse(node.func):
                waits = True
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            if not waits and any(module.startswith("mlflow.") for module in modules):
                yield node.lineno, "wait_for_mlflow() is not called before this import"


def _imported_by_name(call: ast.Call) -> str | None:
    """The module of this package that a call imports by a string."""
    function = call.func
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if called not in IMPORT_FUNCTIONS or not call.args:
        return None
    text = _beginning(call.args[0])
    ours = text.startswith(".") or text == PACKAGE or text.startswith(f"{PACKAGE}.")
    return text if ours else None


def _beginning(node: ast.expr) -> str:
    """The constant part that a string begins with."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr) and node.values:
        return _beginning(node.values[0])
    if isinstance(node, ast.BinOp):
        return _beginning(node.left)
    return ""


def _module_of(node: ast.ImportFrom, folders: tuple[str, ...]) -> str:
    """The absolute name of the module that something is imported from."""
    if node.level == 0:
        return node.module or ""
    parts = folders[: len(folders) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


# ---- C: files ----

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.M)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.M)
_LITERAL = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'')
_NAMED_GROUP = re.compile(r"([A-Za-z_]\w*)\s*(?=\()")
_WORD = re.compile(r"(?:(?:\.|->)\s*)?\b([A-Za-z_]\w*)\b")
_NO_FUNCTIONS = frozenset(
    {"static_assert", "_Static_assert", "__attribute__", "alignas", "_Alignas", "__declspec"}
)


def _blank(match: re.Match[str]) -> str:
    """As many lines as the match, with nothing on them."""
    return " " + "\n" * match[0].count("\n")


class File:
    """A C file: what it includes, declares and defines."""

    def __init__(self, path: Path, layer: str | None):
        self.path = path
        self.layer = layer  # None: directly in ext/
        text = _COMMENT.sub(_blank, path.read_text())
        self.includes = [
            (text.count("\n", 0, match.start(1)) + 1, match[1]) for match in _INCLUDE.finditer(text)
        ]
        self.code = _LITERAL.sub('""', _DIRECTIVE.sub(_blank, text))
        self.declared: dict[str, int] = {}  # functions and extern objects, with their lines
        self.defined: dict[str, int] = {}  # functions that are not static
        self.static: set[str] = set()  # functions
        for line, statement, has_body in _top_level(self.code):
            self._read(line, statement, has_body)

    @property
    def is_header(self) -> bool:
        return self.path.suffix == ".h"

    def _read(self, line: int, statement: str, has_body: bool) -> None:
        words = set(re.findall(r"\w+", statement))
        name = _function_in(statement)
        if "typedef" in words:
            return
        if name is None:
            if "extern" in words and (
                found := re.findall(r"(\w+)\s*(?:\[[^]]*\]\s*)*$", statement)
            ):
                self.declared[found[0]] = line
        elif "static" in words:
            self.static.add(name)
            if self.is_header:
                self.declared[name] = line
        elif has_body:
            self.defined[name] = line
        else:
            self.declared[name] = line

    @cached_property
    def used(self) -> dict[str, int]:
        """The names in the code that are no members of structures, with their first lines."""
        found: dict[str, int] = {}
        for match in _WORD.finditer(self.code):
            if not match[0].startswith((".", "->")) and match[1] not in found:
                found[match[1]] = self.code.count("\n", 0, match.start(1)) + 1
        return found

    def has_own(self, name: str) -> bool:
        """Whether a name is something of this file's: a static function, a parameter, a variable."""
        if name in self.static:
            return True
        own = rf"\b\w+(?:\s*\*+\s*|\s+)(?:const\s+)?{name}\s*(?:[;=,)]|\[)"
        return any(
            match[0].split()[0] not in ("return", "else", "case", "goto", "sizeof")
            for match in re.finditer(own, self.code)
        )


def _top_level(code: str) -> Iterator[tuple[int, str, bool]]:
    """The statements outside of all braces: line, text without bodies, and whether it ends in one."""
    depth = start = 0
    text = ""
    began = 0
    for match in re.finditer(r"[{};]", code):
        if depth == 0:
            part = code[start : match.start()]
            if not text.strip():
                began = start + len(part) - len(part.lstrip())
            text += part
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth = max(0, depth - 1)
        ends = match[0] == ";" or (match[0] == "}" and _function_in(text) is not None)
        if depth == 0 and ends:
            if text.strip():
                line = code.count("\n", 0, began) + 1
                yield line, " ".join(text.split()), match[0] == "}"
            text = ""
        start = match.end()


def _function_in(statement: str) -> str | None:
    """The function that a statement declares or defines; None where it is something else."""
    if "=" in statement:
        return None
    depth = 0
    outside = []  # positions outside of parentheses
    for at, letter in enumerate(statement):
        if depth == 0:
            outside.append(at)
        depth += {"(": 1, ")": -1}.get(letter, 0)
    for match in _NAMED_GROUP.finditer(statement):
        name = match[1]
        if (
            match.start() not in outside
            or name in _NO_FUNCTIONS
            or re.fullmatch("[A-Z_0-9]+", name)
        ):
            continue
        if re.match(r"\(\s*\*", statement[match.end() :]):
            return None  # a pointer to a function
        return name
    return None


# ---- C: units and layers ----


class Unit:
    """A .c file and the header of its name, or either alone."""

    def __init__(self, layer: str, stem: str):
        self.layer = layer
        self.stem = stem
        self.files: list[File] = []
        self.includes: set[Unit] = set()  # of layers

    @property
    def name(self) -> str:
        return f"{self.layer}/{self.stem}" if self.layer else self.stem

    @property
    def rank(self) -> int:
        return LAYERS.index(self.layer) if self.layer in LAYERS else len(LAYERS)

    @cached_property
    def reached(self) -> set[Unit]:
        """The units whose headers this one includes, itself or through others."""
        found: set[Unit] = set()
        pending = [self]
        while pending:
            unit = pending.pop()
            if unit not in found:
                found.add(unit)
                pending += unit.includes
        return found


def check_c(ext: Path) -> tuple[list[str], list[str]]:
    """The faults of the C files, and notes on what was not checked."""
    faults = [
        f"{folder}: is none of the layers {', '.join(LAYERS)}"
        for folder in sorted(ext.iterdir())
        if folder.is_dir() and folder.name not in LAYERS and any(folder.glob("*.[ch]"))
    ]
    flat = [path for path in sorted(ext.glob("*.[ch]")) if path.name != TOP_FILE]
    notes = [f"{ext}: {len(flat)} files lie in no layer and are not checked"] if flat else []
    files = [
        File(path, layer) for layer in LAYERS for path in sorted((ext / layer).rglob("*.[ch]"))
    ]
    units: dict[Path, Unit] = {}
    for file in files:
        key = file.path.with_suffix("")
        unit = units.setdefault(key, Unit(file.layer or "", file.path.stem))
        unit.files.append(file)
    if files and (ext / TOP_FILE).exists():
        top = Unit("", TOP_FILE.removesuffix(".c"))
        top.files.append(File(ext / TOP_FILE, None))
        units[ext / TOP_FILE.removesuffix(".c")] = top
    faults += _faults_of_includes(ext, units)
    faults += _circles(list(units.values()))
    faults += _faults_of_declarations(list(units.values()))
    faults += _faults_of_calls(list(units.values()))
    return faults, notes


def _faults_of_includes(ext: Path, units: dict[Path, Unit]) -> Iterator[str]:
    headers = [file.path for unit in units.values() for file in unit.files if file.is_header]
    for unit in units.values():
        for file in unit.files:
            for line, text in file.includes:
                path = _header(text, file.path, ext, headers)
                if path is None:
                    yield f'{file.path}:{line}: "{text}" is not found, or there are several'
                elif (included := units.get(path.with_suffix(""))) is not None:
                    unit.includes.add(included)
                    if included.rank > unit.rank:
                        yield f"{file.path}:{line}: {unit.name} includes {included.name}, above it"


def _header(text: str, path: Path, ext: Path, headers: list[Path]) -> Path | None:
    """The file that an include names: beside the other file, below ext/, or of that name anywhere."""
    for folder in (path.parent, ext):
        found = Path(os.path.normpath(folder / text))
        if found.exists():
            return found
    named = [header for header in headers if header.name == text]
    return named[0] if len(named) == 1 else None


def _circles(units: list[Unit]) -> Iterator[str]:
    """Circles among the units of a folder, each once."""
    reported: set[Unit] = set()
    for unit in units:
        if unit in reported:
            continue
        for first in sorted(unit.includes - {unit}, key=lambda other: other.name):
            if first.layer == unit.layer and (way := _way(first, unit)):
                reported.update(way)
                yield f"{unit.layer}: a circle: {' -> '.join(u.stem for u in [unit, *way])}"
                break


def _way(start: Unit, end: Unit) -> list[Unit]:
    """The units from one to another along includes within their folder; none where there is no way."""
    before: dict[Unit, Unit | None] = {start: None}
    pending = [start]
    while pending:
        unit = pending.pop(0)
        if unit is end:
            way: list[Unit] = []
            step: Unit | None = unit
            while step is not None:
                way.insert(0, step)
                step = before[step]
            return way
        for other in sorted(unit.includes, key=lambda other: other.name):
            if other.layer == end.layer and other not in before:
                before[other] = unit
                pending.append(other)
    return []


def _faults_of_declarations(units: list[Unit]) -> Iterator[str]:
    defined_in = {name: unit for unit in units for file in unit.files for name in file.defined}
    for unit in units:
        in_header = {name for file in unit.files if file.is_header for name in file.declared}
        for file in unit.files:
            for name, line in file.defined.items():
                if name not in in_header and not ENTRY_POINT.fullmatch(name):
                    yield (
                        f"{file.path}:{line}: {name}() is neither static nor declared in the "
                        f"header of {unit.name}"
                    )
            for name, line in file.declared.items():
                if not file.is_header:
                    yield f"{file.path}:{line}: {name} is declared by hand; include its header"
                elif (home := defined_in.get(name, unit)) is not unit:
                    yield f"{file.path}:{line}: {name}() is defined in {home.name}"


def _faults_of_calls(units: list[Unit]) -> Iterator[str]:
    home_of = {
        name: unit
        for unit in units
        for file in unit.files
        if file.is_header
        for name in file.declared
    }
    home_of |= {name: unit for unit in units for file in unit.files for name in file.defined}
    for unit in units:
        for file in unit.files:
            for name, line in file.used.items():
                if name in BY_THE_FRAMES_BUILTINS and unit.name != "base/imports":
                    yield f"{file.path}:{line}: {name}() needs the frame's builtins; take import_module()"
                home = home_of.get(name)
                if home is None or home in unit.reached:
                    continue
                if name in file.declared or file.has_own(name):
                    continue
                reason = "above it" if home.rank > unit.rank else "whose header it does not include"
                yield f"{file.path}:{line}: {unit.name} uses {name} of {home.name}, {reason}"


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]) if arguments else Path(__file__).parent.parent
    faults = check_python(root / "python" / PACKAGE)
    c_faults, notes = check_c(root / "ext")
    for line in [*notes, *faults, *c_faults]:
        print(line)
    return 1 if faults or c_faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
