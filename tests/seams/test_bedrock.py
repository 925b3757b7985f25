"""Streams of Amazon Bedrock that do not come to their end. boto3 is in .venv-integrations-more
(``make .stamps/integrations-more``), the model in tests/support/llm_stub.py."""

from __future__ import annotations

import subprocess

import pytest
from support import llm_stub
from support.processes import ROOT, TESTS
from support.texts import IMPORTS
from support.traces import traces_of
from support.waiting import wait_until

PYTHON = ROOT / ".venv-integrations-more/bin/python"
PROGRAM = TESTS / "programs/bedrock_streams.py"

#: By the call's name: what of the answer is recorded, and the span's status.
ENDED = {
    "left": ("part", "OK"),
    "closed": ("part", "OK"),
    "closed_unread": ("", "OK"),
    "kept_until_it_is_closed": ("part", "OK"),
    "broken": ("You", "ERROR"),
    "whole": ("You said 3 words: one two whole", "OK"),
}


@pytest.mark.long
@pytest.mark.parametrize("how", IMPORTS)
def test_a_stream_ends_with_what_came(server, how, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    experiment = f"streams of bedrock, {how}"
    with llm_stub.running() as stub:
        process = subprocess.run(
            [PYTHON, "-X", "dev", "-W", "ignore", PROGRAM, how, stub, experiment],
            capture_output=True,
            text=True,
        )
    assert process.returncode == 0, process.stderr
    assert "Exception ignored" not in process.stderr

    def all_spans():
        found = [trace.data.spans for trace in traces_of(server.uri, experiment)]
        return found if len(found) >= len(ENDED) else None

    ended = {}
    for (span,) in wait_until(all_spans, what="the traces"):
        call = span.inputs["messages"][0]["content"][0]["text"].split()[-1]
        text = span.outputs["output"]["message"]["content"][0]["text"]
        whole = f"You said 3 words: one two {call}"
        if ENDED[call][0] == "part" and text and text != whole and whole.startswith(text):
            text = "part"
        ended[call] = (text, span.status.status_code.value)
    assert ended == ENDED
