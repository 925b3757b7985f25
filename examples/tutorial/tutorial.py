"""What the chapters share: where they record, the models that they ask, MLflow's server, and a trace as a tree.

Nothing of this is needed in a program of your own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1]
sys.path.append(str(EXAMPLES))

import loopback_llm  # noqa: E402

DATABASE = EXAMPLES.parent / "tutorial.db"
WIDTH = 100  # of a printed line, in characters


def tracking_uri() -> str:
    """Where the chapters record: MLFLOW_TRACKING_URI, or ``tutorial.db`` in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DATABASE}"


def use_loopback_models() -> None:
    """Lets the clients of OpenAI and Anthropic ask a little server on loopback, unless the environment says
    where their models are."""
    base_url = loopback_llm.start()
    for sdk, url in (("OPENAI", base_url), ("ANTHROPIC", base_url.removesuffix("/v1"))):
        if not os.environ.get(f"{sdk}_BASE_URL"):
            os.environ[f"{sdk}_BASE_URL"] = url
            os.environ[f"{sdk}_API_KEY"] = "not needed"


def start_server(database: str) -> tuple[subprocess.Popen, str]:
    """Starts MLflow's server over a database.

    Args:
        database: As a tracking URI.

    Returns:
        Its process, which the caller ends, and its address.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database]
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    while not _answers(url):
        if server.poll() is not None:
            raise SystemExit(f"The server has ended with {server.returncode}.")
        time.sleep(0.2)
    return server, url


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def show(trace, *fields: str) -> None:
    """Prints a trace as a tree: of every span the name, the type, the duration and the status.

    Args:
        trace: The trace, as MLflow reads it back.
        *fields: What is printed below each span: "inputs", "outputs", "attributes" (the program's own),
            "events".
    """
    children: dict[str | None, list] = {}
    for span in sorted(trace.data.spans, key=lambda span: span.start_time_ns):
        children.setdefault(span.parent_id, []).append(span)

    def line(text: str) -> None:
        print(text if len(text) <= WIDTH else text[: WIDTH - 3] + "...")

    def show_span(span, indent: str) -> None:
        milliseconds = (span.end_time_ns - span.start_time_ns) / 1e6
        head = f"{indent}{span.name} [{span.span_type}]"
        line(f"{head:<50} {milliseconds:9.3f} ms  {span.status.status_code.value}")
        for field in fields:
            value = getattr(span, field)
            if field == "attributes":
                value = {k: v for k, v in value.items() if not k.startswith("mlflow.")}
            elif field == "events":
                value = [event.name for event in value]
            if value not in (None, {}, []):
                line(f"{indent}    {field}: {value}")
        for child in children.get(span.span_id, []):
            show_span(child, indent + "  ")

    for root in children.get(None, []):
        show_span(root, "  ")
