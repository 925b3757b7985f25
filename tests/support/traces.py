"""What the tests share: the server, reading traces back, waiting, comparing."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

PACKAGE_ROOT = str(Path(__file__).parents[2] / "python")


def base_environment(spool: Path) -> dict[str, str]:
    return {
        "MLFLOW_FASTTRACE_SPOOL_DIR": str(spool),
        "MLFLOW_MODEL_CATALOG_URI": "",  # no look-ups of prices on the network
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        # Who reads once after an agent's end reads what has arrived, however slow the machine is.
        "MLFLOW_FASTTRACE_EXIT_TIMEOUT": "60",
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "true",
    }


#: Traces of two spans, as many as ``traces`` says.
TRACES = """
@mlflow.trace
def leaf(n):
    return n

@mlflow.trace
def root(n):
    leaf(n)
    return n

for n in range({traces}):
    root(n)
"""


#: How a program that is given as text comes by its ``mlflow``.
IMPORTS = {
    "drop-in": "import mlflow_fasttrace as mlflow",
    "installed": "import mlflow, mlflow_fasttrace; mlflow_fasttrace.install()",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rings_of(spool: Path) -> list[Path]:
    """The folders in shared memory of whatever is recorded below a spool folder."""
    from mlflow_fasttrace._internal.spool.folder import rings_prefix

    return list(Path("/dev/shm").glob(f"mlflow-fasttrace-*/{rings_prefix(str(spool))}-*"))


def spans_to_ring(folder, capacity: int = 1 << 20, memory: str | None = None, **destination):
    """Lets the spans of this process go to a ring of its own in the folder; its two ends. What does
    not fit is spilled to the folder, and before that to ``memory``, one on tmpfs. The test ends that
    with ``runtime.reset()``."""
    from mlflow_fasttrace import _core

    path = str(folder / "1-00000000.ring")
    writer = _core.RingWriter(
        path,
        capacity,
        str(folder / "spill-1-00000000"),
        memory_prefix=memory and f"{memory}/spill-1-00000000",
    )
    _core.set_destination(writer, {"uri": "test", "experiment": {"id": "0"}, **destination})
    return writer, _core.RingReader(path)


def wait_until(condition, seconds: float = 60.0, what: str = "the condition"):
    """The condition's first true value; AssertionError when it stays false."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not hold within {seconds:g} s"
        time.sleep(0.05)


class MlflowServer:
    """A real ``mlflow server``, with one worker over SQLite unless it is told otherwise."""

    store = "sqlite:///{folder}/server.db"
    workers = 1
    options: tuple[str, ...] = ()
    environment: dict[str, str] = {}

    def __init__(self, folder: Path, port: int | None = None):
        self.folder = folder
        self.port = port or free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--backend-store-uri",
                self.store.format(folder=self.folder),
                "--default-artifact-root",
                str(self.folder / "artifacts"),
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--workers",
                str(self.workers),
                *self.options,
            ],
            stdout=open(self.folder / "server.log", "ab"),
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "MLFLOW_MODEL_CATALOG_URI": "",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                **self.environment,
            },
            start_new_session=True,
        )
        wait_until(self.answers, 90, "the MLflow server's answer")

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(self.uri + "/health", timeout=2) as answer:
                return answer.status == 200
        return False

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None


def client(uri: str):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def experiment_id(uri: str, name: str) -> str | None:
    found = client(uri).get_experiment_by_name(name)
    return found.experiment_id if found else None


def traces_of(uri: str, experiment: str) -> list[Any]:
    """All traces of an experiment, oldest first, with their spans."""
    found = experiment_id(uri, experiment)
    if found is None:
        return []
    result, token = [], None
    while True:
        page = client(uri).search_traces(
            locations=[found], max_results=500, page_token=token, order_by=["timestamp_ms ASC"]
        )
        result += page
        token = page.token
        if not token:
            return sorted(result, key=start_of)


def start_of(trace: Any) -> int:
    return min((span.start_time_ns for span in trace.data.spans), default=0)


_FRAME = re.compile(r'^  File "(?P<path>[^"]+)", line \d+, in .*\n(?:    .*\n)*', re.M)


