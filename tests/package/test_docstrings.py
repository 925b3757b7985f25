"""What a program's author sees of the public names: ``help()``, ``dir()`` and completion, docstrings that say all that
is to be known, examples that run."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import mlflow_fasttrace
import pytest
from mlflow_fasttrace import _core, traces
from support.processes import ROOT

#: The modules that programs import, by what follows the package's name, and the core.
MODULES = ("", ".entities", ".fluent", ".otel", ".traces", ".tracing", "._core")

#: Functions and classes without an underscore that are no public names: other modules of this package use them.
FOR_THE_PACKAGE = {
    "": set(),
    ".entities": set(),
    ".fluent": {"pure_mlflow"},
    ".otel": {"process_provider", "use_process_provider"},
    ".traces": {"after_flush", "describe_after_flush"},
    ".tracing": {"flags_of", "forget", "span_processors"},
}

#: Classes of the core whose objects programs hold. They have no source of Python's: what is written of them stands
#: in C, for ``help()``, and in the stub, for editors and with examples.
OF_THE_CORE = {"LiveSpan": _core.LiveSpan, "SpanScope": _core.SpanScope}
STUB = ast.parse((ROOT / "python/mlflow_fasttrace/_core.pyi").read_text())
#: Members that MLflow's spans have and theirs refuse.
REFUSED = {"get", "from_dict", "from_dict_v2", "from_otel_proto"}
#: A member that ``spans/wrappers.py`` uses.
OF_DECORATORS = {"again"}

#: Parameters that take any value, or whatever the function that they are handed on to takes.
ANY_VALUE = {
    *("args", "kwargs", "options", "data"),
    *("inputs", "outputs", "request", "response", "value", "event"),
}
#: By the end of a parameter's name, the unit that its description names.
UNITS = {"ns": "nanosecond", "ms": "millisecond", "millis": "millisecond", "seconds": "second"}


class Documented(NamedTuple):
    """A public name, or a public member of a class."""

    module: str
    name: str
    value: Any
    doc: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}".removeprefix(".")

    def is_read(self) -> bool:
        """Whether it is a property."""
        return isinstance(self.value, (property, types.GetSetDescriptorType))

    def section(self, title: str) -> str | None:
        """A section of the docstring, dedented; None where there is none."""
        found = re.search(rf"^{title}:\n((?: +.*\n|\n)*)", self.doc + "\n", re.MULTILINE)
        return None if found is None else textwrap.dedent(found[1])

    def described(self) -> dict[str, str]:
        """What stands under ``Args``, by parameter."""
        parts = re.split(r"^\*{0,2}(\w+): ", self.section("Args") or "", flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))

    def signature(self) -> inspect.Signature | None:
        """Its signature, without the parameter that stands for the object; None where it is not called."""
        if self.is_read() or self.value in OF_THE_CORE.values():
            return None
        value = self.value
        if isinstance(value, types.ClassMethodDescriptorType):
            value = value.__get__(None, _core.LiveSpan)
        if self.name in mlflow_fasttrace._AFTER_FLUSH:
            # Where MLflow is loaded, these show its signature.
            value = types.FunctionType(value.__code__, {}, closure=value.__closure__)
        found = inspect.signature(value)
        own = [p for name, p in found.parameters.items() if name != "self"]
        return found.replace(parameters=own)

    def returned(self) -> str:
        """The type of what it returns."""
        if self.module == "._core":
            node = definition(self.name)
            assert isinstance(node, ast.FunctionDef)
            return ast.unparse(node.returns or ast.Constant(None))
        if self.name in mlflow_fasttrace._AFTER_FLUSH:
            return "None" if self.name.startswith("delete_") else "Any"  # as MLflow's code has it
        found = self.signature()
        assert found is not None
        return str(found.return_annotation)


def definition(name: str) -> ast.AST:
    """What the stub has of a class or of a member of one."""
    node: ast.AST = STUB
    for part in name.split("."):
        node = next(each for each in node.body if getattr(each, "name", None) == part)
    return node


def public_names(module_name: str) -> set[str]:
    """What a module has itself, as the package says it, but for what is another module's here. Everything else in its
    ``__all__`` and ``dir()`` comes from MLflow as it is, and so does what is written of it."""
    if module_name == ".fluent":
        return set(mlflow_fasttrace._FLUENT)
    if module_name == ".traces":
        return set(mlflow_fasttrace._TRACES)
    names = set(importlib.import_module("mlflow_fasttrace" + module_name)._OWN)
    if not module_name:
        names -= mlflow_fasttrace._SUBMODULES | mlflow_fasttrace._FLUENT | mlflow_fasttrace._TRACES
        names -= {"SpanType", "context"}  # of .entities and .tracing
    return names - OF_THE_CORE.keys()


def documented(module_name: str) -> Iterator[Documented]:
    """The public names of a module, and the public members of its classes."""
    if module_name == "._core":
        for name, value in OF_THE_CORE.items():
            yield Documented(module_name, name, value, of_stub(name))
            for member, found in vars(value).items():
                if member[0] != "_" and member not in OF_DECORATORS:
                    member = f"{name}.{member}"
                    yield Documented(module_name, member, found, of_stub(member))
        return
    module = importlib.import_module("mlflow_fasttrace" + module_name)
    for name in sorted(public_names(module_name)):
        value = getattr(module, name)
        # From when MLflow is loaded, these show its documentation; here is what they show before.
        doc = traces._ABOUT.get(name) or value.__doc__
        yield Documented(module_name, name, value, inspect.cleandoc(doc or ""))
        for member, found in vars(value).items() if isinstance(value, type) else ():
            # What NoOpSpan ignores is documented with LiveSpan.
            is_function = inspect.isfunction(found) and found.__name__ != "_ignore"
            if member[0] != "_" and (is_function or isinstance(found, property)):
                doc = inspect.cleandoc(found.__doc__ or "")
                yield Documented(module_name, f"{name}.{member}", found, doc)


def of_stub(name: str) -> str:
    return ast.get_docstring(definition(name)) or ""


EVERYTHING = [each for name in MODULES for each in documented(name)]
CALLED = [each for each in EVERYTHING if each.signature() is not None]


def test_all_public_names_are_looked_at():
    names = {str(each) for each in EVERYTHING}
    assert len(names) > 80
    assert {"fluent.trace", "traces.get_trace", "tracing.configure", "install"} <= names
    assert {"otel.TracerProvider.get_tracer", "_core.LiveSpan.end", "_core.LiveSpan.name"} <= names


@pytest.mark.parametrize("module_name", FOR_THE_PACKAGE)
def test_what_is_not_public_is_said_to_be_so(module_name):
    module = importlib.import_module("mlflow_fasttrace" + module_name)
    own = {
        name
        for name, value in vars(module).items()
        if name[0] != "_" and getattr(value, "__module__", None) == module.__name__
    }
    assert own - public_names(module_name) - FOR_THE_PACKAGE[module_name] == set()
    assert FOR_THE_PACKAGE[module_name] <= own


@pytest.mark.parametrize("each", EVERYTHING, ids=str)
def test_a_public_name_has_a_summary(each):
    first = each.doc.partition("\n\n")[0]
    assert re.fullmatch(r"[A-Z`].*[.:]", first, re.DOTALL), first


@pytest.mark.parametrize("each", CALLED, ids=str)
def test_the_parameters_are_described(each):
    described, signature = each.described(), each.signature()
    assert list(described) == list(signature.parameters)
    for name, text in described.items():
        assert text.strip().endswith("."), name
        assert UNITS.get(name.rpartition("_")[2], "") in text.lower(), f"{name} has no unit"


@pytest.mark.parametrize("each", CALLED, ids=str)
def test_the_parameters_have_types(each):
    if each.module == "._core":
        arguments = definition(each.name).args
        of = {
            a.arg: ast.unparse(a.annotation) for a in arguments.args[1:] + arguments.posonlyargs[1:]
        }
    else:
        of = {name: str(p.annotation) for name, p in each.signature().parameters.items()}
    untyped = [
        n for n, t in of.items() if t.removesuffix(" | None") in ("Any", str(inspect._empty))
    ]
    assert set(untyped) <= ANY_VALUE


@pytest.mark.parametrize("each", [e for e in CALLED if not isinstance(e.value, type)], ids=str)
def test_what_is_returned_is_described(each):
    returns_something = each.returned() not in ("None", "NoReturn")
    assert (each.section("Returns") is not None) == returns_something, each.returned()


def test_what_is_raised_is_described():
    raising = set()
    for each in EVERYTHING:
        function = inspect.unwrap(each.value) if inspect.isfunction(each.value) else None
        if function is None or each.name in mlflow_fasttrace._AFTER_FLUSH:
            continue
        nodes = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function))))
        if any(isinstance(node, ast.Raise) and node.exc is not None for node in nodes):
            raising.add(str(each))
            assert each.section("Raises"), each
    assert {"fluent.trace", "tracing.set_destination"} <= raising


def test_the_core_says_what_its_stub_says():
    """``help()`` of an object of the core reads as the stub, without its examples."""
    for each in documented("._core"):
        text = inspect.cleandoc(each.value.__doc__ or "")
        assert text == each.doc.partition("\n\nExample:")[0], each


# ---- examples ----

PARSER = doctest.DocTestParser()

#: Runs examples of docstrings, and prints for each name how it went.
RUN = """
import doctest, json, logging, sys
logging.disable()
parser, outcomes = doctest.DocTestParser(), {}
for name, doc in json.load(open(sys.argv[1])).items():
    output = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    runner.run(parser.get_doctest(doc, {}, name, None, 0), out=output.append)
    outcomes[name] = runner.tries, runner.failures, "".join(output)
