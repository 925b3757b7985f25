"""Mistral's SDK."""

from __future__ import annotations

import pytest
from mistralai.client import Mistral
from mistralai.client import errors as mistral_errors


def enable(mlflow, stub):
    mlflow.mistral.autolog()


def _request(words):
    return {"model": "mistral-small", "messages": [{"role": "user", "content": words}]}


def chat(mlflow, stub):
    answer = Mistral(api_key="stub", server_url=stub).chat.complete(**_request("Hello ☃"))
    assert answer.choices[0].message.content == "You said 2 words: Hello ☃"


async def chat_async(mlflow, stub):
    async with Mistral(api_key="stub", server_url=stub) as client:
        await client.chat.complete_async(**_request("async"))


def errors(mlflow, stub):
    with pytest.raises(mistral_errors.SDKError):
        Mistral(api_key="stub", server_url=stub).chat.complete(**_request("[status 400]"))


def nested(mlflow, stub):
    @mlflow.trace
    def main():
        with mlflow.start_span("before"):
            pass
        Mistral(api_key="stub", server_url=stub).chat.complete(**_request("inside"))

    main()
