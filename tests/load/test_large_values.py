"""Values beyond 1 GiB, which no record holds: each costs itself, and a line in the log. These take up to 3 GB of
memory."""

from __future__ import annotations

import pytest
from support.processes import module_path

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
