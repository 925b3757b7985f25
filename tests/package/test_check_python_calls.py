"""The check of borrowed references finds each kind of fault, and nothing that is kept."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from support.processes import ROOT

sys.path.insert(0, str(ROOT / ".ci"))
check_python_calls = pytest.importorskip("check_python_calls")

#: What the snippets are written against. The fields of Span are not settled: replace() writes them.
PRELUDE = """\
#include "base/compat.h"
typedef struct { char *data; size_t len, cap; } Buffer;
typedef struct { const char *at, *end; } Reader;
typedef struct State { PyObject *hook; PyObject *ring; } State;
typedef struct Span {
    PyObject_HEAD State *state;
    PyObject *name, *made_of; /* owned */
    struct Span *opened; /* owned */
    struct Span *next;
    PyObject *lent;  /* borrowed from `opened` */
    PyObject *lent2; /* borrowed from `made_of` */
    Buffer values;
} Span;
typedef struct { PyObject *item; PyObject *key; } Level;

static inline Reader reader_over(const void *bytes, size_t size)
{
    return (Reader){.at = bytes, .end = (const char *)bytes + size};
}
void write_bytes(const char *bytes);
void run(void)
{
    PyErr_Clear();
}
void encode(PyObject *value)
{
    Py_XDECREF(PyObject_Repr(value));
}
PyObject *decode(Reader *r)
{
    PyObject *list = PyList_New(0);
    r->at += 1;
    return list;
}
void set_owned(PyObject **slot, PyObject *value)
{
    PyObject *old = *slot;
    *slot = value;
    Py_XDECREF(old);
}
void replace(Span *span, PyObject *name, Span *opened, char *data)
{
    set_owned(&span->name, name);
    set_owned(&span->lent, name);
    set_owned(&span->lent2, name);
    set_owned((PyObject **)&span->opened, (PyObject *)opened);
    set_owned(&span->state->hook, name);
    set_owned(&span->state->ring, name);
    span->next = opened;
    span->values.data = data;
}
static Span *span_new(PyTypeObject *type, PyObject *made_of)
{
    Span *span = PyObject_New(Span, type);
    Py_INCREF(made_of);
    span->made_of = made_of;
    return span;
}
"""

#: A function, and words of the fault that it has.
FAULTS = {
    "a field's object is used after a call": (
        "void f(Span *s) { PyObject *n = s->name; run(); write_bytes(PyBytes_AsString(n)); }",
        ["n is used after run()", "s->name may have let it go"],
    ),
    "a field's object is an argument": (
        "void f(Span *s) { encode(s->name); }",
        ["s->name is an argument of encode()"],
    ),
    "what is borrowed from a field that may let it go": (
        "void f(Span *s) { encode(s->lent); }",
        ["s->lent is an argument of encode()"],
    ),
    "a hook is called through its field": (
        "void f(State *s, Span *x) { Py_XDECREF(PyObject_CallNoArgs(x->state->hook)); }",
        ["x->state->hook is an argument of PyObject_CallNoArgs()"],
    ),
    "an item of a list is used after a call": (
        "Py_ssize_t f(PyObject *l) { PyObject *i = PyList_GetItem(l, 0); run();"
        " return PyBytes_Size(i); }",
        ["i is used after run()", "l may have let it go"],
    ),
    "an item of a dict is an argument": (
        'void f(PyObject *d) { encode(PyDict_GetItemString(d, "key")); }',
        ["PyDict_GetItemString() is an argument of encode()"],
    ),
    "what PyDict_Next gave is used after a call in the loop": (
        "void f(PyObject *d, PyObject *o) { PyObject *k, *v; Py_ssize_t at = 0;"
        " while (PyDict_Next(d, &at, &k, &v)) { run(); PyDict_SetItem(o, k, v); } }",
        ["k is used after run()"],
    ),
    "a call later in the loop comes before its next round": (
        "void f(Span *s) { PyObject *n = s->name;"
        " for (int i = 0; i < 2; i++) { write_bytes(PyBytes_AsString(n)); run(); } }",
        ["n is used after run()"],
    ),
    "a reader over a buffer that may grow": (
        "PyObject *f(Span *s) { Reader r = reader_over(s->values.data, s->values.len);"
        " return decode(&r); }",
        ["&r is an argument of decode()", "s->values.data"],
    ),
    "a reader that is used again": (
        "void f(Span *s, Reader *o) { Reader r = reader_over(s->values.data, 1); run(); *o = r; }",
        ["r is used after run()"],
    ),
    "bytes of a field's object": (
        "void f(Span *s) { const char *b = PyBytes_AsString(s->name); run(); write_bytes(b); }",
        ["b is used after run()", "s->name may have let it go"],
    ),
    "an item of a tuple in a field": (
        "void f(Span *s) { PyObject *i = PyTuple_GetItem(s->name, 0); run();"
        " write_bytes(PyBytes_AsString(i)); }",
        ["i is used after run()"],
    ),
    "an array of borrowed objects": (
        "void f(Span *s) { struct { int n; PyObject *o; } all[] = {{1, s->made_of}, {2, s->name}};"
        " run(); write_bytes(PyBytes_AsString(all[1].o)); }",
        ["all", "s->name may have let it go"],
    ),
    "a new reference that was moved into a field": (
        "void f(Span *s, PyTypeObject *t) { Span *n = span_new(t, Py_None); s->opened = n;"
        " run(); n->values.len = 0; }",
        ["n is used after run()", "s->opened may have let it go"],
    ),
    "a new reference that was moved into a field, by its other name": (
        "static Span *as_span(Span *x) { return x; }\n"
        "void f(Span *s, PyTypeObject *t) { Span *n = span_new(t, Py_None), *m = as_span(n);"
        " s->opened = n; run(); m->values.len = 0; }",
        ["m is used after run()"],
    ),
    "a function returns what a field holds": (
        "static PyObject *name_of(Span *s) { return s->name; }\n"
        "void f(Span *s) { PyObject *n = name_of(s); run(); write_bytes(PyBytes_AsString(n)); }",
        ["n is used after run()", "s->name of name_of()"],
    ),
    "a function puts out what a field holds": (
        "static bool find(Span *s, PyObject **n) { *n = s->name; return true; }\n"
        "void f(Span *s) { PyObject *n; if (find(s, &n)) { run();"
        " write_bytes(PyBytes_AsString(n)); } }",
        ["n is used after run()"],
    ),
    "an output that was read before a call": (
        "bool f(Span *s, PyObject **n) { *n = s->name; run(); return true; }",
        ["*n, an output, is used after run()"],
    ),
    "a link of a list is followed after a call": (
        "void f(Span *s) { for (Span *x = s->next; x != NULL; x = x->next) { run(); } }",
        ["x is used after run()", "x->next may have let it go"],
    ),
    "what was released": (
        "void f(PyObject *v) { PyObject *r = PyObject_Repr(v); Py_DECREF(r);"
        " write_bytes(PyBytes_AsString(r)); }",
        ["r is used after Py_DECREF() released it"],
    ),
    "an item of what was released": (
        "void f(PyObject *v) { PyObject *r = PyObject_Repr(v), *i = PyTuple_GetItem(r, 0);"
        " Py_DECREF(r); write_bytes(PyBytes_AsString(i)); }",
        ["i is used after Py_DECREF() released it"],
    ),
    "the allocation of a container runs finalizers": (
        "void f(Span *s) { PyObject *n = s->name; Py_XDECREF(PyDict_New());"
        " write_bytes(PyBytes_AsString(n)); }",
        ["n is used after PyDict_New()"],
    ),
    "the release of an object runs finalizers": (
        "void f(Span *s, PyObject *o) { PyObject *n = s->name; Py_DECREF(o);"
        " write_bytes(PyBytes_AsString(n)); }",
        ["n is used after Py_DECREF()"],
    ),
    "a format of arguments that calls __bool__": (
        "int f(Span *s, PyObject *a) { PyObject *n = s->name; int p;"
        ' return PyArg_ParseTuple(a, "p", &p) && PyBytes_Size(n) > 0; }',
        ["n is used after PyArg_ParseTuple()"],
    ),
    "a format of arguments that calls __getitem__": (
        "int f(Span *s, PyObject *a) { PyObject *n = s->name, *o;"
        ' return PyArg_ParseTuple(a, "(O)", &o) && PyBytes_Size(n) > 0; }',
        ["n is used after PyArg_ParseTuple()"],
    ),
    "a field that a table has the offset of": (
        "#include <structmember.h>\n"
        'PyMemberDef table[] = {{"made_of", T_OBJECT, offsetof(Span, made_of), 0, NULL}, {0}};\n'
        "void f(Span *s) { encode(s->made_of); }",
        ["s->made_of is an argument of encode()"],
    ),
    "a field that the end of another structure writes": (
        "void level_free(Level *l, Span *s) { l->item = s->made_of = NULL; }\n"
        "void f(Span *s) { encode(s->made_of); }",
        ["s->made_of is an argument of encode()"],
    ),
    "a call through a pointer": (
        "void f(Span *s, void (*g)(void)) { PyObject *n = s->name; g();"
        " write_bytes(PyBytes_AsString(n)); }",
        ["n is used after a pointer's function()"],
    ),
    "after a jump": (
        "void f(Span *s, int i) { PyObject *n = s->name; if (i) { run(); goto done; } return;\n"
        "done: write_bytes(PyBytes_AsString(n)); }",
        ["n is used after run()"],
    ),
    "after one case of a switch": (
        "void f(Span *s, int i) { PyObject *n = s->name; switch (i) { case 1: run(); break;"
        " default: break; } write_bytes(PyBytes_AsString(n)); }",
        ["n is used after run()"],
    ),
}

KEPT = {
    "a reference was taken": (
        "void f(Span *s) { PyObject *n = s->name; Py_INCREF(n); encode(n); encode(n);"
        " Py_DECREF(n); }"
    ),
    "a reference was taken through the field": (
        "void f(Span *s) { Py_INCREF(s->name); PyObject *n = s->name; encode(n); Py_DECREF(n); }"
    ),
    "it is read anew": (
        "void f(Span *s) { PyObject *n = s->name; run(); n = s->name;"
        " write_bytes(PyBytes_AsString(n)); }"
    ),
    "a parameter is the caller's": "void f(PyObject *n) { encode(n); encode(n); }",
    "an item of a tuple that the caller has": (
        "void f(PyObject *t) { PyObject *i = PyTuple_GetItem(t, 0); encode(i); encode(i); }"
    ),
    "an item of a list that nobody else has": (
        "void f(PyObject *d) { PyObject *l = PyDict_Items(d); if (l == NULL) { return; }"
        " encode(PyList_GetItem(l, 0)); encode(PyList_GetItem(l, 0)); Py_DECREF(l); }"
    ),
    "parsed arguments": (
        "void f(PyObject *a) { PyObject *n;"
        ' if (PyArg_ParseTuple(a, "O:f", &n)) { encode(n); encode(n); } }'
    ),
    "a settled field": "void f(Span *s) { PyObject *n = s->made_of; encode(n); encode(n); }",
    "what is borrowed from a settled field": (
        "void f(Span *s) { PyObject *n = s->lent2; encode(n); encode(n); }"
    ),
    "a slot that is only filled": (
        "PyObject *slot_list(PyObject **slot)"
        " { if (*slot == NULL) { *slot = PyList_New(0); } return *slot; }\n"
        "PyObject *f(Span *s) { return slot_list(&s->made_of); }\n"
        "void g(Span *s) { PyObject *n = s->made_of; encode(n); encode(n); }"
    ),
    "the call comes only where the function ends": (
        "void f(Span *s, int i) { PyObject *n = s->name; if (i) { run(); return; }"
        " write_bytes(PyBytes_AsString(n)); }"
    ),
    "it was moved out of its field": (
        "void f(Span *s) { PyObject *n = s->name; s->name = NULL; encode(n); Py_XDECREF(n); }"
    ),
    "a new reference that was moved, and another": (
        "void f(Span *s, PyTypeObject *t) { Span *n = span_new(t, Py_None); Py_INCREF(n);"
        " s->opened = n; run(); n->values.len = 0; Py_DECREF(n); }"
    ),
    "it is only compared": (
        "int f(Span *s) { PyObject *n = s->name; run(); return n == NULL || n == Py_None; }"
    ),
    "NULL is nobody's": (
        "void f(Span *s) { PyObject *n = s->name; if (n == NULL) { run(); } else { return; }"
        " encode(n); }"
    ),
    "a function takes a reference to its parameter first": (
        "static void ask(PyObject *o) { Py_INCREF(o); encode(o); encode(o); Py_DECREF(o); }\n"
        "void f(Span *s) { ask(s->name); }"
    ),
    "a function is through with its parameter first": (
        "static void ask(PyObject *o) { write_bytes(PyBytes_AsString(o)); run(); }\n"
        "void f(Span *s) { ask(s->name); }"
    ),
    "a function returns a reference of its own to a parameter": (
        "static Span *outermost(Span *s) { while (s->opened != NULL) { s = s->opened; }"
        " Py_INCREF(s); return s; }\n"
        "void f(Span *s) { Span *o = outermost(s); Py_DECREF(o); s->values.len = 0; }"
    ),
    "a function returns its parameter with a reference": (
        "static Span *hold(Span *s) { Py_INCREF(s); return s; }\n"
        "void f(Span *s) { Span *o = hold(s); Py_DECREF(o); s->values.len = 0; }"
    ),
    "an item that was given away is still in the tuple": (
        'void f(Span *s, PyObject *a) { PyObject *n; if (PyArg_ParseTuple(a, "O", &n)) {'
        " Py_INCREF(n); set_owned(&s->name, n); encode(n); } }"
    ),
    "nobody reaches what is being released": (
        "void span_dealloc(Span *s) { PyObject *n = s->name; run(); encode(n); }"
    ),
    "a structure is moved out of its place": (
        "typedef struct { PyObject_HEAD Level levels[2]; } Stack;\n"
        "void f(Stack *s) { Level *l = &s->levels[0]; PyObject *i = l->item; *l = s->levels[1];"
        " encode(i); encode(i); Py_DECREF(i); }\n"
        "void set_item(Stack *s, PyObject *i) { s->levels[0].item = i; }"
    ),
    "a number of a token": (
        "int f(Span *s) { struct { int n; const char *b; } t = {1, s->values.data}; run();"
        " return t.n; }"
    ),
    "outputs of a function that failed": (
        "static bool find(Span *s, PyObject **n) { *n = s->name;"
        " if (*n == NULL) { return false; } Py_INCREF(*n); return true; }\n"
        "void f(Span *s) { PyObject *n; if (find(s, &n)) { encode(n); encode(n); Py_DECREF(n); } }"
    ),
    "a str is released without code": (
        'void f(Span *s) { PyObject *n = s->name, *t = PyUnicode_FromString("x");'
        " Py_XDECREF(t); write_bytes(PyBytes_AsString(n)); }"
    ),
    "a structure of this call alone": (
        "void f(Level *l) { PyObject *i = l->item; encode(i); encode(i); }"
    ),
    "functions that never run code": (
        "int f(Span *s, PyObject *o) { PyObject *n = s->name; bool b = PyBytes_Size(o) > 0;"
        " return b && PyErr_ExceptionMatches(PyExc_ValueError) && PyBytes_Size(n) > 0; }"
    ),
}


def write(tmp_path: Path, files: dict[str, str]) -> Path:
    """A folder whose ext/ has the real compat.h and these files."""
    (tmp_path / "ext/base").mkdir(parents=True)
    shutil.copy(ROOT / "ext/base/compat.h", tmp_path / "ext/base/compat.h")
    for name, text in files.items():
        (tmp_path / "ext" / name).write_text(text)
    return tmp_path


def faults_of(tmp_path: Path, code: str) -> list[str]:
    check = check_python_calls.Check(write(tmp_path, {"part.c": PRELUDE + code}) / "ext")
    return [text for _, _, text in sorted(check.faults)]


def test_the_prelude_has_no_fault(tmp_path):
    assert faults_of(tmp_path, "") == []


@pytest.mark.parametrize("name", FAULTS)
def test_finds(tmp_path, name):
    code, words = FAULTS[name]
    faults = faults_of(tmp_path, code)
    assert any(all(word in fault for word in words) for fault in faults), faults


@pytest.mark.parametrize("name", KEPT)
def test_allows(tmp_path, name):
    assert faults_of(tmp_path, KEPT[name]) == []


def test_a_fault_has_its_file_and_line(tmp_path, capsys):
    code = "void f(Span *s)\n{\n    encode(s->name);\n}\n"
    root = write(tmp_path, {"part.c": PRELUDE + code})
    assert check_python_calls.main([str(root)]) == 1
    line = PRELUDE.count("\n") + 3
    assert capsys.readouterr().out.startswith(f"{root}/ext/part.c:{line}: s->name is an argument")


# ---- exemptions ----

EXEMPT = "/* The name is kept over Python\n * code, because %s. */"
BORROWS = "void f(Span *s)\n{\n    %s\n    encode(s->name);\n}\n"


def test_an_exemption_covers_the_next_line_and_is_listed(tmp_path, capsys):
    code = PRELUDE + BORROWS % (EXEMPT % "the test\n     * says so")
    root = write(tmp_path, {"part.c": code})
    assert check_python_calls.main([str(root), "--verbose"]) == 0
    listed = capsys.readouterr().out
    assert listed.count("\n") == 1
    assert "exempt: /* The name is kept over Python code, because the test" in listed


def test_an_exemption_covers_a_field(tmp_path):
    field = "*name, *made_of; "
    assert field in PRELUDE
    code = PRELUDE.replace(field, field + EXEMPT % "it lives on") + BORROWS % ""
    check = check_python_calls.Check(write(tmp_path, {"part.c": code}) / "ext")
    assert check.faults == set()


@pytest.mark.parametrize("reason", ["", "it is.\n\n\n    The name is"], ids=["none", "far"])
def test_an_exemption_needs_a_reason_and_its_place(tmp_path, reason):
    comment = "/* The name is kept over Python code. */" if not reason else EXEMPT % "so" + "\n\n"
    faults = faults_of(tmp_path, BORROWS % comment)
    assert any("s->name is an argument" in fault for fault in faults)


def test_an_exemption_that_exempts_nothing_is_a_fault(tmp_path):
    code = "void f(PyObject *n)\n{\n    " + EXEMPT % "so" + "\n    encode(n);\n}\n"
    assert faults_of(tmp_path, code) == ["this exemption exempts nothing"]


# ---- the macro ----

HEADER = """\
#include "base/compat.h"

