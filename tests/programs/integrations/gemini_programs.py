"""Google's SDK for Gemini, which reads the annotations of functions: no postponed ones here."""

import functools

import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types


def enable(mlflow, stub):
    mlflow.gemini.autolog()


@functools.cache  # it closes its connections when nobody holds it
def _client(stub):
    return genai.Client(api_key="stub", http_options=types.HttpOptions(base_url=stub))


def _add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def generate(mlflow, stub):
    config = types.GenerateContentConfig(system_instruction="Be brief.", temperature=0.5)
    answer = _client(stub).models.generate_content(
        model="gemini-2.5-flash", contents="Hello ☃", config=config
    )
    assert answer.text == "You said 2 words: Hello ☃"


async def generate_async(mlflow, stub):
    await _client(stub).aio.models.generate_content(model="gemini-2.5-flash", contents="async")


def stream(mlflow, stub):
    """MLflow does not trace this one; what is around it stays whole."""

    @mlflow.trace
    def main():
        stream = _client(stub).models.generate_content_stream(
            model="gemini-2.5-flash", contents="a stream"
        )
        return "".join(part.text for part in stream)

    assert main() == "You said 2 words: a stream"


def tools(mlflow, stub):
    """The SDK itself calls the function and asks again."""
    answer = _client(stub).models.generate_content(
        model="gemini-2.5-flash",
        contents="Please _add 19 and 23",
        config=types.GenerateContentConfig(tools=[_add]),
    )
    assert answer.text == 'The tools say: {"result": 42}'


def chat(mlflow, stub):
    chat = _client(stub).chats.create(model="gemini-2.5-flash")
    chat.send_message("first")
    chat.send_message("second")


def embed(mlflow, stub):
    _client(stub).models.embed_content(model="gemini-embedding-001", contents="one")


def count_tokens(mlflow, stub):
    _client(stub).models.count_tokens(model="gemini-2.5-flash", contents="one two")


def errors(mlflow, stub):
    for status in (400, 500):
        with pytest.raises(genai_errors.APIError):
            _client(stub).models.generate_content(
                model="gemini-2.5-flash", contents=f"[status {status}]"
            )


def nested(mlflow, stub):
    @mlflow.trace(span_type="AGENT")
    def main():
        with mlflow.start_span("before"):
            pass
        return _client(stub).models.generate_content(
            model="gemini-2.5-flash", contents="inside", config={"temperature": 0}
        )

    main()
