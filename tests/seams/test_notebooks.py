"""A notebook shows the traces of each cell once, behind it, and they are on the server by then."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support import notebooks
from support.spools import clean_up

BEGIN = """
{imports}
import asyncio, threading, time, urllib.parse, urllib.request
mlflow.set_experiment("notebook {way}")

@mlflow.trace
def leaf(n):
    return n

@mlflow.trace
async def later(n):
    await asyncio.sleep(0.01)
    return leaf(n)
"""

#: By name: a cell's code, and how many traces it shows.
CELLS = {
    "one": ("leaf(1)", 1),
    "none": ("1 + 1", 0),
    "nested": ("with mlflow.start_span('outer'):\n    leaf(1)", 1),
    "loop": ("for n in range(3): leaf(n)", 3),
    "many": ("for n in range(30): leaf(n)", 10),
    "async": ("await later(1)", 1),
    "tasks": ("await asyncio.gather(later(1), later(2))", 2),
    "threads": (
        "threads = [threading.Thread(target=leaf, args=(n,)) for n in range(2)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()",
        2,
    ),
    "raises": ("leaf(1)\nraise ValueError('on purpose')", 1),
    "left open": ("open_span = mlflow.start_span_no_context('open')", 0),
    "ended later": ("open_span.end()", 1),
    "disabled": ("mlflow.tracing.disable_notebook_display()\nleaf(1)", 0),
    "still disabled": ("leaf(1)", 0),
    "enabled": ("mlflow.tracing.enable_notebook_display()\nleaf(1)", 1),
    "read": (
        "mlflow.flush_trace_async_logging()\ntrace = mlflow.MlflowClient().get_trace(mlflow.get_last_active_trace_id())",
        1,
    ),
}

#: Looks for each trace on the server when it is shown, and prints those that are not there.
WATCH = """
from mlflow.tracing.display import display_handler
bundle = display_handler.IPythonTraceDisplayHandler.get_mimebundle
def watched(self, traces):
    from mlflow.tracing.client import TracingClient
    for trace in traces:
        try:
            assert TracingClient().get_trace_info(trace.info.trace_id) is not None
        except Exception as error:
            print("NOT THERE", trace.info.trace_id, error)
    return bundle(self, traces)
display_handler.IPythonTraceDisplayHandler.get_mimebundle = watched
"""

WAYS = {
    "drop-in": "import mlflow_fasttrace as mlflow",
    "installed": "import mlflow, mlflow_fasttrace\nmlflow_fasttrace.install()",
    "imported before": "import mlflow\nmlflow.trace(lambda: 1)()\nmlflow.flush_trace_async_logging()\nimport mlflow_fasttrace\nmlflow_fasttrace.install()",
    "pure": "import mlflow",
}


def executed(server, way: str, folder: Path, monkeypatch) -> dict[str, list]:
    """The outputs of each cell."""
    spool = folder / "spool"
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_FASTTRACE_SPOOL_DIR", str(spool))
    begin = BEGIN.format(imports=WAYS[way], way=way)
    codes = [begin, *(["leaf(0)", WATCH] if way != "pure" else []), *(c for c, _ in CELLS.values())]
    notebook = notebooks.made_of(codes)
    try:
        notebooks.execute(notebook, folder, allow_errors=True)
    finally:
        clean_up(spool)
    behind = [cell.outputs for cell in notebook.cells]
    return dict(zip(CELLS, behind[-len(CELLS) :], strict=True))


def displays(outputs: list) -> list:
    return [o for o in outputs if o.output_type == "display_data" and "text/html" in o.data]


def shown(outputs: list) -> list[str]:
    """The ids of the traces that a cell's displays show."""
    return [
        trace_id
        for display in displays(outputs)
        for trace_id in re.findall(r"trace_id=(tr-[0-9a-f]+)", display.data["text/html"])
    ]


@pytest.mark.parametrize(
    "way",
    ["drop-in", "installed", pytest.param("imported before", marks=pytest.mark.long)],
)
def test_each_cell_shows_its_traces_once_and_they_are_there(server, tmp_path, monkeypatch, way):
    found = executed(server, way, tmp_path, monkeypatch)
    texts = [o.text for outputs in found.values() for o in outputs if o.output_type == "stream"]
    assert texts == [], texts
    errors = [o.evalue for outputs in found.values() for o in outputs if o.output_type == "error"]
    assert errors == ["on purpose"]
    counts = {name: len(set(shown(outputs))) for name, outputs in found.items()}
    assert counts == {name: count for name, (_, count) in CELLS.items()}
    for name, (_, count) in CELLS.items():
        assert len(displays(found[name])) == (1 if count else 0), name


@pytest.mark.long
def test_a_display_is_made_of_what_mlflows_is_made_of(server, tmp_path, monkeypatch):
    ours, pure = (
        executed(server, way, tmp_path / way, monkeypatch)
        for way in ("drop-in", "pure")
        if not (tmp_path / way).mkdir()
    )
    # MLflow shows a trace with a later cell, or not at all: of all cells the last one that shows one is compared.
    made_of = [
        {
            key: re.sub("trace_id=.*?&amp;version=", "", json.dumps(value))
            for key, value in displays(outputs["read"])[-1].data.items()
        }
        for outputs in (ours, pure)
    ]
    assert made_of[0].keys() == made_of[1].keys()
    assert made_of[0]["text/html"] == made_of[1]["text/html"] != ""
