"""Large values: what one costs its program, and the sender, beside itself. Values beyond 1 GiB, which no record
holds: each costs itself, and a line in the log; these take up to 3 GB of memory."""

from __future__ import annotations

import json

import pytest
from support.processes import module_path, run_module
from support.quick_server import QuickServer

#: What one large value may add to the memory of a program or sender, in sizes of the value.
MOST = 2.2

#: Where a server listens, to which requests go as they are, and one to which they go compressed.
HOSTS = {"plain": "127.0.0.1", "compressed": "127.0.0.2"}


def costs(kind: str, way: str, megabytes: int, **server) -> dict[str, float]:
    """What a program and its sender need for a value, in sizes of the value."""
    with QuickServer(**server) as server:
        result = run_module(
            "programs.large_value", kind, str(megabytes), way, MLFLOW_TRACKING_URI=server.uri
        )
    figures = json.loads(result.stdout)
    assert server.sizes[-1] >= figures["size"], "it has not arrived"
    size = figures.pop("size")
    return {process: grown / size for process, grown in figures.items()}


@pytest.mark.parametrize(
    ("kind", "way", "host"),
    [
        ("str", "call", "plain"),
        ("bytes", "outputs", "compressed"),
        ("dict", "attribute", "compressed"),
        ("umlauts", "inputs", "plain"),
    ],
)
def test_a_large_value_is_there_twice_at_most(own_spool, kind, way, host):
    found = costs(kind, way, 48, host=HOSTS[host])
    assert max(found.values()) <= MOST, found


@pytest.mark.long
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("way", ["call", "inputs", "outputs", "attribute"])
@pytest.mark.parametrize("kind", ["str", "repetitive", "umlauts", "bytes", "list", "dict"])
def test_a_value_of_200_mb_is_there_twice_at_most(own_spool, kind, way, host):
    found = costs(kind, way, 200, host=HOSTS[host])
    assert max(found.values()) <= MOST, found


PROGRAM = """
import logging, resource, tempfile
from pathlib import Path
import mlflow_fasttrace as mlflow
from support.records import Recorded

class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())

def resident_megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

class Event:
    name, timestamp = "large", 1

lines = []
logging.getLogger("mlflow_fasttrace").addHandler(Lines())
text = "x" * (600 << 20)
Event.attributes = {"values": [text, text]}
with tempfile.TemporaryDirectory() as folder:
    recorded = Recorded(Path(folder))
    with mlflow.start_span("span") as span:
        span.set_inputs({"before": 1})
        span.set_attribute("before", 2)
        SET
        assert len(lines) == 1, lines
        assert "larger than 1 GiB" in lines[0], lines
        span.set_attribute("after", 3)
        LEAVE
    (record,) = recorded.spans()
    attributes = record.attributes
    assert record.name == "span"
    assert record.inputs == {"before": 1} and attributes["before"] == 2, str(attributes)[:300]
    assert attributes["after"] == 3 and "large" not in attributes and record.events == []
    del text, span, Event.attributes
    with mlflow.start_span("later"):
        pass
    assert [record.name for record in recorded.spans()] == ["later"]
    assert resident_megabytes() < 300, resident_megabytes()
"""

#: What is set that has no room, and what makes the rest of the span small again.
WAYS = {
    "inputs": ("span.set_inputs([text, text])", ""),
    "outputs": ("span.set_outputs([text, text])", ""),
    "attribute": ("span.set_attribute('large', [text, text])", ""),
    "attributes": ("span.set_attributes({'large': [text, text]})", ""),
    "event": ("span.add_event(Event)", ""),
    "all values together": (
        "span.set_outputs(text); span.set_attribute('large', text)",
        "span.set_outputs(None)",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_a_value_beyond_1_gib_is_left_out_and_said_so(run_program, way):
    setting, leaving = WAYS[way]
    code = PROGRAM.replace("SET", setting, 1).replace("LEAVE", leaving, 1)
    run_program(code, PYTHONPATH=module_path(), MLFLOW_FASTTRACE_SENDER="none").succeeds()
