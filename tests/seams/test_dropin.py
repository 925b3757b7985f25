"""The drop-in namespace beyond the tracing functions: MLflow's modules under its name, autologging,
and everything that MLflow hands out on the core."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import mlflow
import mlflow_fasttrace
import openai
import pytest
from mlflow.utils.autologging_utils import AUTOLOGGING_INTEGRATIONS
from mlflow_fasttrace._internal.seams import autolog
from support.records import Recorded


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A function that gives the names of the spans recorded since its last call, each with its
    parent's name."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow_fasttrace.install()  # any name that is reached through the namespace would do so later
    recorded = Recorded(tmp_path)

    def read():
        spans = recorded.spans()
        names = {span.span_id: span.name for span in spans}
        return sorted((span.name, names.get(span.parent_id, "")) for span in spans)

    yield read
    mlflow.openai.autolog(disable=True)
    AUTOLOGGING_INTEGRATIONS.pop("openai", None)
    recorded.end()


def ask():
    """Asks a model that does not answer; its span is recorded all the same."""
    client = openai.OpenAI(api_key="x", base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


def ask_in_a_trace():
    with mlflow_fasttrace.start_span("root"):
        ask()


TRACED = [("Completions", "root"), ("root", "")]
UNTRACED = [("root", "")]


def test_one_integration_is_switched_on_and_off(recorded):
    ask_in_a_trace()
    assert recorded() == UNTRACED
    mlflow_fasttrace.openai.autolog()
    ask_in_a_trace()
    assert recorded() == TRACED
    ask()
    assert recorded() == [("Completions", "")]
    mlflow_fasttrace.openai.autolog(disable=True)
    ask_in_a_trace()
    assert recorded() == UNTRACED


@pytest.mark.parametrize("tracing_alone", [False, True])
def test_all_integrations_are_switched_on_and_off(recorded, monkeypatch, tracing_alone):
    if tracing_alone:  # the package mlflow-tracing has no autolog()
        monkeypatch.delattr(mlflow, "autolog")
    mlflow_fasttrace.autolog(silent=True, exclude_flavors=["langchain"])
    ask_in_a_trace()
    assert recorded() == TRACED
    mlflow_fasttrace.autolog(disable=True)
    ask_in_a_trace()
    assert recorded() == UNTRACED
    mlflow_fasttrace.openai.autolog()  # an integration that was switched on by itself
    mlflow_fasttrace.autolog(disable=True)
    ask_in_a_trace()
    assert recorded() == UNTRACED


def test_an_integration_that_fails_harms_no_other(recorded, monkeypatch, caplog):
    monkeypatch.delattr(mlflow, "autolog")
    broken = {"pytest": "mlflow.no_such_integration", **autolog.INTEGRATIONS}
    monkeypatch.setattr(autolog, "INTEGRATIONS", broken)
    with caplog.at_level(logging.WARNING):
        mlflow_fasttrace.autolog()
    assert "Autologging of pytest failed" in caplog.text
    ask_in_a_trace()
    assert recorded() == TRACED


def test_every_integration_of_mlflows_autolog_is_known():
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(mlflow.autolog)))
    (theirs,) = [
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "GENAI_LIBRARY_TO_AUTOLOG_MODULE"
    ]
    assert len(theirs) > 10
    assert theirs.items() <= autolog.INTEGRATIONS.items()


def test_every_integration_exists():
    for module in set(autolog.INTEGRATIONS.values()):
        assert importlib.util.find_spec(module) is not None, module


#: Prints what holds, by its name, and how a module that is not there is named.
ALIASES = """
import json, sys
import mlflow_fasttrace as mlflow
holds = {"not imported for the package": "mlflow" not in sys.modules}
from mlflow_fasttrace.entities import SpanType, NoOpSpan
from mlflow_fasttrace.tracing import context, configure, get_tracing_context_headers_for_http_request
holds["not imported for names of our own"] = "mlflow" not in sys.modules
import mlflow_fasttrace.openai as integration
import mlflow as real
holds["one integration"] = integration is mlflow.openai is sys.modules["mlflow.openai"]
holds["its own spec"] = integration.__spec__.name == "mlflow.openai"
holds["installed"] = mlflow.is_installed()
from mlflow_fasttrace.openai.autolog import patched_call
from mlflow_fasttrace.tracing.constant import SpanAttributeKey
from mlflow_fasttrace.entities.span import LiveSpan
from mlflow_fasttrace.entities import Trace
from mlflow_fasttrace.langchain import autolog
import mlflow_fasttrace.otel
holds["autolog"] = callable(mlflow.openai.autolog)
holds["a module below"] = patched_call.__module__ == "mlflow.openai.autolog"
holds["entities"] = LiveSpan is real.entities.LiveSpan and Trace is real.entities.Trace
holds["beside our own"] = mlflow_fasttrace.otel.autolog is real.otel.autolog
holds["constants"] = SpanAttributeKey.INPUTS == "mlflow.spanInputs"
try:
    import mlflow_fasttrace.no_such_module
