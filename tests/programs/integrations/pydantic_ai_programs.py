"""Pydantic AI."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    name: str
    inhabitants: int


def enable(mlflow, stub):
    mlflow.pydantic_ai.autolog()


def _agent(stub, **options):
    provider = OpenAIProvider(base_url=f"{stub}/v1", api_key="stub")
    return Agent(OpenAIChatModel("gpt-4o-mini", provider=provider), retries=0, **options)


def _add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def run_sync(mlflow, stub):
    assert _agent(stub).run_sync("Hello ☃").output == "You said 2 words: Hello ☃"


async def run(mlflow, stub):
    await _agent(stub, instructions="Be brief.").run("async")


async def tools(mlflow, stub):
    result = await _agent(stub, tools=[_add]).run("Please _add 19 and 23")
    assert result.output == "The tools say: 42"


async def structured(mlflow, stub):
    result = await _agent(stub, output_type=City).run("'Rome' has 12")
    assert result.output == City(name="Rome", inhabitants=12)


async def stream(mlflow, stub):
    async with _agent(stub).run_stream("a stream") as result:
        assert [text async for text in result.stream_text()]


def stream_sync(mlflow, stub):
    result = _agent(stub).run_stream_sync("a stream")
    assert list(result.stream_text())


async def errors(mlflow, stub):
    with pytest.raises(ModelHTTPError):
        await _agent(stub).run("[status 400]")


async def nested(mlflow, stub):
    @mlflow.trace(span_type="CHAIN")
    async def main():
        with mlflow.start_span("before"):
            pass
        return (await _agent(stub).run("inside")).output

    await main()