print(json.dumps(outcomes))
"""


def examples_of(each: Documented) -> list[doctest.Example]:
    return PARSER.get_examples(each.doc)


SOURCES = "".join(example.source for each in EVERYTHING for example in examples_of(each))


@pytest.mark.parametrize("each", EVERYTHING, ids=str)
def test_a_public_name_has_an_example(each):
    member = each.name.rpartition(".")[2]
    if member in REFUSED:
        return
    if each.is_read():  # with the class's, or another member's
        assert f".{member}" in SOURCES
        return
    examples = examples_of(each)
    assert any(example.want for example in examples), "nothing is shown"
    if not isinstance(each.value, type) or each.value not in OF_THE_CORE.values():
        assert any(member in example.source for example in examples)
    assert "doctest: +SKIP" not in each.doc


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, spool) -> dict[str, tuple[int, int, str]]:
    """How many examples of each public name were run and failed, and what was printed of those. They run one after
    another in one process, without a server, which delivers to a database by a thread of its own."""
    folder = tmp_path_factory.mktemp("examples")
    docs = {str(each): each.doc for each in EVERYTHING if examples_of(each)}
    (folder / "examples.json").write_text(json.dumps(docs))
    result = subprocess.run(
        [sys.executable, "-c", RUN, "examples.json"],
        cwd=folder,
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "MLFLOW_FASTTRACE_SENDER": "thread",
        },
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    left = {path.name for path in folder.iterdir()}
    assert left <= {"examples.json", "mlflow.db", "mlruns", "mlartifacts"}
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("module_name", MODULES)
def test_the_examples_of_a_module_run(outcomes, module_name):
    names = [str(each) for each in documented(module_name) if examples_of(each)]
    assert names
    for name in names:
        tries, failures, output = outcomes[name]
        assert tries > 1, name
        assert failures == 0, output


# ---- help(), dir() ----

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


@pytest.mark.parametrize("module", MODULES[:-1])
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
