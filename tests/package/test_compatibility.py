"""The table of docs/compatibility.md holds every name of MLflow's tracing API, and what it names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import mlflow
import mlflow.tracing
import mlflow_fasttrace
import pytest
from mlflow.entities import LiveSpan

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `((?:mlflow|LiveSpan)\.[\w.]+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS = {
    name: (runs_on.strip(), shown_by)
    for name, runs_on, shown_by in ROW.findall((ROOT / "docs/compatibility.md").read_text())
}


def names_of_mlflow() -> set[str]:
    """Every public name of the tracing API of the MLflow that is installed."""
    names = {
        f"mlflow.{name}"
        for name, value in vars(mlflow).items()
        if not name.startswith("_")
        and (getattr(value, "__module__", None) or "").startswith("mlflow.tracing")
    }
    names |= {f"mlflow.{name}" for name in mlflow.__all__ if "trace" in name or "span" in name}
    names |= {f"mlflow.tracing.{name}" for name in mlflow.tracing.__all__}
    names |= {f"LiveSpan.{name}" for name in dir(LiveSpan) if not name.startswith("_")}
    return names


def test_the_table_lacks_no_name_of_mlflow():
    assert len(names_of_mlflow()) > 70
    assert names_of_mlflow() - set(ROWS) == set()


@pytest.mark.parametrize("name", ROWS)
def test_the_tests_that_the_table_names_exist(name):
    shown_by = ROWS[name][1]
    paths = re.findall(r"tests/[\w/]+\.py", shown_by)
    assert paths
    text = "".join((ROOT / path).read_text() for path in paths)
    for function in re.findall(r"`(\w+)`", shown_by):
        assert f"def {function}(" in text


def test_the_tests_that_documents_name_exist():
    """A name in a document is that of a test or of a test's module."""
    documents = [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / name for name in ("Makefile", "README.md")),
    ]
    named = {
        name
        for document in documents
        for name in re.findall(r"\btest_[a-z0-9_]+\b", document.read_text())
    }
    modules = list((ROOT / "tests").rglob("test_*.py"))
    known = {module.stem for module in modules}
    for module in modules:
        known |= set(re.findall(r"^def (test_\w+)\(", module.read_text(), re.MULTILINE))
    assert len(named) > 100
    assert named - known == set()


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("LiveSpan.")])
def test_every_name_of_a_span_is_there(name):
    assert hasattr(mlflow_fasttrace.entities.LiveSpan, name.removeprefix("LiveSpan."))


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("mlflow.")])
def test_what_the_core_runs_is_not_mlflows(name):
    module, _, function = name.rpartition(".")
    ours = getattr(importlib.import_module(module.replace("mlflow", "mlflow_fasttrace")), function)
    theirs = getattr(importlib.import_module(module), function)
    assert (ours is theirs) == ROWS[name][0].startswith("MLflow") or "after delivery" in ROWS[name][
        0
    ]


def test_names_of_mlflow_pass_through():
    passed = [name for name, (runs_on, _) in ROWS.items() if runs_on.startswith("MLflow")]
    assert passed
    for name in passed:
        module, _, function = name.rpartition(".")
        ours = importlib.import_module(module.replace("mlflow", "mlflow_fasttrace"))
        assert callable(getattr(ours, function))


def test_a_live_span_is_not_made_of_a_dictionary(recorded):
    span = mlflow_fasttrace.start_span_no_context("span", inputs={"a": 1})
    span.end()
    for function in ("from_dict", "from_dict_v2", "from_otel_proto"):
        with pytest.raises(NotImplementedError):
            getattr(type(span), function)({})
    proto = span.to_otel_proto()
    assert proto.name == "span"
    assert proto.end_time_unix_nano == span.end_time_ns
