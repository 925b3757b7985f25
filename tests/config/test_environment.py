"""How environment variables are read: one way for each kind of value, and a word about bad ones."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_fasttrace._internal.base import log
from mlflow_fasttrace._internal.bootstrap import __path__ as bootstrap
from mlflow_fasttrace._internal.config import environment

TRUE = ["1", "true", "TRUE", "True", " true ", "\t1\n"]
FALSE = ["0", "false", "FALSE", "False", " false "]
NEITHER = ["yes", "on", "2", "t", "-1", "1.0", "true1", "wahr"]


@pytest.fixture
def lines(caplog, monkeypatch):
    """The log lines so far."""
    monkeypatch.setattr(log, "_warned", log._Warned())
    caplog.set_level(logging.WARNING, "mlflow_fasttrace")
    return lambda: [record.getMessage() for record in caplog.records]


#: Function, variable, and what applies where it is not set.
TRUTHS = [
    (environment.disabled, "MLFLOW_FASTTRACE_DISABLE", False),
    (environment.spool_on_disk, "MLFLOW_FASTTRACE_SPOOL", True),
    (environment.asynchronous, "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", True),
    (environment.propagates, "MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT", False),
    (environment.exports_otlp, "MLFLOW_ENABLE_OTLP_EXPORTER", True),
    (environment.dual_export, "MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT", False),
    (environment.genai_names, "MLFLOW_ENABLE_OTEL_GENAI_SEMCONV", False),
    (environment.extracts_attachments, "MLFLOW_TRACE_EXTRACT_ATTACHMENTS", True),
]


@pytest.mark.parametrize(("read", "name", "default"), TRUTHS)
def test_truth_values_are_read_in_one_way(monkeypatch, lines, read, name, default):
    monkeypatch.delenv(name, raising=False)
    assert read() is default
    for text in ["", "  "]:
        monkeypatch.setenv(name, text)
        assert read() is default
    for wanted, texts in ((True, TRUE), (False, FALSE)):
        for text in texts:
            monkeypatch.setenv(name, text)
            assert read() is wanted, text
    assert lines() == []
    monkeypatch.setenv(name, "perhaps")
    assert read() is default
    (line,) = lines()
    assert name in line
    assert "'perhaps'" in line
    assert str(default).lower() in line


@pytest.mark.parametrize("text", ["off", "OFF", "no", "on", "yes"])
def test_a_spool_is_on_or_off(monkeypatch, lines, text):
    monkeypatch.setenv("MLFLOW_FASTTRACE_SPOOL", text)
    assert environment.spool_on_disk() is (text in ("on", "yes"))
    assert lines() == []


#: Function, variable, a bad value, and what applies then.
BAD = [
    (environment.ring_bytes, "MLFLOW_FASTTRACE_RING_BYTES", "abc", 4 << 20),
    (environment.spool_max_bytes, "MLFLOW_FASTTRACE_SPOOL_MAX_BYTES", "1G", 1 << 30),
    (environment.exit_timeout_seconds, "MLFLOW_FASTTRACE_EXIT_TIMEOUT", "5s", 5.0),
    (
        environment.container_exit_timeout_seconds,
        "MLFLOW_FASTTRACE_CONTAINER_EXIT_TIMEOUT",
        "2m",
        120.0,
    ),
    (environment.exit_timeout_seconds, "MLFLOW_FASTTRACE_EXIT_TIMEOUT", "nan", 5.0),
    (environment.sender_mode, "MLFLOW_FASTTRACE_SENDER", "deamon", "process"),
    (environment.sampling_ratio, "MLFLOW_TRACE_SAMPLING_RATIO", "2", 1.0),
    (environment.sampling_ratio, "MLFLOW_TRACE_SAMPLING_RATIO", "nan", 1.0),
    (environment.max_attachment_bytes, "MLFLOW_TRACE_MAX_ATTACHMENT_SIZE", "1MB", None),
    (environment.trace_timeout_seconds, "MLFLOW_TRACE_TIMEOUT_SECONDS", "soon", None),
    (
        environment.trace_timeout_interval_seconds,
        "MLFLOW_TRACE_TIMEOUT_CHECK_INTERVAL_SECONDS",
        "often",
        1.0,
    ),
]


@pytest.mark.parametrize(("read", "name", "text", "default"), BAD)
def test_a_bad_value_costs_a_line_and_the_default_applies(
    monkeypatch, lines, read, name, text, default
):
    monkeypatch.setenv(name, text)
    assert read() == default
    assert read() == default
    (line,) = lines()
    assert line.startswith(f"{name} is ")
    assert repr(text) in line


@pytest.mark.parametrize(
    ("read", "name", "text", "value"),
    [
        (environment.ring_bytes, "MLFLOW_FASTTRACE_RING_BYTES", "1", 64 << 10),
        (environment.ring_bytes, "MLFLOW_FASTTRACE_RING_BYTES", "70000", 69632),
        (environment.ring_bytes, "MLFLOW_FASTTRACE_RING_BYTES", str(1 << 40), 1 << 30),
        (environment.spool_max_bytes, "MLFLOW_FASTTRACE_SPOOL_MAX_BYTES", "-5", 64 << 10),
        (environment.exit_timeout_seconds, "MLFLOW_FASTTRACE_EXIT_TIMEOUT", "-1", 0.0),
        (environment.exit_timeout_seconds, "MLFLOW_FASTTRACE_EXIT_TIMEOUT", " 0.5 ", 0.5),
        (environment.sampling_ratio, "MLFLOW_TRACE_SAMPLING_RATIO", "0.25", 0.25),
        (environment.sampling_ratio, "MLFLOW_TRACE_SAMPLING_RATIO", "", 1.0),
        (environment.max_attachment_bytes, "MLFLOW_TRACE_MAX_ATTACHMENT_SIZE", "0", None),
        (environment.trace_timeout_seconds, "MLFLOW_TRACE_TIMEOUT_SECONDS", "-3", None),
    ],
)
def test_numbers_are_kept_within_their_bounds(monkeypatch, lines, read, name, text, value):
    monkeypatch.setenv(name, text)
    assert read() == value
    assert lines() == []


#: Loads the sitecustomize as another module and says, for each pair, whether it would install.
BOTH = """
import importlib.util, json, os, sys
spec = importlib.util.spec_from_file_location("ours", sys.argv[1])
ours = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ours)
from mlflow_fasttrace._internal.config import environment
answers = []
for name, value in json.loads(sys.stdin.read()):
    os.environ.pop("MLFLOW_FASTTRACE", None)
    os.environ.pop("MLFLOW_FASTTRACE_DISABLE", None)
    if name is not None:
        os.environ["MLFLOW_FASTTRACE"] = name
    if value is not None:
        os.environ["MLFLOW_FASTTRACE_DISABLE"] = value
    answers.append([ours._installs(), environment.installs()])
print(json.dumps(answers))
"""


def test_the_sitecustomize_reads_as_the_package_does():
    texts = [None, "", " ", *TRUE, *FALSE, *NEITHER]
    pairs = [(install, disable) for install in texts for disable in texts]
    path = Path(*bootstrap) / "sitecustomize.py"
    variables = {name: text for name, text in os.environ.items() if "FASTTRACE" not in name}
    result = subprocess.run(
        [sys.executable, "-c", BOTH, str(path)],
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        check=True,
        env=variables,
    )
    answers = dict(zip(pairs, json.loads(result.stdout), strict=True))
    for (install, disable), found in answers.items():
        wanted = install in TRUE and disable not in TRUE
        assert found == [wanted, wanted], (install, disable)
