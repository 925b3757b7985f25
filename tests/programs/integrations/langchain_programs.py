"""LangChain: models, chains, tools, agents, retrievers."""

from __future__ import annotations

import openai
import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: str
    inhabitants: int


@tool("add")
def _add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@tool("fails")
def _fails(reason: str) -> str:
    """Always fails."""
    raise ValueError(reason)


def enable(mlflow, stub):
    mlflow.langchain.autolog()


def _model(stub, **options):
    return ChatOpenAI(
        model="gpt-4o-mini", base_url=f"{stub}/v1", api_key="stub", max_retries=0, **options
    )


def _chain(stub):
    prompt = ChatPromptTemplate.from_messages(
        [("system", "You are {role}."), ("user", "Say something of {thing}.")]
    )
    return prompt | _model(stub) | StrOutputParser()


THING = {"role": "a poet", "thing": "snow"}


def invoke(mlflow, stub):
    assert _model(stub).invoke("Hello ☃").content.startswith("You said")


async def invoke_async(mlflow, stub):
    await _model(stub).ainvoke([("system", "Be brief."), ("user", "async")])


def stream(mlflow, stub):
    assert len(list(_model(stub, stream_usage=True).stream("one two [slow] three"))) > 4


async def stream_async(mlflow, stub):
    assert len([chunk async for chunk in _model(stub).astream("one two three")]) > 4


def chain(mlflow, stub):
    assert _chain(stub).invoke(THING) == "You said 4 words: Say something of snow."


async def chain_async(mlflow, stub):
    await _chain(stub).ainvoke(THING)


def chain_stream(mlflow, stub):
    assert "".join(_chain(stub).stream(THING)).startswith("You said")


async def chain_stream_async(mlflow, stub):
    assert len([part async for part in _chain(stub).astream(THING)]) > 4


def batch(mlflow, stub):
    things = [{**THING, "thing": word} for word in ("snow", "rain", "fog")]
    assert len(_chain(stub).batch(things, config={"max_concurrency": 1})) == 3


async def batch_async(mlflow, stub):
    things = [{**THING, "thing": word} for word in ("snow", "rain", "fog")]
    assert len(await _chain(stub).abatch(things)) == 3


def parallel(mlflow, stub):
    both = RunnableParallel(answer=_chain(stub), said=RunnablePassthrough())
    assert both.invoke(THING)["said"] == THING


def tools(mlflow, stub):
    message = _model(stub).bind_tools([_add]).invoke("Please add 19 and 23")
    assert _add.invoke(message.tool_calls[0]).content == "42"


def structured(mlflow, stub):
    for method in ("function_calling", "json_schema"):
        city = _model(stub).with_structured_output(City, method=method).invoke("'Rome' has 12")
        assert city == City(name="Rome", inhabitants=12)


def agent(mlflow, stub):
    result = create_agent(_model(stub), [_add]).invoke(
        {"messages": [("user", "Please add 19 and 23")]}
    )
    assert result["messages"][-1].content == "The tools say: 42"


async def agent_async(mlflow, stub):
    await create_agent(_model(stub), [_add], name="adder").ainvoke(
        {"messages": [("user", "Please add 1 and 2")]}
    )


def agent_stream(mlflow, stub):
    agent = create_agent(_model(stub), [_add])
    steps = list(agent.stream({"messages": [("user", "add 1 and 2")]}, stream_mode="updates"))
    assert [next(iter(step)) for step in steps] == ["model", "tools", "model"]


def retrieval(mlflow, stub):
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents(
        [Document(f"about {word}", metadata={"word": word}, id=word) for word in ("snow", "rain")]
    )
    chain = (
        {"thing": store.as_retriever(search_kwargs={"k": 1}), "role": RunnablePassthrough()}
        | ChatPromptTemplate.from_template("{role}: {thing}")
        | _model(stub)
    )
    chain.invoke("about snow")


def errors(mlflow, stub):
    def breaks(value):
        raise KeyError(value)

    for runnable, value, error in (
        (_model(stub), "[status 429]", openai.RateLimitError),
        (_chain(stub), {**THING, "thing": "[status 500]"}, openai.InternalServerError),
        (_fails, {"reason": "badly"}, ValueError),
        (RunnableLambda(breaks) | _model(stub), "x", KeyError),
    ):
        with pytest.raises(error):
            runnable.invoke(value)


async def error_in_a_stream(mlflow, stub):
    with pytest.raises(openai.APIError):
        async for _ in _chain(stub).astream({**THING, "thing": "[break]"}):
            pass


def fallbacks(mlflow, stub):
    broken = RunnableLambda(lambda _: 1 / 0, name="broken")
    chain = broken.with_fallbacks([_model(stub)])
    assert chain.invoke("Hello").content == "You said 1 words: Hello"


def retries(mlflow, stub):
    tries = []

    def sometimes(value):
        tries.append(value)
        if len(tries) < 2:
            raise ValueError("not yet")
        return value

    again = RunnableLambda(sometimes).with_retry(
        stop_after_attempt=3, exponential_jitter_params={"initial": 0.01, "max": 0.01}
    )
    assert again.invoke("x") == "x"


def nested(mlflow, stub):
    """Spans of MLflow around a chain, and inside of its steps."""

    @mlflow.trace(span_type="PARSER")
    def shorten(text):
        with mlflow.start_span("cut") as span:
            span.set_outputs(text[:10])
        return text[:10]

    @tool
    def think(subject: str) -> str:
        """Thinks of a subject."""
        with mlflow.start_span("thinking"):
            return _model(stub).invoke(subject).content

    @mlflow.trace(span_type="AGENT")
    def main():
        (_chain(stub) | RunnableLambda(shorten)).invoke(THING)
        mlflow.update_current_trace(tags={"fruit": "apple"})
        return think.invoke("snow")

    main()


async def nested_async(mlflow, stub):
    @mlflow.trace
    async def shorten(text):
        return text[:10]

    @mlflow.trace
    async def main():
        return await (_chain(stub) | RunnableLambda(shorten)).ainvoke(THING)

    await main()


def metadata(mlflow, stub):
    _chain(stub).invoke(
        THING,
        config={"metadata": {"thread_id": "t-1", "k": 2}, "tags": ["blue"], "run_name": "poem"},
    )


def with_openai_underneath(mlflow, stub):
    mlflow.openai.autolog()
    try:
        _chain(stub).invoke(THING)
        list(_model(stub).stream("a stream"))
    finally:
        mlflow.openai.autolog(disable=True)


def switched_off(mlflow, stub):
    mlflow.langchain.autolog(disable=True)
    _model(stub).invoke("not recorded")
    mlflow.langchain.autolog()
    _model(stub).invoke("recorded")
