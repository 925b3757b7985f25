"""``mlflow-fasttrace doctor``: what is active, which versions, where traces go, and what runs on MLflow
itself and why."""

from __future__ import annotations

import http.client
import importlib.metadata
import logging
import os
import sys
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

import click

from mlflow_fasttrace._internal.base.imports import imported
from mlflow_fasttrace._internal.base.texts import one_line, printable
from mlflow_fasttrace._internal.base.version import (
    MLFLOWS_DISTRIBUTIONS,
    VERSION,
    mixed_versions,
)
from mlflow_fasttrace._internal.cli.output import (
    ATTENTION,
    Output,
    print_json,
    readable_errors,
)
from mlflow_fasttrace._internal.config import environment, otlp
from mlflow_fasttrace._internal.config.uris import (
    absolute_uri,
    why_no_store,
    without_credentials,
    without_secrets,
)
from mlflow_fasttrace._internal.seams import install
from mlflow_fasttrace._internal.seams.autolog import INTEGRATIONS
from mlflow_fasttrace._internal.seams.moved import MovedSeam
from mlflow_fasttrace._internal.spool.folder import SHARED_MEMORY, spool_named, spools_root

_ANSWER_SECONDS = 3.0  # that the server has for an answer

_GOOD, _NOTED, BAD = "good", "noted", "bad"
_MARKS = {_GOOD: " ", _NOTED: "·", BAD: "!"}
_STYLES = {_GOOD: "", _NOTED: "yellow", BAD: "red"}

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
    """One line of the report. Its fields are keys of ``doctor --json``."""

    section: str
    label: str
    text: str
    rating: str = _GOOD


@click.command(epilog="Example: MLFLOW_TRACKING_URI=http://server:5000 mlflow-fasttrace doctor")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def doctor(as_json: bool) -> None:
    """What is active, which versions, where traces go and wait, what runs on MLflow itself and why.

    Exit code 3 when something needs attention.
    """
    logging.getLogger("mlflow_fasttrace").setLevel(logging.CRITICAL)  # the report says it too
    with readable_errors():
        found = [
            finding._replace(text=printable(without_secrets(finding.text)))
            for finding in _findings()
        ]
    if as_json:
        print_json({"version": 1, "findings": [finding._asdict() for finding in found]})
    else:
        _print(found)
    if any(finding.rating == BAD for finding in found):
        sys.exit(ATTENTION)


def _print(found: list[Finding]) -> None:
    out = Output()
    for section in dict.fromkeys(finding.section for finding in found):
        out.line(section, "bold")
        findings = [finding for finding in found if finding.section == section]
        width = max(len(finding.label) for finding in findings) + 2
        for finding in findings:
            label = f"{_MARKS[finding.rating]} {one_line(finding.label):<{width}}"
            out.line(label + one_line(finding.text), _STYLES[finding.rating])


def _findings() -> Iterator[Finding]:
    """The report. Imports MLflow, and asks the server whether it is there."""
    core_error = _core_error()
    yield from _versions(core_error)
    yield from _what_is_active()
    if core_error is None:
        yield from _where_traces_go()
        yield from _where_traces_wait()
    yield from _what_is_set()
    yield from _libraries()


# ---- versions ----


def _core_error() -> ImportError | None:
    """Why the C core cannot be loaded; None where it can be."""
    try:
        from mlflow_fasttrace import _core  # noqa: F401
    except ImportError as error:
        return error
    return None


def _versions(core_error: ImportError | None) -> Iterator[Finding]:
    section = "versions"
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(section, "mlflow-fasttrace", f"{VERSION}, Python {python}")
    if core_error is None:
        from mlflow_fasttrace import _core

        yield Finding(section, "C core", str(_core.__file__))
    else:
        yield Finding(section, "C core", f"cannot be loaded: {core_error}", BAD)
    mixed = mixed_versions()
    text = mixed or _installed(*MLFLOWS_DISTRIBUTIONS)
    yield Finding(section, "MLflow", text, BAD if mixed else _GOOD)
    yield Finding(section, "OpenTelemetry", _installed("opentelemetry-api", "opentelemetry-sdk"))


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed(*distributions: str) -> str:
    found = [f"{name} {version}" for name in distributions if (version := _version(name))]
    return ", ".join(found) or "not installed"


# ---- what is active ----


def _what_is_active() -> Iterator[Finding]:
    section = "active"
    reason = install.why_not() or _seams_that_moved()
    if reason is not None:
        yield Finding(section, "import mlflow_fasttrace", f"runs on MLflow itself: {reason}", BAD)
        yield Finding(section, "import mlflow", f"runs on MLflow itself: {reason}", BAD)
        return
    yield Finding(section, "import mlflow_fasttrace", "runs on the core")
    if environment.installs():
        yield Finding(section, "import mlflow", "runs on the core (MLFLOW_FASTTRACE is set)")
    else:
        yield Finding(
            section,
            "import mlflow",
            "runs on the core after mlflow_fasttrace.install(), or under `mlflow-fasttrace run`",
        )
    yield from _what_mlflow_does()
    yield from _names_that_moved()


