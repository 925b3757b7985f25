"""What ``mlflow-fasttrace doctor`` finds out: what is active, which versions, where traces go, and
what runs on MLflow itself and why."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

from mlflow_fasttrace._internal.base.version import VERSION
from mlflow_fasttrace._internal.config import environment, otlp
from mlflow_fasttrace._internal.config.uris import (
    absolute_uri,
    without_credentials,
    without_secrets,
)
from mlflow_fasttrace._internal.seams import install
from mlflow_fasttrace._internal.seams.autolog import INTEGRATIONS
from mlflow_fasttrace._internal.spool.folder import spool_named, state_root

_ANSWER_SECONDS = 3.0

GOOD, NOTED, BAD = "good", "noted", "bad"

#: Distributions of the libraries that MLflow has an integration for, where the name is another one.
_DISTRIBUTIONS = {
    "autogen": "ag2",
    "autogen_agentchat": "autogen-agentchat",
    "google.genai": "google-genai",
    "google.generativeai": "google-generativeai",
    "haystack": "haystack-ai",
    "llama_index.core": "llama-index-core",
    "pydantic_ai": "pydantic-ai-slim",
    "semantic_kernel": "semantic-kernel",
    "strands": "strands-agents",
}


class Finding(NamedTuple):
    """One line of the report."""

    section: str
    label: str
    text: str
    rating: str = GOOD


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions(*distributions: str) -> str:
    found = [f"{name} {version}" for name in distributions if (version := _version(name))]
    return ", ".join(found) or "not installed"


def findings() -> Iterator[Finding]:
    """The report, line by line. Imports MLflow, and asks the server whether it is there."""
    yield from _what_runs()
    if sys.modules.get("mlflow_fasttrace._core") is not None:
        yield from _where_traces_go()
        yield from _where_they_wait()
    yield from _what_is_set()
    yield from _libraries()


def _what_runs() -> Iterator[Finding]:
    section = "versions"
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(section, "mlflow-fasttrace", f"{VERSION}, Python {python}")
    try:
        core = importlib.import_module("mlflow_fasttrace._core")
        yield Finding(section, "C core", core.__file__)
    except ImportError as error:
        yield Finding(section, "C core", f"cannot be loaded: {error}", BAD)
    yield Finding(section, "MLflow", _versions("mlflow", "mlflow-skinny", "mlflow-tracing"))
    yield Finding(section, "OpenTelemetry", _versions("opentelemetry-api", "opentelemetry-sdk"))

    section = "active"
    reason = install.why_not() or _seams_that_moved()
    if reason is not None:
        yield Finding(section, "import mlflow_fasttrace", f"runs on MLflow itself: {reason}", BAD)
        yield Finding(section, "import mlflow", f"runs on MLflow itself: {reason}", BAD)
        return
    yield Finding(section, "import mlflow_fasttrace", "runs on the core")
    if os.environ.get("MLFLOW_FASTTRACE", "") in ("1", "true"):
        yield Finding(section, "import mlflow", "runs on the core (MLFLOW_FASTTRACE is set)")
    else:
        yield Finding(
            section,
            "import mlflow",
            "runs on the core after mlflow_fasttrace.install(), or under `mlflow-fasttrace run`",
        )
    yield from _what_passes_by()
    yield from _names_that_moved()


def _seams_that_moved() -> str | None:
    try:
        importlib.import_module("mlflow.tracing.fluent")
        install.check_version()
        from mlflow_fasttrace._internal.seams import table

        table.check()
    except install.MovedSeam as moved:
        return f"MLflow {install.mlflow_version()} is not as it is known here: {moved}"
    except Exception as error:
        return f"MLflow cannot be imported: {type(error).__name__}: {error}"
    return None


def _names_that_moved() -> Iterator[Finding]:
    """The private names of MLflow that are missing although the core is active, and what is lost."""
    from mlflow_fasttrace._internal.seams import table

    for process in (table.PROGRAM, table.SENDER):
        for name, reason in table.missing(process):
            yield Finding("MLflow", name.path, f"{reason}; lost: {name.lost}", NOTED)


def _what_passes_by() -> Iterator[Finding]:
    """What is MLflow's own although the core is active."""
    section = "on MLflow itself"
    yield Finding(section, "reading traces", "get_trace, search_traces: after delivery")
    yield Finding(section, "integrations", "MLflow's own code, whose spans are the core's")
    if os.environ.get("MLFLOW_TRACKING_URI", "").startswith("databricks"):
        yield Finding(
            section, "Databricks", "locations in Unity Catalog are only MLflow's own", NOTED
        )
    if os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
        yield Finding(section, "metrics", "durations of spans are not exported", NOTED)


