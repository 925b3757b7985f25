"""Haystack, whose spans are OpenTelemetry's own."""

from __future__ import annotations

import openai
import pytest
from haystack import Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.core.errors import PipelineRuntimeError
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret


def enable(mlflow, stub):
    mlflow.haystack.autolog()


def _pipeline(stub):
    pipeline = Pipeline()
    template = [ChatMessage.from_user("Say something of {{thing}}")]
    pipeline.add_component("prompt", ChatPromptBuilder(template=template))
    pipeline.add_component(
        "model",
        OpenAIChatGenerator(
            api_base_url=f"{stub}/v1",
            api_key=Secret.from_token("stub"),
            model="gpt-4o-mini",
            max_retries=0,
        ),
    )
    pipeline.connect("prompt.prompt", "model.messages")
    return pipeline


def run(mlflow, stub):
    result = _pipeline(stub).run({"prompt": {"thing": "snow ☃"}})
    assert result["model"]["replies"][0].text.startswith("You said 5 words")


def errors(mlflow, stub):
    with pytest.raises((PipelineRuntimeError, openai.BadRequestError)):
        _pipeline(stub).run({"prompt": {"thing": "[status 400]"}})


def nested(mlflow, stub):
    @mlflow.trace(span_type="CHAIN")
    def main():
        with mlflow.start_span("before"):
            pass
        return _pipeline(stub).run({"prompt": {"thing": "snow"}})["model"]["replies"][0].text

    main()
