"""The example's traces in MLflow's UI: the list, and an open trace."""

from __future__ import annotations

import pytest
from support.example import run_example
from support.traces import experiment_id, traces_of

QUESTION = "Why did the fox say that the grapes are sour?"


@pytest.fixture(scope="module")
def example(ui, tmp_path_factory):
    """The experiment's id, and the traces of the example that the core has recorded there, by their previews."""
    folder = tmp_path_factory.mktemp("example") / "copy"
    run_example("mlflow_fasttrace", ui.uri, "Questions about fables", folder)
    traces = traces_of(ui.uri, "Questions about fables")
    return experiment_id(ui.uri, "Questions about fables"), {
        trace.info.request_preview: trace for trace in traces
    }


def test_the_examples_traces_are_listed_and_one_opens(ui, example, picture):
    experiment, traces = example
    rows = ui.traces(experiment, traces.values(), all_columns=False).rows()
    assert {row["Input"] for row in rows.values()} == set(traces)
    for trace_id, row in rows.items():
        assert "ago" in row["Time"]
        assert row["State"] == "OK"
        assert row["Tags"] == "example: rag"
        assert int(row["Tokens"]) > 100, trace_id
    trace = traces[QUESTION]
    assert "grapes are sour" in rows[trace.info.trace_id]["Output"]
    picture("traces")

    panel = ui.trace(experiment, trace)
    said = panel.says()
    assert [(span["depth"], span["node"][0]) for span in said["spans"]] == [
        (0, "RAG Pipeline"),
        (1, "retrieve_documents"),
        (1, "build_prompt"),
        (1, "chat"),
    ]
    assert len({span["icon"] for span in said["spans"]}) == 4
    root, retriever, _, chat = said["spans"]
    assert QUESTION in root["tabs"]["Inputs / Outputs"]
    assert "fables.txt" in retriever["tabs"]["Attributes"]
    assert chat["head"][1] == "gpt-4o-mini"
    assert {"System", "User", "Assistant"} < set(chat["tabs"]["Inputs / Outputs"].split("\n"))

    panel.select("retrieve_documents", "Inputs / Outputs")
    panel.wait_for_text("The Fox and the Grapes")
    picture("trace")
    panel.select("chat", "Inputs / Outputs")
    panel.wait_for_text("Answer from the context only")
    picture("chat")
    assert ui.complaints() == []
