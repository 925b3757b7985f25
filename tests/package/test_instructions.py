"""The gate on instructions: it sees what a call has grown by, and in which functions."""

from __future__ import annotations

import importlib.util
import json
from types import ModuleType

import pytest
from support.processes import ROOT

PROFILE = """\
version: 1
events: Ir

ob=(1) /usr/lib/libpython3.11.so.1.0
fl=(1) call.c
fn=(1) PyObject_Call
10 40
+1 2
cob=(2) /somewhere/_core.abi3.so
cfi=(2) traced.c
cfn=(2) traced_call.lto_priv.0
calls=1 7
* 1000
+2 3

ob=(2)
fl=(2)
fn=(2)
7 100
fi=(3) span.h
9 20
fe=(2)
fn=(3) finish.constprop.0.isra.1
-4 5
fn=(4) traced_call'2
* 1
"""


@pytest.fixture(scope="module")
def instructions() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "instructions", ROOT / "benchmarks/instructions.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_functions_own_instructions_are_counted(instructions, tmp_path):
    profile = tmp_path / "callgrind.out"
    profile.write_text(PROFILE)
    assert instructions.costs(profile) == {
        "libpython3.11.so.1.0: PyObject_Call": 45,
        "_core.abi3.so: traced_call": 121,
        "_core.abi3.so: finish": 5,
    }


def test_a_case_that_grows_is_named_with_the_functions_that_grew(instructions):
    before = {"no-op": {"a": 500.0, "b": 400.0, "c": 100.0}, "root": {"a": 1000.0}}
    after = {"no-op": {"a": 500.0, "b": 450.0, "d": 90.0}, "root": {"a": 1029.0}}
    assert instructions.growth(before, after) == [
        "no-op: 1,040 instructions, 1,000 before (+4.0%)",
        "         +90  d",
        "         +50  b",
    ]
    assert instructions.growth(after, before) == []


def test_the_kept_figures_are_of_all_cases(instructions):
    kept = json.loads(instructions.KEPT.read_text())
    assert kept["cases"].keys() == instructions.CASES.keys()


def test_the_document_says_what_is_kept(instructions):
    text = instructions.DOCUMENT.read_text()
    assert instructions.document(text, json.loads(instructions.KEPT.read_text())) == text


def test_every_instruction_belongs_to_one_part(instructions):
    figures = {
        "_core.abi3.so: traced_call": 50.0,
        "libpython3.11.so.1.0: hamt_node_assoc": 40.0,
        "libpython3.11.so.1.0: _PyObject_Malloc": 30.0,
        "libpython3.11.so.1.0: _PyEval_EvalFrameDefault": 20.0,
        "libc.so.6: memcpy": 10.0,
    }
    assert list(instructions.parts(figures).values()) == [50, 40, 30, 20, 10]
