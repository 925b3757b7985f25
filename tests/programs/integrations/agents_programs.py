"""OpenAI's Agents SDK."""

from __future__ import annotations

import agents
import openai
import pydantic
import pytest


def enable(mlflow, stub):
    mlflow.openai.autolog()
    agents.set_default_openai_client(
        openai.AsyncOpenAI(base_url=f"{stub}/v1", api_key="stub", max_retries=0),
        use_for_tracing=False,
    )


class City(pydantic.BaseModel):
    name: str
    inhabitants: int


@agents.function_tool
def _add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@agents.function_tool(failure_error_function=None)
def _fails(reason: str) -> str:
    """Always fails."""
    raise ValueError(reason)


def _agent(**options):
    return agents.Agent(**{"name": "helper", "instructions": "Be brief.", "model": "m", **options})


def run_sync(mlflow, stub):
    assert agents.Runner.run_sync(_agent(), "Hello").final_output == "You said 1 words: Hello"


async def run(mlflow, stub):
    await agents.Runner.run(_agent(), "Hello, how are you?")


async def tools(mlflow, stub):
    result = await agents.Runner.run(_agent(tools=[_add]), "Please _add 19 and 23")
    assert result.final_output == "The tools say: 42"


async def streamed(mlflow, stub):
    result = agents.Runner.run_streamed(_agent(tools=[_add]), "Please _add 1 and 2")
    events = [event.type async for event in result.stream_events()]
    assert "run_item_stream_event" in events
    assert result.final_output == "The tools say: 3"


async def chat_completions(mlflow, stub):
    model = agents.OpenAIChatCompletionsModel(
        model="gpt-4o-mini",
        openai_client=openai.AsyncOpenAI(base_url=f"{stub}/v1", api_key="stub", max_retries=0),
    )
    await agents.Runner.run(_agent(model=model, tools=[_add]), "Please _add 1 and 2")


async def handoff(mlflow, stub):
    billing = _agent(name="billing", handoff_description="Knows bills.")
    triage = _agent(name="triage", handoffs=[billing])
    result = await agents.Runner.run(triage, "transfer_to_billing please")
    assert result.last_agent is billing


async def structured(mlflow, stub):
    result = await agents.Runner.run(_agent(output_type=City), "'Rome' has 12")
    assert result.final_output == City(name="Rome", inhabitants=12)


async def guarded(mlflow, stub):
    @agents.input_guardrail
    async def no_shouting(context, agent, said):
        return agents.GuardrailFunctionOutput(
            output_info={"said": said}, tripwire_triggered=said.isupper()
        )

    agent = _agent(input_guardrails=[no_shouting])
    await agents.Runner.run(agent, "quiet")
    with pytest.raises(agents.InputGuardrailTripwireTriggered):
        await agents.Runner.run(agent, "LOUD")


async def errors(mlflow, stub):
    for words, agent, kind in (
        ("[status 500]", _agent(), openai.InternalServerError),
        ("_fails 'badly'", _agent(tools=[_fails]), agents.UserError),
    ):
        with pytest.raises(kind):
            await agents.Runner.run(agent, words)


async def error_in_a_stream(mlflow, stub):
    result = agents.Runner.run_streamed(_agent(), "[status 500]")
    with pytest.raises(openai.InternalServerError):
        async for _ in result.stream_events():
            pass


async def nested(mlflow, stub):
    @agents.function_tool
    def look_up(word: str) -> str:
        """Looks a word up."""
        with mlflow.start_span("dictionary", span_type="RETRIEVER") as span:
            span.set_inputs(word)
            span.set_outputs("a word")
        return "a word"

    @mlflow.trace(span_type="CHAIN")
    async def main():
        first = await agents.Runner.run(_agent(tools=[look_up]), "look_up 'fox'")
        return (await agents.Runner.run(_agent(), first.final_output)).final_output

    await main()


async def workflow(mlflow, stub):
    """Several runs in one trace of the SDK's own."""
    with agents.trace("a workflow", metadata={"k": "v"}):
        await agents.Runner.run(_agent(), "first")
        with agents.custom_span("between", {"a": 1}):
            pass
        await agents.Runner.run(_agent(), "second")