except ModuleNotFoundError as error:
    missing = error.name
with mlflow.start_span("outer") as outer:
    with real.start_span("inner") as inner:
        current = mlflow.get_current_active_span()
        holds["one current span"] = current is inner is real.get_current_active_span()
        holds["nested"] = inner.parent_id == outer.span_id
print(json.dumps([holds, missing]))
"""


def test_mlflows_modules_are_found_under_this_name(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    result = subprocess.run([sys.executable, "-c", ALIASES], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    holds, missing = json.loads(result.stdout)
    assert holds == dict.fromkeys(holds, True)
    assert missing == "mlflow_fasttrace.no_such_module"


def test_a_session_may_have_several_levels_from_3_18_on(recorded, monkeypatch):
    monkeypatch.setattr(mlflow, "__version__", "3.18.0")
    with mlflow_fasttrace.tracing.context(session_id=["trip", "leg"]):
        with mlflow_fasttrace.start_span("a") as span:
            assert span._trace.metadata["mlflow.trace.session"] == '["trip","leg"]'
            mlflow_fasttrace.update_current_trace(session_id=["trip"])
            assert span._trace.metadata["mlflow.trace.session"] == '["trip"]'
            with pytest.raises(mlflow.MlflowException, match="non-empty list of strings"):
                mlflow_fasttrace.update_current_trace(session_id=[1])
    monkeypatch.setattr(mlflow, "__version__", "3.17.2")
    with mlflow_fasttrace.start_span("b") as span:
        for session in (["trip", "leg"], []):
            mlflow_fasttrace.update_current_trace(session_id=session)
            assert span._trace.metadata["mlflow.trace.session"] == session


#: Sets the variable after the import, as MLflow's documentation does, and prints what recorded.
UNIFIED = """
import logging, os, sys
import {module} as mlflow
if {install}:
    import mlflow_fasttrace
    assert mlflow_fasttrace.install()
{before}
os.environ["MLFLOW_USE_DEFAULT_TRACER_PROVIDER"] = "false"
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
otel.set_tracer_provider(provider)

{first}
with mlflow.start_span("outer") as outer:
    with otel.get_tracer("other").start_as_current_span("library's"):
        with mlflow.start_span("inner") as inner:
            pass
