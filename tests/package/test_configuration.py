"""docs/configuration.md has the variables that the code reads, and documents name no others."""

from __future__ import annotations

import ast
import inspect
import re
import sys

from mlflow_fasttrace._internal.config import environment, otlp
from support.processes import ROOT

sys.path.insert(0, str(ROOT / ".ci"))

import configuration

NAMED = {name for variable in configuration.variables() for name in variable.names}


def test_the_table_is_that_of_the_code():
    assert configuration.DOCUMENT.read_text() == configuration.document(), (
        "run .ci/configuration.py"
    )


def test_every_variable_that_is_read_has_a_row():
    """The names in the code of the modules that read variables, which may also stand in what a row says."""
    read = set(otlp._VARIABLES)
    for module in (environment, otlp):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if re.fullmatch(r"(?!_)[A-Z]+(_[A-Z0-9]+)+", node.value):
                    read.add(node.value)
    said = NAMED | set(re.findall(r"`([A-Z][A-Z0-9_]+)`", configuration.table()))
    parts = {"CLIENT_CERTIFICATE", "CLIENT_KEY"}  # of names that otlp.py puts together
    set_only = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES"}  # for the sender, which tries again by itself
    assert len(read) > 50
    assert read - said == {"MLFLOW_FASTTRACE_AGENT_PATIENCE"} | parts | set_only


def test_defaults_are_those_of_the_code(monkeypatch):
    for name in NAMED:
        monkeypatch.delenv(name, raising=False)
    defaults = {name: v.default for v in configuration.variables() for name in v.names}
    assert defaults["MLFLOW_FASTTRACE_RING_BYTES"] == str(environment.ring_bytes())
    assert defaults["MLFLOW_FASTTRACE_SPOOL_MAX_BYTES"] == str(environment.spool_max_bytes())
    assert defaults["MLFLOW_FASTTRACE_SENDER"] == environment.sender_mode()
    assert float(defaults["MLFLOW_FASTTRACE_EXIT_TIMEOUT"]) == environment.exit_timeout_seconds()
    interval = defaults["MLFLOW_TRACE_TIMEOUT_CHECK_INTERVAL_SECONDS"]
    assert float(interval) == environment.trace_timeout_interval_seconds()
    assert (defaults["MLFLOW_FASTTRACE_SPOOL"] == "on") is environment.spool_on_disk()
    assert (defaults["MLFLOW_FASTTRACE_DISABLE"] == "true") is environment.disabled()


def test_documents_name_no_variable_of_this_package_that_there_is_not():
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found = {
        (document.name, name)
        for document in documents
        for name in re.findall(r"\bMLFLOW_FASTTRACE(?:_[A-Z]+)*\b(?!_)", document.read_text())
    }
    assert len(found) > 10
    assert {(document, name) for document, name in found if name not in NAMED} == set()
