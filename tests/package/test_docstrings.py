"""What a program's author sees of the public names: ``help()``, ``dir()`` and completion, examples that run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

#: Runs the examples of this package's public names, and prints those that fail or have none.
EXAMPLES = """
import doctest, importlib, inspect, logging
import mlflow_fasttrace
from mlflow_fasttrace.traces import _ABOUT

logging.disable()
parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
ran = 0
for module_name in ("", ".entities", ".otel", ".tracing"):
    module = importlib.import_module("mlflow_fasttrace" + module_name)
    for name in sorted(module._OWN):
        value = getattr(module, name)
        if inspect.ismodule(value) or name in ("LiveSpan", "NoOpSpan", "Tracer"):
            continue  # a module's names have theirs, and these classes are not made by programs
        test = parser.get_doctest(_ABOUT.get(name) or value.__doc__, {}, name, None, 0)
        assert test.examples, name
        assert runner.run(test).failed == 0, name
        ran += 1
assert ran > 40, ran
"""


def test_the_examples_of_the_public_names_run(tmp_path, spool):
    result = subprocess.run(
        [sys.executable, "-c", EXAMPLES],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


LOOKING = """
import json, sys
import mlflow_fasttrace
found = {
    "names": {name: dir(getattr(mlflow_fasttrace, name) if name else mlflow_fasttrace)
              for name in ("", "entities", "tracing")},
    "imported": [name for name in sys.modules if name.split(".")[0] == "mlflow"],
}
import mlflow
print(json.dumps({**found, "of mlflow": [name for name in dir(mlflow) if name[0] != "_"]}))
"""


def test_dir_lists_mlflows_names_and_imports_nothing():
    import mlflow
    import mlflow.entities
    import mlflow.tracing

    output = subprocess.run(
        [sys.executable, "-c", LOOKING], capture_output=True, text=True, check=True
    ).stdout
    found = json.loads(output)
    assert found["imported"] == []
    for name, module in (
        ("", mlflow),
        ("entities", mlflow.entities),
        ("tracing", mlflow.tracing),
    ):
        public = {name for name in module.__all__ if not name.startswith("_")}
        assert len(public) > 10
        assert public <= set(found["names"][name])
    flavors = {n for n, v in vars(mlflow).items() if type(v).__name__ == "LazyLoader"}
    assert len(flavors) > 30
    assert flavors <= set(found["names"][""])
    assert {"install", "SpanType", "traces", "__version__"} <= set(found["names"][""])
    leftovers = {"TYPE_CHECKING", "contextlib", "mlflow"}  # of MLflow's own import statements
    assert set(found["of mlflow"]) - leftovers <= set(found["names"][""])
    assert "annotations" not in found["names"][""]


def test_a_star_import_takes_what_mlflows_takes():
    import mlflow

    names: dict[str, object] = {}
    exec("from mlflow_fasttrace import *", names)
    assert set(mlflow.__all__) <= set(names)


@pytest.mark.parametrize("module", ["", ".entities", ".fluent", ".otel", ".traces", ".tracing"])
def test_an_unknown_name_is_an_attribute_error_that_names_this_package(module):
    __import__(name := f"mlflow_fasttrace{module}")
    module = sys.modules[name]
    assert not hasattr(module, "_nothing")
    with pytest.raises(AttributeError, match=f"^module '{name}' has no attribute 'nothing'$"):
        module.nothing


def test_an_unknown_name_is_one_where_mlflows_module_cannot_be_imported():
    program = (
        "import sys; sys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None\n"
        "import mlflow_fasttrace.otel as otel\n"
        "assert not hasattr(otel, 'nothing')\n"
        "try: otel.autolog\n"
        "except ImportError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "trace_exporter" in result.stdout