void clears(void);
PyObject *calls_one_that_clears(PyObject *object, PyObject *another_object, PyObject *one_more_object);
RUNS_PYTHON int counts(PyObject *object);
RUNS_PYTHON static inline void releases(PyObject *object)
{
    Py_DECREF(object);
}
static inline void visits(PyObject *object, visitproc visit, void *arg)
{
    visit(object, arg);
}
"""
SOURCE = """\
#include "part.h"

void clears(void)
{
    PyErr_Clear();
}
PyObject *calls_one_that_clears(PyObject *object, PyObject *another_object, PyObject *one_more_object)
{
    clears();
    return object;
}
int counts(PyObject *object)
{
    Py_INCREF(object);
    return 0;
}
"""


def test_declarations_carry_the_macro_where_they_must(tmp_path, capsys):
    root = write(tmp_path, {"part.h": HEADER, "part.c": SOURCE})
    assert check_python_calls.main([str(root)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{root}/ext/part.h:3: the function can run Python code and lacks RUNS_PYTHON",
        f"{root}/ext/part.h:4: the function can run Python code and lacks RUNS_PYTHON",
        f"{root}/ext/part.h:5: the function runs no Python code and has RUNS_PYTHON",
    ]


def test_annotate_puts_the_macro_right_and_changes_nothing_the_second_time(tmp_path):
    root = write(tmp_path, {"part.h": HEADER, "part.c": SOURCE})
    shutil.copy(ROOT / ".clang-format", root)
    assert check_python_calls.main([str(root), "--annotate"]) == 0
    text = (root / "ext/part.h").read_text()
    assert "\nRUNS_PYTHON void clears(void);\n" in text
    assert "\nRUNS_PYTHON PyObject *calls_one_that_clears(" in text
    assert "\nint counts(PyObject *object);\n" in text
    assert "\nRUNS_PYTHON static inline void releases(" in text
    assert check_python_calls.main([str(root)]) == 0
    assert check_python_calls.main([str(root), "--annotate"]) == 0
    assert (root / "ext/part.h").read_text() == text
