"""OpenAI's SDK: chat completions, completions, embeddings, responses."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading

import httpx
import openai
import pydantic
import pytest

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}


class City(pydantic.BaseModel):
    name: str
    inhabitants: int
    rivers: list[str]


def enable(mlflow, stub):
    mlflow.openai.autolog()


def _client(stub, **options):
    return openai.OpenAI(base_url=f"{stub}/v1", api_key="stub", **{"max_retries": 0, **options})


def _async_client(stub):
    return openai.AsyncOpenAI(base_url=f"{stub}/v1", api_key="stub", max_retries=0)


def _asked(words):
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": words}]


def chat(mlflow, stub):
    answer = _client(stub).chat.completions.create(
        model="gpt-4o-mini", messages=_asked("Hello ☃, who are you?"), temperature=0.1, seed=3
    )
    assert answer.choices[0].message.content.startswith("You said")


async def chat_async(mlflow, stub):
    async with _async_client(stub) as client:
        await client.chat.completions.create(model="gpt-4o-mini", messages=_asked("async"))


def chat_stream(mlflow, stub):
    stream = _client(stub).chat.completions.create(
        model="gpt-4o-mini",
        messages=_asked("Tell me [slow] something"),
        stream=True,
        stream_options={"include_usage": True},
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text.startswith("You said")


async def chat_stream_async(mlflow, stub):
    async with _async_client(stub) as client:
        stream = await client.chat.completions.create(
            model="gpt-4o-mini", messages=_asked("one two three"), stream=True
        )
        assert len([chunk async for chunk in stream]) > 5


def chat_stream_helper(mlflow, stub):
    with _client(stub).chat.completions.stream(
        model="gpt-4o-mini", messages=_asked("by the helper")
    ) as stream:
        assert [event.type for event in stream][-1] == "content.done"


def tools(mlflow, stub):
    client = _client(stub)

    @mlflow.trace(span_type="TOOL")
    def add(a, b):
        return a + b

    @mlflow.trace(span_type="AGENT")
    def agent(question):
        messages = _asked(question)
        while True:
            choice = client.chat.completions.create(
                model="gpt-4o-mini", messages=messages, tools=[TOOL]
            ).choices[0]
            messages.append(choice.message)
            if choice.finish_reason == "stop":
                return choice.message.content
            for call in choice.message.tool_calls:
                result = add(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})

    assert agent("Please add 19 and 23") == "The tools say: 42"


def tools_stream(mlflow, stub):
    stream = _client(stub).chat.completions.create(
        model="gpt-4o-mini", messages=_asked("add 1 and 2"), tools=[TOOL], stream=True
    )
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "tool_calls"


def structured(mlflow, stub):
    answer = _client(stub).chat.completions.parse(
        model="gpt-4o-mini",
        messages=_asked("'Rome' has 2800000 and the 'Tiber'"),
        response_format=City,
    )
    assert answer.choices[0].message.parsed == City(
        name="Rome", inhabitants=2800000, rivers=["Tiber"]
    )


async def structured_async(mlflow, stub):
    async with _async_client(stub) as client:
        await client.chat.completions.parse(
            model="gpt-4o-mini", messages=_asked("'Ulm'"), response_format=City
        )


def raw_response(mlflow, stub):
    raw = _client(stub).chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=_asked("raw")
    )
    assert raw.parse().choices[0].message.content == "You said 1 words: raw"


def images_in_messages(mlflow, stub):
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixel}"}},
    ]
    _client(stub).chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": content}]
    )


def completions(mlflow, stub):
    client = _client(stub)
    client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once upon a time")
    stream = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="And", stream=True)
    assert len(list(stream)) > 2


def embeddings(mlflow, stub):
    client = _client(stub)
    client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    client.embeddings.create(model="text-embedding-3-small", input="three", encoding_format="float")


async def embeddings_async(mlflow, stub):
    async with _async_client(stub) as client:
        await client.embeddings.create(model="text-embedding-3-small", input="x")


def errors(mlflow, stub):
    client = _client(stub)
    for status in (400, 401, 429, 500):
        with pytest.raises(openai.APIStatusError) as raised:
            client.chat.completions.create(
                model="gpt-4o-mini", messages=_asked(f"[status {status}]")
            )
        assert raised.value.status_code == status


async def errors_async(mlflow, stub):
    async with _async_client(stub) as client:
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(model="gpt-4o-mini", input="[status 429]")


def error_that_is_tried_again(mlflow, stub):
    _client(stub, max_retries=2).chat.completions.create(
        model="gpt-4o-mini", messages=_asked("[status 429 once]")
    )


def streams_that_break(mlflow, stub):
    client = _client(stub)
    for words, error in (
        ("[break] a stream please", openai.APIError),
        ("[cut] a stream please", httpx.RemoteProtocolError),
    ):
        stream = client.chat.completions.create(
            model="gpt-4o-mini", messages=_asked(words), stream=True
        )
        with pytest.raises(error):
            list(stream)


def responses(mlflow, stub):
    answer = _client(stub).responses.create(
        model="gpt-4o-mini", instructions="Be brief.", input="Hello", metadata={"k": "v"}
    )
    assert answer.output_text == "You said 1 words: Hello"


async def responses_async(mlflow, stub):
    async with _async_client(stub) as client:
        await client.responses.create(
            model="gpt-4o-mini", input=[{"role": "user", "content": "Hello"}]
        )


def responses_stream(mlflow, stub):
    stream = _client(stub).responses.create(model="gpt-4o-mini", input="a stream", stream=True)
    assert [event.type for event in stream][-1] == "response.completed"


async def responses_stream_async(mlflow, stub):
    async with _async_client(stub) as client:
        stream = await client.responses.create(model="gpt-4o-mini", input="b", stream=True)
        assert [event.type async for event in stream][-1] == "response.completed"


def responses_tools(mlflow, stub):
    client = _client(stub)
    tool = {"type": "function", "strict": True, **TOOL["function"]}

    @mlflow.trace(span_type="AGENT")
    def agent(question):
        items = [{"role": "user", "content": question}]
        while True:
            answer = client.responses.create(model="gpt-4o-mini", input=items, tools=[tool])
            calls = [item for item in answer.output if item.type == "function_call"]
            if not calls:
                return answer.output_text
            for call in calls:
                arguments = json.loads(call.arguments)
                items += [
                    call.to_dict(),
                    {
                        "type": "function_call_output",
                        "call_id": call.call_id,
                        "output": str(arguments["a"] + arguments["b"]),
                    },
                ]

    assert agent("add 1 and 2") == "The tools say: 3"


def responses_structured(mlflow, stub):
    answer = _client(stub).responses.parse(model="gpt-4o-mini", input="'Rome' 12", text_format=City)
    assert answer.output_parsed.name == "Rome"


def nested(mlflow, stub):
    client = _client(stub)

    @mlflow.trace(span_type="CHAIN")
    def ask(words):
        with mlflow.start_span("prepare", span_type="PARSER") as span:
            span.set_inputs(words)
            messages = _asked(words)
        return client.chat.completions.create(model="gpt-4o-mini", messages=messages)

    @mlflow.trace
    def conversation():
        ask("first")
        stream = client.chat.completions.create(
            model="gpt-4o-mini", messages=_asked("second"), stream=True
        )
        for _ in stream:
            with mlflow.start_span("between chunks"):
                pass
        mlflow.update_current_trace(tags={"fruit": "apple"}, session_id="s-1", user="u-1")

    conversation()


async def parallel(mlflow, stub):
    async with _async_client(stub) as client:

        @mlflow.trace
        async def ask(number):
            await asyncio.sleep(0.05 * number)
            return await client.chat.completions.create(
                model="gpt-4o-mini", messages=_asked(f"question {number}")
            )

        @mlflow.trace
        async def main():
            await asyncio.gather(*(ask(number) for number in range(4)))

        await main()


def threads(mlflow, stub):
    client = _client(stub)

    def ask(words):
        client.chat.completions.create(model="gpt-4o-mini", messages=_asked(words))

    @mlflow.trace
    def main():
        for words in ("one", "two"):
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(ask, words))
            thread.start()
            thread.join()

    main()
    thread = threading.Thread(target=ask, args=("alone",))
    thread.start()
    thread.join()


def error_inside(mlflow, stub):
    @mlflow.trace
    def main():
        _client(stub).chat.completions.create(model="gpt-4o-mini", messages=_asked("[status 500]"))

    with pytest.raises(openai.InternalServerError):
        main()


def in_a_run(mlflow, stub):
    with mlflow.start_run():
        _client(stub).chat.completions.create(model="gpt-4o-mini", messages=_asked("in a run"))


def switched_off(mlflow, stub):
    client = _client(stub)

    def ask(words):
        client.chat.completions.create(model="gpt-4o-mini", messages=_asked(words))

    mlflow.openai.autolog(disable=True)
    ask("not recorded")
    mlflow.openai.autolog(log_traces=False)
    ask("not recorded either")
    mlflow.openai.autolog()
    mlflow.tracing.disable()
    ask("nor this")
    mlflow.tracing.enable()
    with mlflow.tracing.context(enabled=False):
        ask("nor that")
    ask("recorded")