mlflow.flush_trace_async_logging()
import json, mlflow
spans = mlflow.get_trace(outer.trace_id).data.spans
print(json.dumps({{
    "by": type(outer).__module__,
    "exported": sorted(span.name for span in exporter.get_finished_spans()),
    "one trace": outer.trace_id == inner.trace_id,
    "read back": sorted(span.name for span in spans),
}}))
"""

CALLED = "@mlflow.trace\ndef function(): pass\nfunction()"
BY_HAND = "mlflow.start_span_no_context('first').end()"


_LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("module", "install", "first"),
    [
        ("mlflow_fasttrace", False, CALLED),
        pytest.param("mlflow", True, "", marks=_LONG),
        pytest.param("mlflow_fasttrace", False, "", marks=_LONG),
        pytest.param("mlflow_fasttrace", False, BY_HAND, marks=_LONG),
        pytest.param("mlflow", True, CALLED, marks=_LONG),
        pytest.param("mlflow", True, BY_HAND, marks=_LONG),
        pytest.param("mlflow", False, CALLED, marks=_LONG),
    ],
)
def test_unified_mode_may_be_asked_for_after_the_import(tmp_path, module, install, first):
    program = UNIFIED.format(module=module, install=install, before="", first=first)
    found, said = unified(program, tmp_path)
    assert found["by"] == "mlflow.entities.span"
    assert {"outer", "inner", "library's"} <= set(found["exported"])
    assert found["one trace"]
    assert found["read back"] == ["inner", "library's", "outer"]
    ours = install or module == "mlflow_fasttrace"
    assert said.count("Tracing runs on MLflow itself") == (1 if ours else 0)


@pytest.mark.parametrize(
    ("module", "install"),
    [("mlflow_fasttrace", False), pytest.param("mlflow", True, marks=_LONG)],
)
def test_unified_mode_that_is_asked_for_after_a_function_was_traced_is_refused_aloud(
    tmp_path, module, install
):
    program = UNIFIED.format(module=module, install=install, before=CALLED[:-11], first="")
    found, said = unified(program, tmp_path)
    assert found["by"] == "mlflow_fasttrace._core"
    assert found["one trace"]
    assert said.count("ignored: MLFLOW_USE_DEFAULT_TRACER_PROVIDER=false") == 1


def unified(program: str, folder: Path) -> tuple[dict, str]:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


#: Functions that were taken from the package before the variable was set.
HELD = """
import json, os
from mlflow_fasttrace import start_span, start_span_no_context, trace
os.environ["MLFLOW_USE_DEFAULT_TRACER_PROVIDER"] = "false"
trace(lambda: 1)()
with start_span("scope") as span:
    by_hand = start_span_no_context("by hand")
by_hand.end()
print(json.dumps([type(span).__module__, type(by_hand).__module__]))
"""


#: Modules that were asked for before, and are MLflow's own while that records.
MODULES = """
import json, os, sys
import mlflow_fasttrace
import mlflow_fasttrace.entities
before = mlflow_fasttrace.tracing, mlflow_fasttrace.entities
os.environ["MLFLOW_USE_DEFAULT_TRACER_PROVIDER"] = "false"
with mlflow_fasttrace.start_span("scope"):
    pass
import mlflow_fasttrace.tracing
from mlflow_fasttrace import entities
during = mlflow_fasttrace.tracing, mlflow_fasttrace.entities, entities
del os.environ["MLFLOW_USE_DEFAULT_TRACER_PROVIDER"]
mlflow_fasttrace.uninstall()
import mlflow_fasttrace.tracing
afterwards = mlflow_fasttrace.tracing, mlflow_fasttrace.entities
names = [[module.__name__ for module in modules] for modules in (before, during)]
print(json.dumps([*names, afterwards == before]))
"""


def test_modules_are_mlflows_while_mlflow_records(tmp_path):
    before, during, the_same_afterwards = unified(MODULES, tmp_path)[0]
    assert before == ["mlflow_fasttrace.tracing", "mlflow_fasttrace.entities"]
    assert during == ["mlflow.tracing", "mlflow.entities", "mlflow.entities"]
    assert the_same_afterwards


def test_functions_that_were_taken_before_hand_over_to_mlflow(tmp_path):
    made_by, said = unified(HELD, tmp_path)
    assert made_by == ["mlflow.entities.span", "mlflow.entities.span"]
    assert said.count("Tracing runs on MLflow itself") == 1
