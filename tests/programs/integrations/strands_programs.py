"""Strands Agents, whose spans are OpenTelemetry's own."""

from __future__ import annotations

import openai
import pytest
from strands import Agent, tool
from strands.models.openai import OpenAIModel


def enable(mlflow, stub):
    mlflow.strands.autolog()


@tool(name="add")
def _add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def _agent(stub, **options):
    model = OpenAIModel(
        client_args={"base_url": f"{stub}/v1", "api_key": "stub", "max_retries": 0},
        model_id="gpt-4o-mini",
    )
    return Agent(model=model, callback_handler=None, **options)


def run(mlflow, stub):
    _agent(stub, system_prompt="Be brief.")("Hello ☃")


async def run_async(mlflow, stub):
    await _agent(stub).invoke_async("async")


def tools(mlflow, stub):
    result = _agent(stub, tools=[_add])("Please add 19 and 23")
    assert "42" in str(result)


def errors(mlflow, stub):
    with pytest.raises(openai.BadRequestError):
        _agent(stub)("[status 400]")


def nested(mlflow, stub):
    @mlflow.trace(span_type="CHAIN")
    def main():
        with mlflow.start_span("before"):
            pass
        return str(_agent(stub)("inside"))

    main()
