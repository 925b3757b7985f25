"""Spans of the program in what LangChain and LangGraph run by asyncio: they nest where they belong, and nothing of that is
left in the context of who called. The real packages are in .venv-integrations (``make .stamps/integrations``)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.texts import IMPORTS
from support.traces import names_of, traces_of
from support.waiting import wait_until

PYTHON = Path(__file__).parents[2] / ".venv-integrations/bin/python"

PROGRAM = """
import asyncio, operator
from typing import Annotated, TypedDict
{imports}
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph

class State(TypedDict, total=False):
    words: Annotated[list[str], operator.add]

@tool
async def weigh(thing: str) -> str:
    "Weighs a thing."
    with mlflow.start_span("weighing"):
        return "1 kg"

async def shorten(text):
    with mlflow.start_span("shortening"):
        await asyncio.sleep(0)
        return text[:3]

async def meanwhile(state):
    with mlflow.start_span("by asyncio"):
        await asyncio.gather(weigh.ainvoke("snow"), RunnableLambda(shorten).ainvoke("a text"))
    return {{"words": ["one"]}}

def in_a_thread(state):
    with mlflow.start_span("in a thread"):
        return {{"words": ["two"]}}

def graph():
    made = StateGraph(State)
    made.add_node("first", meanwhile)
    made.add_node("second", in_a_thread)
    made.add_edge(START, "first")
    made.add_edge("first", "second")
    made.add_edge("second", END)
    return made.compile()

def current():
    span = mlflow.get_current_active_span()
    return None if span is None else span.name

async def several():
    with mlflow.start_span("request"):
        results = await asyncio.gather(*(graph().ainvoke({{"words": []}}) for _ in range(3)))
        assert [result["words"] for result in results] == [["one", "two"]] * 3
        assert current() == "request"

async def left_early():
    stream = graph().astream({{"words": []}})
    async for _ in stream:
        assert current() is None
        with mlflow.start_span("of the caller"):
            pass
        break
    assert current() is None
    with mlflow.start_span("afterwards"):
        pass
    await stream.aclose()
    assert current() is None

mlflow.set_experiment({experiment!r})
mlflow.langchain.autolog()
asyncio.run(several())
asyncio.run(left_early())
"""


@pytest.mark.long
@pytest.mark.parametrize("how", IMPORTS)
def test_spans_nest_in_what_asyncio_runs(server, own_spool, tmp_path, monkeypatch, how):
    experiment = f"nested {how}"
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(imports=IMPORTS[how], experiment=experiment))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    result = subprocess.run([PYTHON, script], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    traces = wait_until(lambda: arrived(server.uri, experiment), 60, "the traces")
    of_a_graph = [
        ("LangGraph", "first"),
        ("LangGraph", "second"),
        ("by asyncio", "shorten"),
        ("by asyncio", "weigh"),
        ("first", "by asyncio"),
        ("second", "in a thread"),
        ("shorten", "shortening"),
        ("weigh", "weighing"),
    ]
    assert traces["request"] == sorted(
        [("", "request"), *[("request", "LangGraph"), *of_a_graph] * 3]
    )
    assert traces["of the caller"] == [("", "of the caller")]
    assert traces["afterwards"] == [("", "afterwards")]


def arrived(uri: str, experiment: str) -> dict[str, list[tuple[str, str]]]:
    """The traces by the names of their roots, once all of the three are there that must be: of each the spans, each behind
    its parent's name."""
    found = {}
    for trace in traces_of(uri, experiment):
        pairs = names_of(trace)
        found[next((name for parent, name in pairs if not parent), "")] = pairs
    return found if {"request", "of the caller", "afterwards"} <= found.keys() else {}
