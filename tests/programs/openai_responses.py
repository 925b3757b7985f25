"""Calls of OpenAI's SDK whose answers the program reads by itself, or leaves early; each of a question of its own.
Run as ``openai_responses.py drop-in|installed STUB EXPERIMENT``; the SDK is in .venv-integrations."""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import sys

import httpx
import openai
import pytest
from integrations.run import WAYS

OTHERS = ("broken", "not_read", "forked", "omitted")

#: Kept until the end of the program.
kept = []


class Client:
    """Asks one question, in the SDK's ways."""

    def __init__(self, stub: str, question: str):
        options = {"base_url": f"{stub}/v1", "api_key": "stub", "max_retries": 0}
        begin = "[cut]" if question == "broken" else "one"
        messages = [{"role": "user", "content": f"{begin} two {question}"}]
        self._asked = {"model": "gpt-4o-mini", "messages": messages}
        self._completions = openai.OpenAI(**options).chat.completions
        self._async_completions = openai.AsyncOpenAI(**options).chat.completions

    def create(self, **options):
        return self._completions.create(**self._asked, **options)

    def create_raw(self, **options):
        return self._completions.with_raw_response.create(**self._asked, **options)

    def responds(self, **options):
        return self._completions.with_streaming_response.create(**self._asked, **options)

    def create_async(self, **options):
        return self._async_completions.create(**self._asked, **options)

    def responds_async(self, **options):
        return self._async_completions.with_streaming_response.create(**self._asked, **options)


def three_of(stream):
    return next(stream), next(stream), next(stream)


async def three_of_async(stream):
    return await anext(stream), await anext(stream), await anext(stream)


# ---- the whole answer ----


def whole_parsed(client):
    with client.responds() as response:
        assert (
            response.parse().choices[0].message.content == "You said 3 words: one two whole_parsed"
        )


def whole_json_twice(client):
    with client.responds() as response:
        assert response.json()["choices"]
        assert response.json()["choices"]


def whole_lines(client):
    with client.responds() as response:
        assert list(response.iter_lines())


def whole_read_and_never_closed(client):
    response = client.responds().__enter__()
    assert response.read()
    kept.append(response)


async def whole_async(client):
    async with client.responds_async() as response:
        assert (await response.parse()).choices


def whole_lines_of_a_stream(client):
    with client.responds(stream=True) as response:
        assert list(response.iter_lines())


def whole_stream_in_a_response(client):
    with client.responds(stream=True) as response:
        assert list(response.parse())


async def whole_async_stream_in_a_response(client):
    async with client.responds_async(stream=True) as response:
        assert [chunk async for chunk in await response.parse()]


def whole_stream(client):
    assert len(list(client.create(stream=True))) > 3


# ---- the first three parts of it ----


def left_closed(client):
    with client.create(stream=True) as stream:
        three_of(stream)


def left_dropped(client):
    stream = client.create(stream=True)
    for number, _chunk in enumerate(stream):
        if number == 2:
            break
    del stream
    gc.collect()


def left_at_the_end(client):
    stream = client.create(stream=True)
    three_of(stream)
    kept.append(stream)


def left_raw(client):
    stream = client.create_raw(stream=True).parse()
    three_of(stream)
    stream.close()


def left_in_a_response(client):
    with client.responds(stream=True) as response:
        three_of(response.parse())


async def left_async(client):
    async with await client.create_async(stream=True) as stream:
        await three_of_async(stream)


async def left_async_at_the_end(client):
    stream = await client.create_async(stream=True)
    await three_of_async(stream)
    kept.append(stream)


# ---- others ----


def broken(client):
    with client.responds(stream=True) as response, pytest.raises(httpx.RemoteProtocolError):
        list(response.iter_lines())


def not_read(client):
    with client.responds():
        pass


def forked(client):
    stream = client.create(stream=True)
    three_of(stream)
    if not (child := os.fork()):
        atexit._run_exitfuncs()  # where the parent's spans are none of its
        os._exit(0)
    os.waitpid(child, 0)
    assert len(list(stream)) > 1


def omitted(client):
    client.create(temperature=openai.omit, seed=openai.NOT_GIVEN, top_p=0.5)


def main(way: str, stub: str, experiment: str) -> None:
    mlflow = WAYS[way]()
    mlflow.openai.autolog()
    mlflow.set_experiment(experiment)
    for name, call in list(globals().items()):
        if name.startswith(("whole_", "left_", *OTHERS)):
            result = call(Client(stub, name))
            if result is not None:
                asyncio.run(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
