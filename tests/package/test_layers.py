"""The checker of layers refuses each fault, and nothing that is allowed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from support.processes import ROOT

_spec = importlib.util.spec_from_file_location("check_layers", ROOT / ".ci" / "check_layers.py")
check_layers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check_layers)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def faults_of_package(tmp_path: Path, files: dict[str, str]) -> list[str]:
    package = {
        "__init__.py": "import importlib\nimportlib.import_module('mlflow_fasttrace.fluent')\n",
        "fluent.py": "from mlflow_fasttrace import _core\n",
        "_internal/__init__.py": "",
        "_internal/base/__init__.py": "",
        "_internal/base/log.py": "import logging\n",
        "_internal/bootstrap/sitecustomize.py": (
            "import importlib\nimportlib.import_module('mlflow_fasttrace').install()\n"
        ),
    }
    return check_layers.check_python(write(tmp_path / "mlflow_fasttrace", {**package, **files}))


def faults_of_extension(tmp_path: Path, files: dict[str, str]) -> list[str]:
    faults, notes = check_layers.check_c(write(tmp_path / "ext", {**GOOD_EXTENSION, **files}))
    assert notes == []
    return faults


GOOD_EXTENSION = {
    "base/buffer.h": "typedef struct Buffer Buffer;\nvoid buffer_free(Buffer *b);\n",
    "base/buffer.c": '#include "buffer.h"\nvoid buffer_free(Buffer *b)\n{\n    (void)b;\n}\n',
    "base/ids.h": "static inline int twice(int n)\n{\n    return n + n;\n}\nextern int count;\n",
    "value/encode.h": '#include "base/buffer.h"\nint encode(Buffer *b, int value);\n',
    "value/encode.c": """\
#include "encode.h"
#include "base/ids.h"
/* drain() of the spool is named in a comment: */
typedef int (*Visit)(int);
enum { SMALL = 1, LARGE = 2 };
static const char *names[] = {"drain(", "x"};
struct Visitor { int (*drain)(int); };
static int local(struct Visitor *v, int n) { return v->drain(n); }
#define CALL(n) \\
    drain(n)
