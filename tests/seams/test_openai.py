"""What MLflow's integration of OpenAI's SDK loses, and the core records. The SDK is in .venv-integrations
(``make .stamps/integrations``), the model in tests/support/llm_stub.py."""

from __future__ import annotations

import ast
import subprocess

import pytest
from support import llm_stub
from support.lengths import long_but
from support.processes import ROOT, TESTS
from support.texts import IMPORTS
from support.traces import traces_of
from support.waiting import wait_until

PYTHON = ROOT / ".venv-integrations/bin/python"
PROGRAM = TESTS / "programs/openai_responses.py"

OTHERS = ("broken", "not_read", "forked", "omitted")
CALLS = [
    node.name
    for node in ast.parse(PROGRAM.read_text()).body
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
]


@pytest.fixture(scope="module", params=long_but(["drop-in"], IMPORTS))
def spans(request, server):
    """By the call's name: the one span of its trace."""
    experiment = f"responses of openai, {request.param}"
    with llm_stub.running() as stub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.uri)
        process = subprocess.run(
            [PYTHON, "-X", "dev", "-W", "ignore", PROGRAM, request.param, stub, experiment],
            capture_output=True,
            text=True,
        )
    assert process.returncode == 0, process.stderr
    assert "OpenAI's SDK" not in process.stderr
    assert "Exception ignored" not in process.stderr
    wanted = sum(name.startswith(("whole_", "left_", *OTHERS)) for name in CALLS)

    def all_traces():
        found = traces_of(server.uri, experiment)
        return found if len(found) >= wanted else None

    traces = wait_until(all_traces, what="the traces")
    assert [len(trace.data.spans) for trace in traces] == [1] * wanted
    found = [trace.data.spans[0] for trace in traces]
    return {span.inputs["messages"][0]["content"].split()[-1]: span for span in found}


@pytest.mark.parametrize("call", [name for name in CALLS if name.startswith("whole_")])
def test_the_body_of_a_streaming_response_is_recorded(call, spans):
    span = spans[call]
    message = span.outputs["choices"][0]["message"]
    assert (message["role"], message["content"]) == (
        "assistant",
        f"You said 3 words: one two {call}",
    )
    assert span.status.status_code == "OK"
    assert bool(span.events) == ("stream" in call)
    assert bool(span.get_attribute("mlflow.chat.tokenUsage")) == ("stream" not in call)


@pytest.mark.parametrize("call", [name for name in CALLS if name.startswith("left_")])
def test_a_stream_that_is_left_early_ends_with_what_came(call, spans):
    span = spans[call]
    content = span.outputs["choices"][0]["message"]["content"]
    whole = f"You said 3 words: one two {call}"
    assert content
    assert whole.startswith(content)
    assert len(content) < len(whole)
    assert span.status.status_code == "OK"
    assert len(span.events) == 3


def test_a_response_that_is_not_read_has_no_outputs(spans):
    assert spans["not_read"].outputs is None
    assert spans["not_read"].status.status_code == "OK"


def test_a_response_that_breaks_off_is_an_error_with_what_came(spans):
    span = spans["broken"]
    assert span.status.status_code == "ERROR"
    assert "exception" in {event.name for event in span.events}
    assert "You" in str(span.outputs)


def test_a_forked_child_leaves_its_parents_stream_alone(spans):
    assert spans["forked"].outputs["choices"][0]["message"]["content"].endswith("forked")


def test_what_is_omitted_is_left_out(spans):
    span = spans["omitted"]
    assert span.inputs.keys() == {"model", "messages", "top_p"}
    assert {"temperature", "seed"} & span.attributes.keys() == set()
    assert span.get_attribute("top_p") == 0.5
