"""Groq's SDK."""

from __future__ import annotations

import groq
import pytest


def enable(mlflow, stub):
    mlflow.groq.autolog()


def _ask(stub, words, **options):
    client = groq.Groq(base_url=stub, api_key="stub", max_retries=0)
    return client.chat.completions.create(
        model="llama-3.3-70b", messages=[{"role": "user", "content": words}], **options
    )


def chat(mlflow, stub):
    assert _ask(stub, "Hello ☃").choices[0].message.content == "You said 2 words: Hello ☃"


def tools(mlflow, stub):
    function = {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    }
    answer = _ask(stub, "add 1", tools=[{"type": "function", "function": function}])
    assert answer.choices[0].finish_reason == "tool_calls"


def errors(mlflow, stub):
    with pytest.raises(groq.BadRequestError):
        _ask(stub, "[status 400]")


def nested(mlflow, stub):
    @mlflow.trace
    def main():
        return _ask(stub, "inside").choices[0].message.content

    main()
