"""The example runs, and its traces are what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.traces import traces_of

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = EXAMPLES / "rag_pipeline.py"


def test_the_pipeline_runs_and_records_its_traces(server, own_spool):
    result = subprocess.run(
        [sys.executable, str(EXAMPLE), "Who set the lion free?", "Why are the grapes sour?"],
        capture_output=True,
        text=True,
        env={
            **{
                k: v for k, v in os.environ.items() if k not in ("OPENAI_BASE_URL", "MLFLOW_RUN_ID")
            },
            "MLFLOW_TRACKING_URI": server.uri,
        },
    )
    assert result.returncode == 0, result.stderr
    assert "RAG Pipeline [AGENT]" in result.stdout
    assert "    chat [CHAT_MODEL]" in result.stdout
    traces = traces_of(server.uri, "RAG demo")
    assert [trace.info.request_preview for trace in traces] == [
        "Who set the lion free?",
        "Why are the grapes sour?",
    ]
    for trace in traces:
        assert trace.info.token_usage["total_tokens"] > 0
        spans = {span.name: span for span in trace.data.spans}
        root = spans["RAG Pipeline"]
        assert {name: (span.span_type, span.parent_id) for name, span in spans.items()} == {
            "RAG Pipeline": ("AGENT", None),
            "retrieve_documents": ("RETRIEVER", root.span_id),
            "build_prompt": ("CHAIN", root.span_id),
            "chat": ("CHAT_MODEL", root.span_id),
        }
    assert "grapes are sour" in traces[1].data.spans[0].outputs


def test_the_first_program_of_the_documents_records_its_trace(server, own_spool):
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / "first_trace.py")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "MLFLOW_TRACKING_URI": server.uri},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "Tea is a drink.\n"
    trace = traces_of(server.uri, "First traces")[-1]  # a page has the same program
    spans = {span.name: span for span in trace.data.spans}
    assert spans["answer"].inputs == {"question": "What is tea?"}
    assert spans["look_up"].parent_id == spans["answer"].span_id
