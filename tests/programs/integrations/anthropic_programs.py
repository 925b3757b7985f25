"""Anthropic's SDK."""

from __future__ import annotations

import asyncio

import anthropic
import pytest

TOOL = {
    "name": "add",
    "description": "Adds two numbers.",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}
MODEL = "claude-sonnet-4-5"


def enable(mlflow, stub):
    mlflow.anthropic.autolog()


def _client(stub, **options):
    return anthropic.Anthropic(base_url=stub, api_key="stub", **{"max_retries": 0, **options})


def _async_client(stub):
    return anthropic.AsyncAnthropic(base_url=stub, api_key="stub", max_retries=0)


def _request(words, **more):
    return {
        "model": MODEL,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": words}],
        **more,
    }


def create(mlflow, stub):
    answer = _client(stub).messages.create(**_request("Hello ☃", system="Be brief."))
    assert answer.content[0].text.startswith("You said")


async def create_async(mlflow, stub):
    async with _async_client(stub) as client:
        await client.messages.create(**_request("async", stop_sequences=["stop"]))


def stream(mlflow, stub):
    events = list(_client(stub).messages.create(**_request("a stream"), stream=True))
    assert events[-1].type == "message_stop"


async def stream_async(mlflow, stub):
    async with _async_client(stub) as client:
        events = await client.messages.create(**_request("a stream"), stream=True)
        assert [event.type async for event in events][-1] == "message_stop"


def stream_helper(mlflow, stub):
    """MLflow does not trace this one; what is around it stays whole."""

    @mlflow.trace
    def main():
        with _client(stub).messages.stream(**_request("by the helper")) as events:
            return "".join(events.text_stream)

    assert main() == "You said 3 words: by the helper"


def tools(mlflow, stub):
    client = _client(stub)

    @mlflow.trace(span_type="TOOL")
    def add(a, b):
        return a + b

    @mlflow.trace(span_type="AGENT")
    def agent(question):
        messages = [{"role": "user", "content": question}]
        while True:
            answer = client.messages.create(
                model=MODEL, max_tokens=100, messages=messages, tools=[TOOL]
            )
            if answer.stop_reason == "end_turn":
                return answer.content[0].text
            results = [
                {"type": "tool_result", "tool_use_id": use.id, "content": str(add(**use.input))}
                for use in answer.content
                if use.type == "tool_use"
            ]
            messages += [
                {"role": "assistant", "content": answer.content},
                {"role": "user", "content": results},
            ]

    assert agent("Please add 19 and 23") == "The tools say: 42"


def raw_response(mlflow, stub):
    raw = _client(stub).messages.with_raw_response.create(**_request("raw"))
    assert raw.parse().content[0].text == "You said 1 words: raw"


def count_tokens(mlflow, stub):
    """MLflow does not trace this one; what is around it stays whole."""

    @mlflow.trace
    def main():
        messages = _request("a b")["messages"]
        return _client(stub).messages.count_tokens(model=MODEL, messages=messages).input_tokens

    assert main() == 2


def errors(mlflow, stub):
    client = _client(stub)
    for status in (400, 401, 429, 500):
        with pytest.raises(anthropic.APIStatusError) as raised:
            client.messages.create(**_request(f"[status {status}]"))
        assert raised.value.status_code == status


async def errors_async(mlflow, stub):
    async with _async_client(stub) as client:
        with pytest.raises(anthropic.APIStatusError):
            await client.messages.create(**_request("[status 529]"))


def error_that_is_tried_again(mlflow, stub):
    _client(stub, max_retries=2).messages.create(**_request("[status 429 once]"))


def stream_that_breaks(mlflow, stub):
    with pytest.raises(anthropic.APIError):
        list(_client(stub).messages.create(**_request("[break] a stream"), stream=True))


async def nested(mlflow, stub):
    async with _async_client(stub) as client:

        @mlflow.trace
        async def ask(number):
            await asyncio.sleep(0.05 * number)
            with mlflow.start_span("prepare"):
                request = _request(f"question {number}")
            return await client.messages.create(**request)

        @mlflow.trace(span_type="AGENT")
        async def main():
            await asyncio.gather(*(ask(number) for number in range(3)))
            mlflow.update_current_trace(tags={"fruit": "apple"})

        await main()


def switched_off(mlflow, stub):
    client = _client(stub)
    mlflow.anthropic.autolog(disable=True)
    client.messages.create(**_request("not recorded"))
    mlflow.anthropic.autolog()
    client.messages.create(**_request("recorded"))
