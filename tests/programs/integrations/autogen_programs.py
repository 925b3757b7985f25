"""AutoGen's AgentChat with its OpenAI client."""

from __future__ import annotations

import openai
import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel


class City(BaseModel):
    name: str
    inhabitants: int


def enable(mlflow, stub):
    mlflow.autogen.autolog()


def _client(stub):
    return OpenAIChatCompletionClient(
        model="gpt-4o-mini", base_url=f"{stub}/v1", api_key="stub", max_retries=0
    )


async def _add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def _agent(stub, **options):
    return AssistantAgent(**{"name": "helper", "model_client": _client(stub), **options})


async def create(mlflow, stub):
    answer = await _client(stub).create([UserMessage(content="Hello ☃", source="user")])
    assert answer.content == "You said 2 words: Hello ☃"


async def stream(mlflow, stub):
    """MLflow does not trace this one; what is around it stays whole."""

    @mlflow.trace
    async def main():
        stream = _client(stub).create_stream([UserMessage(content="a stream", source="user")])
        return [part async for part in stream if isinstance(part, str)]

    assert len(await main()) > 4


async def run(mlflow, stub):
    result = await _agent(stub).run(task="Hello, how are you?")
    assert result.messages[-1].content.startswith("You said")


async def run_stream(mlflow, stub):
    """MLflow does not trace this one either."""

    @mlflow.trace
    async def main():
        agent = _agent(stub, model_client_stream=True)
        return len([item async for item in agent.run_stream(task="a stream")])

    assert await main() > 4


async def tools(mlflow, stub):
    agent = _agent(stub, tools=[_add], reflect_on_tool_use=True)
    result = await agent.run(task="Please _add 19 and 23")
    assert result.messages[-1].content == "The tools say: 42"


async def structured(mlflow, stub):
    result = await _agent(stub, output_content_type=City).run(task="'Rome' has 12")
    assert result.messages[-1].content == City(name="Rome", inhabitants=12)


async def team(mlflow, stub):
    chat = RoundRobinGroupChat(
        [_agent(stub, name="first"), _agent(stub, name="second")],
        termination_condition=MaxMessageTermination(3),
    )
    assert len((await chat.run(task="Talk to each other")).messages) == 3


async def errors(mlflow, stub):
    for words in ("[status 400]", "[status 500]"):
        with pytest.raises(openai.APIStatusError):
            await _agent(stub).run(task=words)


async def error_in_a_tool(mlflow, stub):
    async def breaks(word: str) -> str:
        """Always fails."""
        raise ValueError("in a tool")

    await _agent(stub, tools=[breaks]).run(task="breaks 'it'")


async def nested(mlflow, stub):
    async def look_up(word: str) -> str:
        """Looks a word up."""
        with mlflow.start_span("dictionary", span_type="RETRIEVER") as span:
            span.set_outputs("a word")
        return "a word"

    @mlflow.trace(span_type="CHAIN")
    async def main():
        await _agent(stub, tools=[look_up]).run(task="look_up 'fox'")
        mlflow.update_current_trace(tags={"fruit": "apple"})
        await _agent(stub).run(task="and again")

    await main()


async def switched_off(mlflow, stub):
    mlflow.autogen.autolog(disable=True)
    await _agent(stub).run(task="not recorded")
    mlflow.autogen.autolog()
    await _agent(stub).run(task="recorded")
