"""smolagents."""

from __future__ import annotations

import pytest
from smolagents import OpenAIServerModel, ToolCallingAgent, tool
from smolagents.utils import AgentGenerationError


def enable(mlflow, stub):
    mlflow.smolagents.autolog()


def _agent(stub, *tools, **options):
    model = OpenAIServerModel(
        model_id="gpt-4o-mini",
        api_base=f"{stub}/v1",
        api_key="stub",
        client_kwargs={"max_retries": 0},
    )
    return ToolCallingAgent(
        tools=list(tools), model=model, max_steps=3, verbosity_level=0, **options
    )


@tool
def _add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
        a: One.
        b: The other.
    """
    return a + b


def run(mlflow, stub):
    _agent(stub, _add).run("Please _add 19 and 23")


def errors(mlflow, stub):
    with pytest.raises(AgentGenerationError):
        _agent(stub).run("[status 400]")


def nested(mlflow, stub):
    @mlflow.trace(span_type="CHAIN")
    def main():
        return _agent(stub, _add).run("Please _add 1 and 2")

    main()
