"""Semantic Kernel, whose spans are OpenTelemetry's own."""

from __future__ import annotations

import openai
import pytest
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion
from semantic_kernel.exceptions import KernelInvokeException
from semantic_kernel.functions import KernelArguments


def enable(mlflow, stub):
    mlflow.semantic_kernel.autolog()


def _kernel(stub):
    kernel = Kernel()
    client = openai.AsyncOpenAI(base_url=f"{stub}/v1", api_key="stub", max_retries=0)
    kernel.add_service(
        OpenAIChatCompletion(ai_model_id="gpt-4o-mini", service_id="s", async_client=client)
    )
    return kernel


async def prompt(mlflow, stub):
    answer = await _kernel(stub).invoke_prompt(
        "Say something of {{$thing}}",
        function_name="say",
        arguments=KernelArguments(thing="snow"),
    )
    assert str(answer).startswith("You said 4 words")


async def nested(mlflow, stub):
    @mlflow.trace(span_type="CHAIN")
    async def main():
        with mlflow.start_span("before"):
            pass
        return str(await _kernel(stub).invoke_prompt("inside", function_name="say"))

    await main()


async def errors(mlflow, stub):
    with pytest.raises(KernelInvokeException):
        await _kernel(stub).invoke_prompt("[status 400]", function_name="say")
