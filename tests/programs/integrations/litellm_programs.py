"""LiteLLM, whose own callback makes MLflow's spans."""

from __future__ import annotations

import litellm
import pytest


def enable(mlflow, stub):
    mlflow.litellm.autolog()


def _request(stub, words, **more):
    return {
        "model": "openai/gpt-4o-mini",
        "api_base": f"{stub}/v1",
        "api_key": "stub",
        "messages": [{"role": "user", "content": words}],
        "num_retries": 0,
        **more,
    }


def completion(mlflow, stub):
    answer = litellm.completion(**_request(stub, "Hello ☃"))
    assert answer.choices[0].message.content == "You said 2 words: Hello ☃"


def stream(mlflow, stub):
    assert len(list(litellm.completion(**_request(stub, "a stream", stream=True)))) > 4


def errors(mlflow, stub):
    with pytest.raises(litellm.exceptions.BadRequestError):
        litellm.completion(**_request(stub, "[status 400]"))


def nested(mlflow, stub):
    @mlflow.trace(span_type="CHAIN")
    def main():
        return litellm.completion(**_request(stub, "inside")).choices[0].message.content

    main()