ATTRIBUTE(1) int encode(Buffer *b, int value)
{
    int drain = local(0, twice(value));
    buffer_free(b);
    return drain + count + LARGE + names[0][0];
}
""",
    "spool/ring.h": "int drain(int n);\n",
    "spool/ring.c": '#include "ring.h"\n#include "value/encode.h"\n'
    "int drain(int n)\n{\n    return encode(0, n);\n}\n",
    "module.c": '#include "spool/ring.h"\nPyMODINIT_FUNC PyInit__core(void)\n{\n'
    "    return drain(1);\n}\n",
}


# ---- Python ----


@pytest.mark.parametrize(
    "text",
    [
        "import importlib\nimportlib.import_module('mlflow_fasttrace._internal.base')\n",
        "from importlib import import_module\nimport_module('mlflow_fasttrace')\n",
        "import importlib\nname = 'x'\nimportlib.import_module(f'mlflow_fasttrace.{name}')\n",
        "import importlib\nname = 'x'\nimportlib.import_module('mlflow_fasttrace.' + name)\n",
        "import importlib\nimportlib.import_module('.base', __package__)\n",
        "__import__('mlflow_fasttrace._internal.base')\n",
        "import mlflow_fasttrace\n",
        "import mlflow_fasttrace as mlflow\n",
        "import mlflow_fasttrace.fluent\n",
        "def late():\n    import mlflow_fasttrace\n",
        "from mlflow_fasttrace import install\n",
        "from mlflow_fasttrace import _core, trace\n",
        "from mlflow_fasttrace import _internal\n",
        "from mlflow_fasttrace import *\n",
        "from ... import trace\n",
    ],
)
def test_python_faults(tmp_path, text):
    (fault,) = faults_of_package(tmp_path, {"_internal/base/wrong.py": text})
    assert "wrong.py:" in fault


def test_python_that_is_allowed(tmp_path):
    text = (
        "import importlib\n"
        "from mlflow_fasttrace import _core, fluent\n"
        "from mlflow_fasttrace._internal.base import log\n"
        "from . import log\n"
        "from .. import base\n"
        "def late():\n"
        "    from mlflow_fasttrace._internal.base import log\n"
        "    importlib.import_module('mlflow.tracing')\n"
        "    importlib.import_module('mlflow_fasttracer')\n"
    )
    assert faults_of_package(tmp_path, {"_internal/base/right.py": text}) == []


def test_only_the_root_imports_by_a_string(tmp_path):
    text = "import importlib\nimportlib.import_module('mlflow_fasttrace.fluent')\n"
    (fault,) = faults_of_package(tmp_path, {"_internal/__init__.py": text})
    assert "imported by a string" in fault


def test_functions_wait_for_mlflow_before_they_import_a_module_of_it(tmp_path):
    text = (
        "import mlflow.top\n"
        "def waits():\n"
        "    patching.wait_for_mlflow()\n"
        "    from mlflow.entities import Trace\n"
        "def imports_the_whole():\n"
        "    import mlflow\n"
        "def does_not():\n"
        "    from mlflow.entities import Span\n"
        "    patching.wait_for_mlflow()\n"
    )
    (fault,) = faults_of_package(tmp_path, {"traces.py": text})
    assert ":8: wait_for_mlflow() is not called" in fault
    assert faults_of_package(tmp_path, {"traces.py": "", "_internal/sender/life.py": text}) == []


@pytest.mark.parametrize(
    "text",
    [
        "import time\n",
        "from time import monotonic\n",
        "import os\n",
        "def late():\n    import subprocess\n",
        "from os import kill\n",
        "import fcntl\n",
    ],
)
def test_recording_takes_nothing_that_tests_of_a_program_replace(tmp_path, text):
    (fault,) = faults_of_package(tmp_path, {"_internal/recording/new.py": text})
    assert "may be replaced by a test of the program" in fault
    assert faults_of_package(tmp_path, {"_internal/recording/new.py": "", "cli.py": text}) == []


# ---- C ----


def test_c_that_is_allowed(tmp_path):
    assert faults_of_extension(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"base/up.h": '#include "value/encode.h"\n'}, "base/up includes value/encode, above it"),
        ({"base/up.c": '#include "encode.h"\n'}, "base/up includes value/encode, above it"),
        ({"spool/wrong.h": '#include "nowhere.h"\n'}, "is not found"),
        (
            {"spool/a.h": '#include "b.h"\n', "spool/b.h": "", "spool/b.c": '#include "a.h"\n'},
            "spool: a circle: a -> b -> a",
        ),
        (
            {"base/lone.c": "int lone(void)\n{\n    return 1;\n}\n"},
            "lone() is neither static nor declared in the header of base/lone",
        ),
        (
            {
                "base/ring.c": 'static void *gc(void)\n{\n    return PyImport_ImportModule("gc");\n}\n'
            },
            "PyImport_ImportModule() needs the frame's builtins; take import_module()",
        ),
        (
            {"base/ring.c": "int other(void);\n"},
            "other is declared by hand",
        ),
        (
            {
                "base/a.h": "int away(void);\n",
                "base/b.h": "int away(void);\n",
                "base/b.c": '#include "b.h"\nint away(void)\n{\n    return 1;\n}\n',
            },
            "away() is defined in base/b",
        ),
        (
            {"value/low.c": "static int low(void)\n{\n    return drain(1);\n}\n"},
            "value/low uses drain of spool/ring, above it",
        ),
        (
            {"value/low.c": "static int (*low)(int) = drain;\n"},
            "value/low uses drain of spool/ring, above it",
        ),
        (
            {"spool/high.c": "static int high(void)\n{\n    return encode(0, 1);\n}\n"},
            "spool/high uses encode of value/encode, whose header it does not include",
        ),
        ({"spool/high.c": "static int *high = &count;\n"}, "spool/high uses count of base/ids"),
        ({"objekts/new.c": ""}, "is none of the layers"),
    ],
)
def test_c_faults(tmp_path, files, reason):
    (fault,) = faults_of_extension(tmp_path, files)
    assert reason in fault


def test_a_circle_of_three_is_reported_once(tmp_path):
    files = {
        "trace/a.h": '#include "b.h"\n',
        "trace/b.h": '#include "trace/c.h"\n',
        "trace/c.h": '#include "a.h"\n',
    }
    (fault,) = faults_of_extension(tmp_path, files)
    assert "trace: a circle: a -> b -> c -> a" in fault


def test_files_in_no_layer_are_left_alone(tmp_path):
    files = {
        "span.h": "int span_end(int n);\n",
        "span.c": '#include "trace.h"\nint span_end(int n);\n',
        "value/encode.c": '#include "encode.h"\n#include "span.h"\n'
        "int encode(Buffer *b, int value)\n{\n    return span_end(value);\n}\n",
    }
    faults, notes = check_layers.check_c(write(tmp_path / "ext", {**GOOD_EXTENSION, **files}))
    assert faults == []
    assert len(notes) == 1
    assert "2 files lie in no layer" in notes[0]


def test_the_command(tmp_path, capsys):
    write(tmp_path / "ext", GOOD_EXTENSION)
    package = write(tmp_path / "python" / "mlflow_fasttrace", {"fluent.py": ""})
    assert check_layers.main([str(tmp_path)]) == 0
    write(package, {"wrong.py": "import mlflow_fasttrace\n"})
    assert check_layers.main([str(tmp_path)]) == 1
    assert "wrong.py:1: the root" in capsys.readouterr().out
