"""Reads C code with libclang into small trees, for checks of it."""

from __future__ import annotations

import ctypes
import os
import re
import runpy
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest import mock

from clang import cindex
from clang.cindex import Cursor, CursorKind, TypeKind

SETUP = Path(__file__).parent.parent / "setup.py"

#: Names of functions that make something new, and of those that unmake their first parameter.
MAKES = re.compile(r"(^|_)(new|make|init|exec)(_|$)")
UNMAKES = re.compile(r"(^|_)(clear|free|dealloc|release)(_|$)")
#: Names of functions that help to make the module, which finds them in a table.
HELPS = re.compile(r"_add_type$")


#: Functions that write where an argument points to only while NULL is there.
FILLS = frozenset({"slot_dict", "slot_list"})


@dataclass(eq=False)
class Node:
    """A statement or an expression; parentheses and casts are left out."""

    kind: str
    line: int = 0
    name: str = ""  # of a variable (with its position), member, function or label
    children: list[Node] = field(default_factory=list)
    scalar: bool = False  # the value is neither a pointer nor something that may hold one
    pointer: bool = False  # the value is a pointer; of a member: what it is a member of is one
    usr: str = ""  # libclang's identity of a member or of a called function
    record: str = ""  # that of the structure that a member belongs to
    api: bool = False  # the called function is CPython's
    text_argument: str = ""  # the literal among the arguments of PyArg_ParseTuple()

    def text(self) -> str:
        """How a place is written; the identity of a place."""
        inner = self.children[0].text() if self.children else ""
        if self.kind == "member":
            return f"{inner}{'->' if self.pointer else '.'}{self.name}"
        if self.kind == "call":
            return f"{self.name or inner}()"
        forms = {"index": f"{inner}[]", "deref": f"*{inner}", "address": f"&{inner}"}
        return forms.get(self.kind, self.name.split("@")[0] or "what is chosen")


@dataclass
class Function:
    """A function that is defined in the code."""

    name: str
    path: Path
    parameters: list[str]
    body: Node
    returns_bool: bool
    calls: set[str] = field(default_factory=set)


@dataclass
class Declaration:
    """A function's declaration in a header."""

    path: Path
    line: int
    usr: str
    annotations: set[str]


@dataclass
class Field:
    """A member of a structure that is a pointer to data, or an array of such."""

    path: Path
    line: int
    target: str  # the structure that it points to
    is_link: bool  # that is one of the same kind


@dataclass
class Code:
    """All that was read. Functions, records and fields stand by libclang's identities (USR)."""

    functions: dict[str, Function] = field(default_factory=dict)
    declarations: dict[tuple[Path, int], Declaration] = field(default_factory=dict)
    fields: dict[str, Field] = field(default_factory=dict)
    records: dict[str, tuple[bool, set[str]]] = field(default_factory=dict)
    writes: dict[str, set[tuple[str, str]]] = field(default_factory=dict)

    def shared_records(self) -> set[str]:
        """The structures that others reach: Python objects, what they hold and what they point to."""
        shared: set[str] = set()
        pending = [usr for usr, (is_object, _) in self.records.items() if is_object]
        while pending:
            usr = pending.pop()
            if usr in self.records and usr not in shared:
                shared.add(usr)
                pending += self.records[usr][1]
        return shared

    def settled_fields(self) -> set[str]:
        """The fields that are written only where the structure that they are in is made or unmade.

        That is by functions that are named so, and by those that only these call."""
        makes = {usr for usr, function in self.functions.items() if MAKES.search(function.name)}
        ends = {usr for usr, function in self.functions.items() if UNMAKES.search(function.name)}
        callers: dict[str, set[str]] = {usr: set() for usr in self.functions}
        for usr, function in self.functions.items():
            for called in function.calls & callers.keys():
                callers[called].add(usr)
        helps = {usr for usr, function in self.functions.items() if HELPS.search(function.name)}
        while more := {
            usr
            for usr, by in callers.items()
            if usr not in makes | ends | helps and by and by <= makes | ends | helps
        }:
            helps |= more
        good = {(usr, of) for usr in makes for of in ("local", "offset")}
        good |= {(usr, of) for usr in ends for of in ("local", "first parameter")}
        good |= {(usr, of) for usr in helps for of in ("local", "parameter", "first parameter")}
        return {usr for usr in self.fields if self.writes.get(usr, set()) <= good}


