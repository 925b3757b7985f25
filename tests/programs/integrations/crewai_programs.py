"""CrewAI: crews, tasks, tools, flows, with a model that speaks OpenAI's wire format."""

from __future__ import annotations

import os

import pytest

# Neither its telemetry nor its own tracing is to look for the network.
os.environ["CREWAI_DISABLE_TELEMETRY"] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"
os.environ["CREWAI_TESTING"] = "true"

from crewai import LLM, Agent, Crew, Flow, Process, Task
from crewai.flow.flow import listen, start
from crewai.tools import tool


def enable(mlflow, stub):
    mlflow.crewai.autolog()


def _model(stub):
    return LLM(model="openai/gpt-4o-mini", base_url=f"{stub}/v1", api_key="stub", max_retries=0)


@tool("_add")
def _add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def _agent(stub, *tools):
    return Agent(
        role="Reporter",
        goal="Report on the weather",
        backstory="You have seen much snow.",
        llm=_model(stub),
        tools=list(tools),
        max_iter=3,
        max_retry_limit=0,
    )


def _task(agent, words):
    return Task(description=words, expected_output="A sentence", agent=agent)


def _crew(stub, *words, tools=()):
    agent = _agent(stub, *tools)
    tasks = [_task(agent, each) for each in words]
    return Crew(agents=[agent], tasks=tasks, process=Process.sequential)


def crew(mlflow, stub):
    _crew(stub, "Say what the weather is ☃").kickoff()


def two_tasks(mlflow, stub):
    _crew(stub, "Say what snow is", "Say what rain is").kickoff()


def inputs(mlflow, stub):
    crew = _crew(stub, "Say what {thing} is")
    crew.kickoff(inputs={"thing": "fog"})
    crew.kickoff_for_each(inputs=[{"thing": "hail"}, {"thing": "sleet"}])


def tools(mlflow, stub):
    _crew(stub, "Please _add 19 and 23", tools=[_add]).kickoff()


def errors(mlflow, stub):
    with pytest.raises(Exception, match="400"):
        _crew(stub, "[status 400]").kickoff()


def flow(mlflow, stub):
    class Weather(Flow):
        @start()
        def ask(self):
            return _model(stub).call("What is snow?")

        @listen(ask)
        def shout(self, said):
            return said.upper()

    Weather().kickoff()


def nested(mlflow, stub):
    @mlflow.trace(span_type="CHAIN")
    def main():
        with mlflow.start_span("inner"):
            return str(_crew(stub, "Say what dew is").kickoff())

    main()