def _where_traces_go() -> Iterator[Finding]:
    section = "destination"
    from mlflow_fasttrace._internal.recording import runtime

    uri = absolute_uri(runtime.tracking_uri())
    shown = without_credentials(uri)
    collector = otlp.collector_uri()
    if collector is not None:
        yield Finding(section, "collector", without_credentials(collector))
    if collector is None or otlp.both():
        yield Finding(section, "tracking URI", shown, GOOD)
        if uri.startswith(("http://", "https://")):
            yield Finding(section, "server", *_server(uri))
    experiment = runtime._experiment_in_force()
    yield Finding(section, "experiment", experiment.get("name") or f"id {experiment.get('id')}")


def _server(uri: str) -> tuple[str, str]:
    base = uri.rstrip("/")
    answers = []
    for path in ("/health", "/version"):
        request = urllib.request.Request(without_credentials(base) + path)
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
                answers.append(answer.read(100).decode("utf-8", "replace").strip())
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            return f"does not answer ({reason}); traces wait until it does", BAD
    health, version = answers
    if health != "OK":
        return "answers, but not as MLflow does", BAD
    return f"answers, MLflow {version}", GOOD


def _where_they_wait() -> Iterator[Finding]:
    section = "spool"
    root = os.path.abspath(state_root())
    yield Finding(section, "folder", *_writable(root))
    shared = spool_named(root, "0").rings
    if shared.startswith("/dev/shm"):
        free = os.statvfs("/dev/shm")
        room = free.f_bavail * free.f_frsize
        enough = room >= environment.ring_bytes()
        text = f"{os.path.dirname(shared)}, {room >> 20:,} MB free"
        yield Finding(section, "rings", text, GOOD if enough else NOTED)
    else:
        yield Finding(section, "rings", "in the folder: there is no /dev/shm to write to", NOTED)
    mode = environment.sender_mode()
    yield Finding(section, "sender", f"{mode}", NOTED if mode == "none" else GOOD)
    from mlflow_fasttrace._internal.spool import overview

    for view in map(overview.look_at, overview.all_spools()):
        if view.is_empty():
            continue
        state = "a sender runs" if view.sender_running else "no sender runs"
        waiting = f"{view.waiting.spans:,} spans wait" if view.waiting else "nothing waits"
        rating = BAD if view.needs_attention() else GOOD
        yield Finding(section, view.destination or view.folder, f"{state}, {waiting}", rating)


def _writable(folder: str) -> tuple[str, str]:
    place = folder
    while not os.path.isdir(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    if os.access(place, os.W_OK):
        return folder, GOOD
    return f"{folder} cannot be written: what waits is kept in memory", BAD


def _what_is_set() -> Iterator[Finding]:
    for name in sorted(os.environ):
        if name.startswith("MLFLOW_FASTTRACE") or name in (
            "MLFLOW_TRACE_SAMPLING_RATIO",
            "MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT",
            "MLFLOW_USE_DEFAULT_TRACER_PROVIDER",
            "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING",
        ):
            yield Finding("environment", name, without_secrets(os.environ[name]))


def _libraries() -> Iterator[Finding]:
    for library, integration in INTEGRATIONS.items():
        distribution = _DISTRIBUTIONS.get(library, library)
        if version := _version(distribution):
            yield Finding(
                "integrations", f"{distribution} {version}", f"{integration}.autolog()", GOOD
            )