WRAPPERS = {CursorKind.UNEXPOSED_EXPR, CursorKind.PAREN_EXPR, CursorKind.CSTYLE_CAST_EXPR}
KINDS = {
    CursorKind.COMPOUND_STMT: "block",
    CursorKind.DECL_STMT: "block",
    CursorKind.IF_STMT: "if",
    CursorKind.SWITCH_STMT: "switch",
    CursorKind.CASE_STMT: "case",
    CursorKind.DEFAULT_STMT: "case",
    CursorKind.WHILE_STMT: "while",
    CursorKind.DO_STMT: "do",
    CursorKind.FOR_STMT: "for",
    CursorKind.RETURN_STMT: "return",
    CursorKind.BREAK_STMT: "break",
    CursorKind.CONTINUE_STMT: "continue",
    CursorKind.CONDITIONAL_OPERATOR: "choose",
    CursorKind.INIT_LIST_EXPR: "list",
    CursorKind.COMPOUND_LITERAL_EXPR: "list",
    CursorKind.ARRAY_SUBSCRIPT_EXPR: "index",
    CursorKind.COMPOUND_ASSIGNMENT_OPERATOR: "update",
    CursorKind.INTEGER_LITERAL: "number",
}
#: By the numbers of CXBinaryOperatorKind and CXUnaryOperatorKind.
BINARY = {15: "equal", 16: "unequal", 20: "and", 21: "or", 22: "assign"}
UNARY = {1: "update", 2: "update", 3: "update", 4: "update", 5: "address", 6: "deref", 10: "not"}
MAY_HOLD_POINTERS = {
    TypeKind.POINTER,
    TypeKind.RECORD,
    TypeKind.CONSTANTARRAY,
    TypeKind.INCOMPLETEARRAY,
}

#: What macros make of the names of CPython's functions: PY_SSIZE_T_CLEAN, and, in some versions, casts.
MACRO_NAME = re.compile(r"_(Py\w+)_SizeT|_(Py_\w+)")

# The Python of libclang lacks these functions of the library.
_lib = cindex.conf.lib
_binary_operator = _lib.clang_getCursorBinaryOperatorKind
_unary_operator = _lib.clang_getCursorUnaryOperatorKind
_evaluate = _lib.clang_Cursor_Evaluate
_binary_operator.argtypes = _unary_operator.argtypes = _evaluate.argtypes = [Cursor]
_evaluate.restype = ctypes.c_void_p
_lib.clang_EvalResult_getAsInt.argtypes = _lib.clang_EvalResult_dispose.argtypes = [ctypes.c_void_p]


def read_code(ext: Path) -> Code:
    """Reads the .c files below a folder, and what they include of it."""
    reader = _Reader(ext.resolve())
    index = cindex.Index.create()
    flags = [*_compile_flags(), f"-I{ext.resolve()}"]
    for path in sorted(reader.ext.rglob("*.c")):
        unit = index.parse(str(path), args=flags)
        errors = [str(d) for d in unit.diagnostics if d.severity >= cindex.Diagnostic.Error]
        if errors:
            sys.exit("\n".join(errors))
        for cursor in unit.cursor.get_children():
            reader.read(cursor)
    return reader.code


@cache
def _compile_flags() -> list[str]:
    """The flags that setup.py compiles with, and the folders that libclang does not find by itself."""
    with mock.patch("setuptools.setup") as setup:
        before = os.getcwd()
        os.chdir(SETUP.parent)
        try:
            runpy.run_path(str(SETUP))
        finally:
            os.chdir(before)
    (extension,) = setup.call_args.kwargs["ext_modules"]
    macros = [f"-D{name}={value}" for name, value in extension.define_macros]
    flags = [flag for flag in extension.extra_compile_args if not flag.startswith("-W")]
    builtin = subprocess.check_output(["gcc", "-print-file-name=include"], text=True).strip()
    system = [f"-isystem{builtin}", f"-isystem{sysconfig.get_path('include')}"]
    return [*flags, *macros, *system]