def user_frames(stack_trace: str) -> str:
    """A stack trace without the tracing library's own frames; without a heading when there are no
    others."""
    left = _FRAME.sub(
        lambda m: (
            "" if "/mlflow/" in m["path"] or "/mlflow_fasttrace/" in m["path"] else m.group(0)
        ),
        stack_trace + "\n",
    )
    return left if "\n  File " in left else left.removeprefix(_HEADING)


_HEADING = "Traceback (most recent call last):\n"


_CUT_ID = re.compile(r"tr-[0-9a-f]*\.\.\.$")
_ATTACHMENT = re.compile("mlflow-attachment://[-0-9a-f]{36}")
_ADDRESS = re.compile(r"0x[0-9a-f]+")


def plain(value: Any, ids: dict[str, str]) -> Any:
    """A value without addresses, and with ids named by their place."""
    if isinstance(value, dict):
        return {key: plain(item, ids) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, ids) for item in value]
    if isinstance(value, str):
        for found, name in ids.items():
            value = value.replace(found, name)
        value = _ATTACHMENT.sub("mlflow-attachment://<id>", value)
        value = _CUT_ID.sub("tr-<cut>...", value)
        return _ADDRESS.sub("0x0", value)
    if isinstance(value, float) and value != value:
        return "NaN"
    return value


def described(trace: Any) -> dict[str, Any]:
    """All of a trace that must be equal under MLflow and under the core.

    Spans stand in the order of their start under their parent; ids are replaced by that place,
    times are left out, and of size figures only those that do not depend on times are kept.
    """
    spans = sorted(trace.data.spans, key=lambda span: (span.start_time_ns, span.span_id))
    children: dict[str | None, list[Any]] = {}
    for span in spans:
        children.setdefault(span.parent_id, []).append(span)
    place = f"/{trace.info.experiment_id}/traces/"
    ids = {
        place: "/<experiment>/traces/",
        trace.info.trace_id: "<trace>",
        trace.info.trace_id.removeprefix("tr-"): "<trace hex>",
    }

    def name_ids(parent: str | None, place: str) -> None:
        for i, span in enumerate(children.get(parent, [])):
            ids[span.span_id] = f"<span {place}{i}>"
            name_ids(span.span_id, f"{place}{i}.")

    name_ids(None, "")  # before values are read: a parent's may hold a child's id

    def tree(span: Any) -> dict[str, Any]:
        attributes = dict(sorted(span.attributes.items()))
        for key in ("mlflow.spanStartTimeNs", "mlflow.experimentId"):
            if key in attributes:
                attributes[key] = type(attributes[key]).__name__
        return {
            "name": span.name,
            "type": span.span_type,
            "inputs": plain(span.inputs, ids),
            "outputs": plain(span.outputs, ids),
            "attributes": plain(attributes, ids),
            "status": (span.status.status_code.value, span.status.description),
            "events": [
                {
                    "name": event.name,
                    "attributes": {
                        key: plain(
                            user_frames(value) if key == "exception.stacktrace" else value, ids
                        )
                        for key, value in event.attributes.items()
                    },
                }
                for event in span.events
            ],
            "links": [plain(link.to_dict(), ids) for link in span.links],
            "children": [tree(child) for child in children.get(span.span_id, [])],
        }

    info = trace.info
    metadata = dict(info.trace_metadata)
    metadata.pop("mlflow.trace.sizeBytes", None)
    for made_anew in ("mlflow.sourceRun", "mlflow.modelId"):
        if made_anew in metadata:
            metadata[made_anew] = f"<{made_anew}>"
    sizes = metadata.pop("mlflow.trace.sizeStats", None)
    return {
        "roots": [tree(root) for root in children.get(None, [])],
        "state": info.state.value,
        "tags": plain(dict(info.tags), ids),
        "metadata": plain(metadata, ids),
        "has_sizes": sizes is not None,
        "request_preview": plain(info.request_preview, ids),
        "response_preview": plain(info.response_preview, ids),
        "client_request_id": info.client_request_id,
        "assessments": sorted(
            (assessed.name, str(assessed.value), plain(assessed.span_id, ids), assessed.rationale)
            for assessed in info.assessments
        ),
    }
