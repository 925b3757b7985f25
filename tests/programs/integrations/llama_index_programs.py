"""LlamaIndex with its OpenAI models: chats, indexes, chat engines, agents, workflows."""

from __future__ import annotations

import openai
import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.schema import TextNode
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step
from llama_index.llms.openai import OpenAI
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: str
    inhabitants: int


class Counted(Event):
    number: int


class Counter(Workflow):
    """Counts up to three."""

    @step
    async def begin(self, event: StartEvent) -> Counted:
        return Counted(number=event.number)

    @step
    async def count(self, context: Context, event: Counted) -> Counted | StopEvent:
        if event.number < 3:
            return Counted(number=event.number + 1)
        return StopEvent(result=f"counted to {event.number}")


def enable(mlflow, stub):
    mlflow.llama_index.autolog()


def _model(stub):
    return OpenAI(model="gpt-4o-mini", api_base=f"{stub}/v1", api_key="stub", max_retries=0)


def _said(words):
    return [ChatMessage(role="system", content="Be brief."), ChatMessage(content=words)]


def _add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def _index():
    nodes = [
        TextNode(text=f"about {word}", id_=word, metadata={"word": word})
        for word in ("snow", "rain", "fog")
    ]
    return VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))


def chat(mlflow, stub):
    assert str(_model(stub).chat(_said("Hello ☃"))).startswith("assistant: You said")


async def chat_async(mlflow, stub):
    await _model(stub).achat(_said("async"))


def complete(mlflow, stub):
    _model(stub).complete("Once upon a time")


def chat_stream(mlflow, stub):
    assert len(list(_model(stub).stream_chat(_said("one two [slow] three")))) > 4


async def chat_stream_async(mlflow, stub):
    stream = await _model(stub).astream_chat(_said("one two three"))
    assert len([part async for part in stream]) > 4


def complete_stream(mlflow, stub):
    assert len(list(_model(stub).stream_complete("one two three"))) > 4


def tools(mlflow, stub):
    model, tool = _model(stub), FunctionTool.from_defaults(fn=_add, name="add")
    answer = model.chat_with_tools([tool], user_msg="Please add 19 and 23")
    (call,) = model.get_tool_calls_from_response(answer)
    assert tool.call(**call.tool_kwargs).raw_output == 42


def structured(mlflow, stub):
    answer = _model(stub).as_structured_llm(City).complete("'Rome' has 12")
    assert answer.raw == City(name="Rome", inhabitants=12)


def query(mlflow, stub):
    _index().as_query_engine(llm=_model(stub), similarity_top_k=2).query("about snow")


async def query_async(mlflow, stub):
    await _index().as_query_engine(llm=_model(stub), similarity_top_k=1).aquery("about snow")


def query_stream(mlflow, stub):
    engine = _index().as_query_engine(llm=_model(stub), similarity_top_k=1, streaming=True)
    assert "".join(engine.query("about snow").response_gen).startswith("You said")


def retrieve(mlflow, stub):
    assert len(_index().as_retriever(similarity_top_k=2).retrieve("snow")) == 2


def chat_engine(mlflow, stub):
    engine = SimpleChatEngine.from_defaults(llm=_model(stub))
    engine.chat("first")
    assert "".join(engine.stream_chat("second").response_gen).startswith("You said")


async def agent(mlflow, stub):
    agent = FunctionAgent(
        name="adder",
        tools=[FunctionTool.from_defaults(fn=_add, name="add")],
        llm=_model(stub),
        system_prompt="Be brief.",
        streaming=False,
    )
    assert str(await agent.run("Please add 19 and 23")) == "The tools say: 42"


async def workflow(mlflow, stub):
    assert await Counter().run(number=1) == "counted to 3"


def errors(mlflow, stub):
    for words in ("[status 400]", "[status 500]"):
        with pytest.raises(openai.APIError):
            _model(stub).chat(_said(words))


def error_in_a_stream(mlflow, stub):
    with pytest.raises(openai.APIError):
        list(_model(stub).stream_chat(_said("[break] a stream")))


def nested(mlflow, stub):
    @mlflow.trace(span_type="AGENT")
    def main():
        with mlflow.start_span("before"):
            pass
        mlflow.update_current_trace(tags={"fruit": "apple"})
        _model(stub).chat(_said("inside"))
        return str(_index().as_query_engine(llm=_model(stub)).query("about snow"))

    main()


def switched_off(mlflow, stub):
    mlflow.llama_index.autolog(disable=True)
    _model(stub).chat(_said("not recorded"))
    mlflow.llama_index.autolog()
    _model(stub).chat(_said("recorded"))