class _Reader:
    def __init__(self, ext: Path):
        self.ext = ext
        self.code = Code()
        self._python = sysconfig.get_path("include")
        self._function = ""  # that is being read
        self._parameters: list[str] = []
        self._files: dict[str, bool] = {}

    def read(self, cursor: Cursor) -> None:
        """Reads a declaration, or a definition, on the top level of a file below ext/."""
        file = cursor.location.file
        if file is None:
            return
        if file.name not in self._files:
            self._files[file.name] = Path(file.name).resolve().is_relative_to(self.ext)
        if not self._files[file.name]:
            return
        if cursor.kind == CursorKind.FUNCTION_DECL:
            self._read_function(cursor, Path(file.name).resolve())
        elif cursor.kind == CursorKind.STRUCT_DECL:
            self._read_record(cursor)
        elif cursor.kind == CursorKind.VAR_DECL:
            self._function = ""
            for member in cursor.walk_preorder():  # a table may have the offsets of members
                if member.kind == CursorKind.MEMBER_REF:
                    self._note_write(member.referenced.get_usr(), "offset")

    def _read_function(self, cursor: Cursor, path: Path) -> None:
        usr, line = cursor.get_usr(), cursor.extent.start.line
        children = list(cursor.get_children())
        if path.suffix == ".h":
            found = {c.spelling for c in children if c.kind == CursorKind.ANNOTATE_ATTR}
            self.code.declarations[path, line] = Declaration(path, line, usr, found)
        if not cursor.is_definition() or usr in self.code.functions:
            return
        self._function = usr
        self._parameters = [_key(parameter) for parameter in cursor.get_arguments()]
        returns_bool = cursor.result_type.get_canonical().kind == TypeKind.BOOL
        self.code.functions[usr] = Function(
            cursor.spelling, path, self._parameters, Node("block"), returns_bool
        )
        (body,) = [child for child in children if child.kind == CursorKind.COMPOUND_STMT]
        self.code.functions[usr].body = self._node(body)

    def _read_record(self, cursor: Cursor) -> None:
        is_object, holds = False, set()
        for child in cursor.get_children():
            if child.kind in (CursorKind.STRUCT_DECL, CursorKind.UNION_DECL):
                self._read_record(child)
            if child.kind != CursorKind.FIELD_DECL:
                continue
            is_object |= child.spelling == "ob_base"
            target = child.type.get_canonical()
            while target.kind in MAY_HOLD_POINTERS - {TypeKind.POINTER, TypeKind.RECORD}:
                target = target.element_type.get_canonical()
            if target.kind == TypeKind.POINTER:
                target = target.get_pointee().get_canonical()
                if target.kind == TypeKind.FUNCTIONPROTO:
                    continue
                path = Path(child.location.file.name).resolve()
                to = target.get_declaration().get_usr()
                is_link = to == cursor.get_usr()
                self.code.fields[child.get_usr()] = Field(path, child.location.line, to, is_link)
            holds.add(target.get_declaration().get_usr())
        self.code.records[cursor.get_usr()] = (is_object, holds)

    def _node(self, cursor: Cursor, only_read: bool = False) -> Node:
        """The tree of a statement or expression. only_read: nothing is written through its value."""
        kind, line = cursor.kind, cursor.location.line
        children = [child for child in cursor.get_children() if not child.kind.is_reference()]
        if kind in WRAPPERS:
            inner = [child for child in children if child.kind.is_expression()]
            for member in cursor.get_children() if not inner else []:  # offsetof()
                if member.kind == CursorKind.MEMBER_REF:
                    self._note_write(member.referenced.get_usr(), "offset")
            only_read |= cursor.type.get_pointee().is_const_qualified()
            return self._node(inner[-1], only_read) if inner else Node("other", line, scalar=True)
        node = Node(KINDS.get(kind, "other"), line)
        if kind.is_expression() or kind == CursorKind.VAR_DECL:
            type_kind = cursor.type.get_canonical().kind
            node.scalar = type_kind not in MAY_HOLD_POINTERS
            node.pointer = type_kind == TypeKind.POINTER
        if kind == CursorKind.DECL_REF_EXPR:
            return self._variable(cursor, node)
        if kind == CursorKind.CALL_EXPR:
            return self._call(cursor, node)
        if kind == CursorKind.CXX_UNARY_EXPR:  # sizeof and its like evaluate nothing
            return Node("other", line, scalar=True)
        if kind == CursorKind.VAR_DECL:
            node.kind, node.name = "declare", _key(cursor)
            children = [child for child in children if child.kind.is_expression()][-1:]
            if cursor.type.get_canonical().kind == TypeKind.CONSTANTARRAY:
                children = [child for child in children if child.kind != CursorKind.INTEGER_LITERAL]
        elif kind == CursorKind.MEMBER_REF_EXPR:
            node.kind, node.name, node.usr = "member", cursor.spelling, cursor.referenced.get_usr()
            node.record = cursor.referenced.semantic_parent.get_usr()
            node.pointer = children[0].type.get_canonical().kind == TypeKind.POINTER
        elif kind == CursorKind.GOTO_STMT:
            (label,) = cursor.get_children()
            node.kind, node.name = "goto", label.spelling
        elif kind == CursorKind.LABEL_STMT:
            node.kind, node.name = "label", cursor.spelling
        elif kind == CursorKind.BINARY_OPERATOR:
            node.kind = BINARY.get(_binary_operator(cursor), "other")
        elif kind == CursorKind.UNARY_OPERATOR:
            node.kind = UNARY.get(_unary_operator(cursor), "other")
        node.children = [self._node(child) for child in children]
        if node.kind == "assign" or (node.kind == "address" and not only_read):
            if node.children[0].kind == "member":
                self._note_write(node.children[0].usr, self._root(node.children[0]))
        elif node.kind == "number":
            result = _evaluate(cursor)
            node.name = str(_lib.clang_EvalResult_getAsInt(result))
            _lib.clang_EvalResult_dispose(result)
        return node

    def _variable(self, cursor: Cursor, node: Node) -> Node:
        target = cursor.referenced
        node.name = target.spelling
        if target.kind in (CursorKind.VAR_DECL, CursorKind.PARM_DECL):
            if target.semantic_parent.kind == CursorKind.FUNCTION_DECL:
                node.kind, node.name = "ref", _key(target)
        return node

    def _call(self, cursor: Cursor, node: Node) -> Node:
        arguments = list(cursor.get_arguments())
        target = cursor.referenced
        only_read = target is not None and target.spelling in FILLS
        node.kind = "call"
        node.children = [self._node(argument, only_read) for argument in arguments]
        if target is None or target.kind != CursorKind.FUNCTION_DECL:
            node.record = target.type.spelling if target is not None else ""
            return node
        node.name, node.usr = MACRO_NAME.sub(r"\1\2", target.spelling), target.get_usr()
        self.code.functions[self._function].calls.add(node.usr)
        file = target.location.file
        node.api = file is not None and file.name.startswith(self._python)
        if node.name == "PyArg_ParseTuple":
            texts = [token.spelling for token in arguments[1].get_tokens()]
            node.text_argument = "".join(text.strip('"') for text in texts)
        return node

    def _note_write(self, field_usr: str, root: str) -> None:
        """An assignment writes a field, and whoever has its address may."""
        self.code.writes.setdefault(field_usr, set()).add((self._function, root))

    def _root(self, node: Node) -> str:
        """What kind of variable holds, or points to, the structure that a member is in."""
        while not node.pointer and node.children[0].kind == "member":
            node = node.children[0]
        root = node.children[0]
        if root.kind != "ref":
            return "pointer"
        if root.name not in self._parameters:
            return "local"
        return "first parameter" if root.name == self._parameters[0] else "parameter"


def _key(cursor: Cursor) -> str:
    """The identity of a local variable."""
    return f"{cursor.spelling}@{cursor.location.line}:{cursor.location.column}"
