"""LangChain and LangGraph with MLflow's tracer in the task that runs a node, not in a thread: the tracer then finds spans
of the program that are current, and looks upwards from them for its own, and they find its."""

from __future__ import annotations

import langchain_programs
import langgraph_programs


def enable(mlflow, stub):
    mlflow.langchain.autolog(run_tracer_inline=True)


def loop(mlflow, stub):
    langgraph_programs.loop(mlflow, stub)


async def loop_async(mlflow, stub):
    await langgraph_programs.loop_async(mlflow, stub)


async def loop_stream_async(mlflow, stub):
    await langgraph_programs.loop_stream_async(mlflow, stub)


async def tools_async(mlflow, stub):
    await langgraph_programs.tools_async(mlflow, stub)


async def async_nodes(mlflow, stub):
    await langgraph_programs.async_nodes(mlflow, stub)


def subgraph(mlflow, stub):
    langgraph_programs.subgraph(mlflow, stub)


async def nested_async(mlflow, stub):
    await langchain_programs.nested_async(mlflow, stub)
