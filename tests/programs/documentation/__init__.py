"""What MLflow's documentation of tracing shows, a module a chapter and a small program a code block.

A program takes the module under test and returns what its block prints or leaves to look at: that, too, is
compared. All models that are asked are tests/support/llm_stub.py, by ``OPENAI_BASE_URL``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import time
from typing import Any


def of(mlflow: Any, name: str) -> Any:
    """A module of the one under test: ``of(mlflow, "tracing.constant")``."""
    return importlib.import_module(f"{mlflow.__name__}.{name}")


def last(mlflow: Any) -> Any:
    """The last trace, read back from the server."""
    return read(mlflow, mlflow.get_last_active_trace_id())


def read(mlflow: Any, trace_id: str) -> Any:
    mlflow.flush_trace_async_logging()
    return mlflow.get_trace(trace_id)


def tree(trace: Any) -> list[str]:
    """A trace's spans, a line each, children under their parent in the order in which they began."""
    children: dict[str | None, list[Any]] = {}
    for span in sorted(trace.data.spans, key=lambda span: span.start_time_ns):
        children.setdefault(span.parent_id, []).append(span)

    def lines(parent: str | None, depth: int) -> list[str]:
        found = []
        for span in children.get(parent, []):
            status = span.status.status_code.value
            found.append(f"{'  ' * depth}{span.name} [{span.span_type}] {status}")
            found += lines(span.span_id, depth + 1)
        return found

    return lines(None, 0)


def own_experiment(suffix: str = "") -> str:
    """The name of the running program's experiment, or of another one of its own."""
    return f"{os.environ['PROGRAM_PREFIX']}-{os.environ['PROGRAM_NAME']}{suffix}"


def own_experiment_id(mlflow: Any, suffix: str = "") -> str:
    """The id of that experiment, which is made where it is not there."""
    client = mlflow.MlflowClient()
    name = own_experiment(suffix)
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


@contextlib.contextmanager
def openai_traced(mlflow: Any):
    """OpenAI's client, whose calls make spans until the end of the block."""
    import openai

    mlflow.openai.autolog()
    try:
        with openai.OpenAI() as client:
            yield client
    finally:
        mlflow.openai.autolog(disable=True)


def next_millisecond() -> None:
    """Goes on in another millisecond: by those, servers order traces."""
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == now:
        pass


def raised_by(call: Any) -> str:
    """What a call raises, or "nothing"."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


_ID = re.compile(
    r"\b(?:tr-|a-|m-)?[0-9a-f]{32}\b|\b[0-9a-f]{16}\b|(?<![\w+/=])(?:[\w+/]{11}=|[\w+/]{22}==)(?![\w+/=])"
)
_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z?|\b1[5-9]\d{11}(?:\d{6})?\b")
_PLACE = re.compile(r"/\S*/artifacts/\d+/")
_RUN = re.compile(r"^(?:🏃 View run|🧪 View experiment).*\n?", re.M)
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_DURATION = re.compile(r"(?:duration|latency|sizeBytes|sizeStats|time_ms)", re.I)


def steady(value: Any) -> Any:
    """What a program returned, as JSON, without what differs between two runs: ids are numbered as they come,
    times, durations and sizes are left out, and so are the names of the two modules and of experiments."""
    ids: dict[str, str] = {}

    def text(words: str) -> str:
        words = _TIME.sub("<time>", _RUN.sub("", words))
        words = _ID.sub(lambda found: ids.setdefault(found[0], f"<id {len(ids)}>"), words)
        words = words.replace("mlflow_fasttrace", "mlflow").replace("mlflow._core", "mlflow")
        prefix = os.environ.get("PROGRAM_PREFIX", "")
        words = _PLACE.sub("<artifacts>", words)
        return _ADDRESS.sub("0x0", words.replace(prefix, "<prefix>") if prefix else words)

    def part(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {text(str(name)): part(item, str(name)) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [part(item) for item in value]
        if value is None or isinstance(value, bool):
            return value
        if _DURATION.search(key):
            return f"<{key}>"
        if isinstance(value, float) and value != value:
            return "NaN"
        if isinstance(value, (int, float)):
            return value if abs(value) < 1.5e12 else "<time>"
        if "experiment" in key and str(value).isdigit():
            return "<experiment>"
        return text(value if isinstance(value, str) else repr(value))

    return json.loads(json.dumps(part(value)))