def _seams_that_moved() -> str | None:
    """Why MLflow's code cannot be replaced by the core's; None where it can be."""
    try:
        imported("mlflow.tracing.fluent")
        from mlflow_fasttrace._internal.seams import private_names

        private_names.check()
    except MovedSeam as moved:
        return install.moved_text(moved)
    except Exception as error:
        return f"MLflow cannot be imported: {type(error).__name__}: {error}"
    return None


def _names_that_moved() -> Iterator[Finding]:
    """The private names of MLflow that are missing although the core is active, and what is lost."""
    from mlflow_fasttrace._internal.recording import destination
    from mlflow_fasttrace._internal.seams import private_names

    uri, _collector = destination.route()
    needed = None  # by a collector
    if uri.startswith(("http://", "https://")):
        needed = private_names.LOSES_SIGNING if environment.signs_by_mlflow() else None
    elif not otlp.is_collector(uri):
        needed = private_names.LOSES_DATABASES
    for process in (private_names.PROGRAM, private_names.SENDER):
        for name, reason in private_names.missing(process):
            rating = BAD if name.lost == needed else _NOTED
            yield Finding("MLflow", name.path, f"{reason}; lost: {name.lost}", rating)


def _what_mlflow_does() -> Iterator[Finding]:
    """The parts that are MLflow's own although the core is active."""
    section = "on MLflow itself"
    yield Finding(section, "reading traces", "get_trace, search_traces: after delivery")
    yield Finding(section, "integrations", "MLflow's own code, whose spans are the core's")
    if (environment.tracking_uri() or "").startswith("databricks"):
        yield Finding(
            section, "Databricks", "locations in Unity Catalog are only MLflow's own", _NOTED
        )
    if otlp.exports_metrics():
        yield Finding(section, "metrics", "durations of spans are not exported", _NOTED)


# ---- destination, spool ----


def _where_traces_go() -> Iterator[Finding]:
    from mlflow_fasttrace._internal.recording import destination

    section = "destination"
    uri = absolute_uri(destination.tracking_uri())
    collector = otlp.collector_uri()
    if collector is not None:
        yield Finding(section, "collector", without_credentials(collector))
    if collector is None or environment.dual_export():
        yield Finding(section, "tracking URI", without_credentials(uri))
        if uri.startswith(("http://", "https://")):
            yield Finding(section, "server", *_server(uri))
        elif (reason := why_no_store(uri)) is not None:
            yield Finding(section, "store", reason, BAD)
    experiment = destination.experiment_in_force()
    yield Finding(section, "experiment", experiment.get("name") or f"id {experiment.get('id')}")


def _server(uri: str) -> tuple[str, str]:
    """What the server says of itself, and the rating."""
    base = without_credentials(uri.rstrip("/"))
    answers = []
    for path in ("/health", "/version"):
        try:
            with urllib.request.urlopen(base + path, timeout=_ANSWER_SECONDS) as answer:
                answers.append(answer.read(100).decode("utf-8", "replace").strip())
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            return f"does not answer ({reason}); traces wait until it does", BAD
    health, version = answers
    if health != "OK":
        return "answers, but not as MLflow does; check the tracking URI", BAD
    return f"answers, MLflow {version}", _GOOD


def _where_traces_wait() -> Iterator[Finding]:
    from mlflow_fasttrace._internal.spool import overview

    section = "spool"
    root = os.path.abspath(spools_root())
    yield Finding(section, "folder", *_writable(root))
    yield Finding(section, "rings", *_room_for_rings(spool_named(root, "0").rings))
    mode = environment.sender_mode()
    yield Finding(section, "sender", mode, _NOTED if mode == "none" else _GOOD)
    for view in map(overview.look_at, overview.all_spools()):
        if view.is_empty():
            continue
        state = "a sender runs" if view.sender_running else "no sender runs"
        waiting = f"{view.waiting.spans:,} spans wait" if view.waiting else "nothing waits"
        rating = BAD if view.needs_attention() else _GOOD
        yield Finding(section, view.destination or view.folder, f"{state}, {waiting}", rating)


def _writable(folder: str) -> tuple[str, str]:
    """The text and the rating for a folder that exists or would be made."""
    place = folder
    while not os.path.isdir(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    if os.access(place, os.W_OK):
        return folder, _GOOD
    return f"{folder} cannot be written: what waits stays in memory", BAD


def _room_for_rings(folder: str) -> tuple[str, str]:
    """The text and the rating for the folder of a spool's rings."""
    if not folder.startswith(SHARED_MEMORY):
        return f"in the folder: there is no {SHARED_MEMORY} to write to", _NOTED
    free = os.statvfs(SHARED_MEMORY)
    room = free.f_bavail * free.f_frsize
    text = f"{os.path.dirname(folder)}, {room >> 20:,} MB free"
    return text, _GOOD if room >= environment.ring_bytes() else _NOTED


# ---- environment, libraries ----


def _what_is_set() -> Iterator[Finding]:
    for name, value in environment.shown():
        yield Finding("environment", name, without_secrets(value))


def _libraries() -> Iterator[Finding]:
    for library, integration in INTEGRATIONS.items():
        distribution = _DISTRIBUTIONS.get(library, library)
        if version := _version(distribution):
            yield Finding("integrations", f"{distribution} {version}", f"{integration}.autolog()")
