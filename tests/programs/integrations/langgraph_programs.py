"""LangGraph: graphs of functions and models."""

from __future__ import annotations

import operator
from typing import Annotated, TypedDict

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Send, interrupt


class State(TypedDict, total=False):
    number: int
    words: Annotated[list[str], operator.add]


@tool("add")
def _add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def enable(mlflow, stub):
    mlflow.langchain.autolog()


def _model(stub):
    return ChatOpenAI(model="gpt-4o-mini", base_url=f"{stub}/v1", api_key="stub", max_retries=0)


def _counter(mlflow, **options):
    """Counts up to three; MLflow's spans inside of a node."""

    @mlflow.trace(span_type="TOOL")
    def increase(number):
        return number + 1

    def count(state: State):
        with mlflow.start_span("counting"):
            number = increase(state["number"])
        return {"number": number, "words": [str(number)]}

    graph = StateGraph(State)
    graph.add_node("count", count)
    graph.add_edge(START, "count")
    graph.add_conditional_edges(
        "count", lambda state: "count" if state["number"] < 3 else END, ["count", END]
    )
    return graph.compile(**options)


def _chatbot(stub, **options):
    model = _model(stub).bind_tools([_add])
    graph = StateGraph(MessagesState)
    graph.add_node("chat", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([_add]))
    graph.add_edge(START, "chat")
    graph.add_conditional_edges("chat", tools_condition)
    graph.add_edge("tools", "chat")
    return graph.compile(**options)


def loop(mlflow, stub):
    assert _counter(mlflow).invoke({"number": 0})["words"] == ["1", "2", "3"]


async def loop_async(mlflow, stub):
    assert (await _counter(mlflow).ainvoke({"number": 1}))["words"] == ["2", "3"]


def loop_stream(mlflow, stub):
    assert len(list(_counter(mlflow).stream({"number": 0}))) == 3


async def loop_stream_async(mlflow, stub):
    graph = _counter(mlflow)
    assert len([step async for step in graph.astream({"number": 0}, stream_mode="values")]) == 4


def tools(mlflow, stub):
    result = _chatbot(stub).invoke({"messages": [("user", "Please add 19 and 23")]})
    assert result["messages"][-1].content == "The tools say: 42"


async def tools_async(mlflow, stub):
    await _chatbot(stub).ainvoke({"messages": [("user", "Please add 1 and 2")]})


async def async_nodes(mlflow, stub):
    model = _model(stub)

    @mlflow.trace(span_type="PARSER")
    async def shorten(text):
        return text[:10]

    async def chat(state: State):
        answer = await model.ainvoke("Hello")
        return {"words": [await shorten(answer.content)]}

    graph = StateGraph(State)
    graph.add_node("chat", chat)
    graph.add_edge(START, "chat")
    await graph.compile().ainvoke({"number": 0})


def sessions(mlflow, stub):
    graph = _chatbot(stub, checkpointer=InMemorySaver())
    for words in ("first", "second"):
        graph.invoke({"messages": [("user", words)]}, config={"configurable": {"thread_id": "t-1"}})


def interrupted(mlflow, stub):
    def ask(state: State):
        return {"words": [interrupt("really?")]}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    compiled = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t-2"}}
    compiled.invoke({"number": 0}, config=config)
    assert compiled.invoke(Command(resume="yes"), config=config)["words"] == ["yes"]


def fan_out(mlflow, stub):
    def work(state):
        return {"words": [f"did {state['number']}"]}

    graph = StateGraph(State)
    graph.add_node("work", work)
    graph.add_conditional_edges(
        START, lambda _: [Send("work", {"number": n}) for n in range(3)], ["work"]
    )
    assert graph.compile().invoke({"number": 0})["words"] == ["did 0", "did 1", "did 2"]


def subgraph(mlflow, stub):
    graph = StateGraph(State)
    graph.add_node("inner", _counter(mlflow))
    graph.add_edge(START, "inner")
    graph.compile(name="outer").invoke({"number": 1})


def error(mlflow, stub):
    def breaks(state: State):
        raise ValueError("in a node")

    graph = StateGraph(State)
    graph.add_node("breaks", breaks)
    graph.add_edge(START, "breaks")
    with pytest.raises(ValueError):
        graph.compile().invoke({"number": 0})


def nested(mlflow, stub):
    @mlflow.trace(span_type="AGENT")
    def main():
        _counter(mlflow).invoke({"number": 1})
        _chatbot(stub).invoke({"messages": [("user", "add 1 and 2")]})

    main()
