"""Streams: generators, synchronous and asynchronous, and reducers of what they yield."""

from __future__ import annotations

import asyncio

from programs import Programs
from programs.documentation import last, openai_traced, tree

PROGRAMS = Programs()
program = PROGRAMS.add


def events_of(span):
    return [[event.name, event.attributes] for event in span.events]


@program
def a_stream_is_a_list(mlflow):
    @mlflow.trace
    def numbers():
        yield from range(5)

    list(numbers())
    span = last(mlflow).data.spans[0]
    return [span.outputs, events_of(span)]


@program
def a_stream_is_reduced(mlflow):
    @mlflow.trace(output_reducer=lambda letters: "-".join(letters))
    def letters():
        yield from "maple"

    list(letters())
    span = last(mlflow).data.spans[0]
    return [span.outputs, events_of(span)]


@program
def a_reducer_that_fails(mlflow):
    @mlflow.trace(output_reducer=lambda items: items[0]["missing"])
    def dictionaries():
        yield {"here": 1}
        yield {"here": 2}

    found = list(dictionaries())
    span = last(mlflow).data.spans[0]
    return [found, span.outputs, span.status.status_code]


@program
def chunks_of_a_model_become_a_message(mlflow):
    import openai
    from openai.types.chat import ChatCompletion, ChatCompletionMessage
    from openai.types.chat.chat_completion import Choice

    def together(chunks):
        if not chunks:
            return None
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        text = "".join(delta.content or "" for delta in deltas)
        message = ChatCompletionMessage(role="assistant", content=text)
        return ChatCompletion(
            id=chunks[0].id,
            choices=[Choice(index=0, message=message, finish_reason="stop")],
            created=chunks[0].created,
            model=chunks[0].model,
            object="chat.completion",
        )

    with openai.OpenAI() as client:

        @mlflow.trace(output_reducer=together)
        def predict(messages):
            yield from client.chat.completions.create(
                model="gpt-4o-mini", messages=messages, stream=True
            )

        count = sum(1 for _ in predict([{"role": "user", "content": "Name a slow river"}]))
    span = last(mlflow).data.spans[0]
    return [count, span.outputs["choices"][0]["message"]["content"], len(span.events)]


@program
def a_stream_of_the_client_itself(mlflow):
    with openai_traced(mlflow) as client:

        @mlflow.trace
        def tell(words):
            stream = client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": words}],
                stream=True,
                stream_options={"include_usage": True},
            )
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

        text = "".join(tell("What is under the ice?"))
    return [text, tree(last(mlflow)), last(mlflow).info.token_usage]


@program
def a_stream_starts_when_it_is_read(mlflow):
    before = mlflow.get_last_active_trace_id()

    @mlflow.trace
    def lazy():
        yield mlflow.get_current_active_span().name

    stream = lazy()
    unread = mlflow.get_last_active_trace_id() == before
    first = next(stream)
    outside = mlflow.get_current_active_span()
    rest = list(stream)
    return [unread, first, outside, rest, last(mlflow).data.spans[0].outputs]


@program
def a_stream_that_breaks(mlflow):
    @mlflow.trace
    def lines():
        yield "one"
        raise OSError("the cable is cut")

    got = []
    try:
        for line in lines():
            got.append(line)
    except OSError as error:
        got.append(str(error))
    span = last(mlflow).data.spans[0]
    return [got, span.status.status_code, [event.name for event in span.events]]


@program
def an_asynchronous_stream(mlflow):
    @mlflow.trace(output_reducer=sum)
    async def ticks(n):
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    @mlflow.trace
    async def total(n):
        return [tick async for tick in ticks(n)]

    result = asyncio.run(total(4))
    trace = last(mlflow)
    (stream,) = trace.search_spans(name="ticks")
    return [result, tree(trace), stream.outputs]


@program
def spans_inside_and_around_of_a_stream(mlflow):
    @mlflow.trace
    def clean(word):
        return word.strip()

    @mlflow.trace(span_type="PARSER")
    def words(text):
        for word in text.split(","):
            yield clean(word)

    @mlflow.trace(span_type="CHAIN")
    def longest(text):
        best = ""
        for word in words(text):
            with mlflow.start_span("compare") as span:
                span.set_inputs([best, word])
                best = max(best, word, key=len)
                span.set_outputs(best)
        return best

    return [longest("fir, spruce, yew"), tree(last(mlflow))]


@program
def an_empty_stream(mlflow):
    @mlflow.trace
    def nothing():
        yield from ()

    @mlflow.trace(output_reducer=len)
    def none():
        yield from ()

    list(nothing())
    first = last(mlflow).data.spans[0].outputs
    list(none())
    return [first, last(mlflow).data.spans[0].outputs]


@program
def a_method_that_streams(mlflow):
    class Reader:
        @mlflow.trace(name="read", span_type="TOOL")
        def lines(self, text):
            yield from text.splitlines()

        @classmethod
        @mlflow.trace
        def of_class(cls, n):
            yield from range(n)

    results = [list(Reader().lines("a\nb")), list(Reader.of_class(2))]
    return [results, last(mlflow).data.spans[0].inputs]


@program
def a_returned_iterator_is_no_generator(mlflow):
    @mlflow.trace
    def pairs():
        return zip("ab", (1, 2), strict=True)

    result = list(pairs())
    return [result, str(last(mlflow).data.spans[0].outputs).split(" at ")[0]]
