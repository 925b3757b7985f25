"""Agno, by OpenInference's instrumentation on MLflow's tracer."""

from __future__ import annotations

from agno.agent import Agent
from agno.models.openai import OpenAIChat


def enable(mlflow, stub):
    """Nothing yet: the tracer that Agno is given does not outlive the next ``set_experiment``."""


def _enable_again(mlflow):
    mlflow.agno.autolog(disable=True)
    mlflow.agno.autolog()


def _add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def _agent(stub, **options):
    model = OpenAIChat(id="gpt-4o-mini", base_url=f"{stub}/v1", api_key="stub", max_retries=0)
    return Agent(name="helper", model=model, telemetry=False, **options)


def run(mlflow, stub):
    _enable_again(mlflow)
    assert _agent(stub).run("Hello ☃").content == "You said 2 words: Hello ☃"


async def run_async(mlflow, stub):
    _enable_again(mlflow)
    await _agent(stub).arun("async")


def tools(mlflow, stub):
    _enable_again(mlflow)
    assert "42" in _agent(stub, tools=[_add]).run("Please _add 19 and 23").content


def nested(mlflow, stub):
    _enable_again(mlflow)

    @mlflow.trace(span_type="CHAIN")
    def main():
        with mlflow.start_span("before"):
            pass
        return _agent(stub).run("inside").content

    main()
