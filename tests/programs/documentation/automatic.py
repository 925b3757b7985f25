"""Automatic tracing, and together with manual tracing."""

from __future__ import annotations

import json

from programs import Programs
from programs.documentation import last, of, openai_traced, raised_by, tree

PROGRAMS = Programs()
program = PROGRAMS.add


@program
def one_call_of_a_client(mlflow):
    with openai_traced(mlflow) as client:
        answer = client.chat.completions.create(
            model="o4-mini",
            messages=[
                {"role": "system", "content": "You forecast the weather."},
                {"role": "user", "content": "Will it rain in Lisbon?"},
            ],
        )
        print(answer.choices[0].message.content)
    trace = last(mlflow)
    return [tree(trace), trace.data.spans[0].inputs["model"], trace.info.request_preview]


@program
def one_response_of_a_client(mlflow):
    with openai_traced(mlflow) as client:
        response = client.responses.create(model="gpt-4o-mini", input="Good morning")
        print(response.output_text)
    return tree(last(mlflow))


@program
def functions_around_a_call(mlflow):
    @mlflow.trace
    def build(question):
        return [
            {"role": "system", "content": "Be helpful."},
            {"role": "user", "content": question},
        ]

    @mlflow.trace
    def parse(response):
        return response.choices[0].message.content

    @mlflow.trace(span_type=mlflow.entities.SpanType.CHAIN)
    def run(client, question):
        response = client.chat.completions.create(
            model="gpt-4o-mini", max_tokens=100, messages=build(question)
        )
        return parse(response)

    with openai_traced(mlflow) as client:
        text = run(client, "What is a fjord?")
    trace = last(mlflow)
    return [text, tree(trace), sorted(trace.data.spans[0].inputs)]


@program
def two_frameworks_in_a_trace(mlflow):
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    mlflow.langchain.autolog()
    with openai_traced(mlflow) as client:

        @mlflow.trace(span_type=mlflow.entities.SpanType.CHAIN)
        def workflow(query):
            analysis = client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[
                    {"role": "system", "content": "Name the topics."},
                    {"role": "user", "content": query},
                ],
            )
            topics = analysis.choices[0].message.content
            prompt = ChatPromptTemplate.from_template("Topics: {topics}. Answer: {query}")
            said = AIMessage("Because of the moon.", id="message 1")
            model = GenericFakeChatModel(messages=iter([said]))
            return (prompt | model | StrOutputParser()).invoke({"topics": topics, "query": query})

        text = workflow("Why are there tides?")
    mlflow.langchain.autolog(disable=True)
    return [text, tree(last(mlflow))]


@program
def tokens_and_cost_of_a_trace(mlflow):
    with openai_traced(mlflow) as client:

        @mlflow.trace
        def two_calls():
            for words in ("one two three", "four"):
                client.chat.completions.create(
                    model="gpt-4o-mini", messages=[{"role": "user", "content": words}]
                )

        two_calls()
    trace = last(mlflow)
    print("Total:", json.dumps(trace.info.token_usage, sort_keys=True))
    for span in sorted(trace.data.spans, key=lambda span: span.start_time_ns):
        print(span.name, span.get_attribute("mlflow.chat.tokenUsage"), span.model_name)
    return sorted(trace.info.cost or ())


@program
def a_client_that_fails(mlflow):
    with openai_traced(mlflow) as client:
        said = raised_by(
            lambda: client.with_options(max_retries=0).chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": "[status 429] please"}]
            )
        ).partition(":")[0]
    trace = last(mlflow)
    return [said, tree(trace), [event.name for event in trace.data.spans[0].events]]


@program
def tools_of_a_client(mlflow):
    tool = {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    }

    @mlflow.trace(span_type=mlflow.entities.SpanType.TOOL)
    def add(a, b):
        return a + b

    @mlflow.trace(span_type=mlflow.entities.SpanType.AGENT)
    def agent(client, question):
        messages = [{"role": "user", "content": question}]
        answer = client.chat.completions.create(
            model="gpt-4o-mini", messages=messages, tools=[tool]
        )
        message = answer.choices[0].message
        for call in message.tool_calls or ():
            result = add(**json.loads(call.function.arguments))
            messages += [
                message.model_dump(exclude_none=True),
                {"role": "tool", "tool_call_id": call.id, "content": str(result)},
            ]
        answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages)
        return answer.choices[0].message.content

    with openai_traced(mlflow) as client:
        text = agent(client, "Please add 3 and 4")
    return [text, tree(last(mlflow)), last(mlflow).data.spans[1].get_attribute("mlflow.chat.tools")]


@program
def automatic_tracing_is_switched_off(mlflow):
    import openai

    tracing = of(mlflow, "tracing")

    def ask(client):
        client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}]
        )
        return mlflow.get_last_active_trace_id()

    results = []
    with openai.OpenAI() as client:
        before = mlflow.get_last_active_trace_id()
        mlflow.openai.autolog()
        first = ask(client)
        results.append(first != before)
        tracing.disable()
        results.append(ask(client) == first)
        tracing.enable()
        second = ask(client)
        results.append(second != first)
        mlflow.openai.autolog(disable=True)
        results.append(ask(client) == second)
    return results


@program
def embeddings_of_a_client(mlflow):
    with openai_traced(mlflow) as client:

        @mlflow.trace(span_type="RETRIEVER")
        def search(words):
            found = client.embeddings.create(model="text-embedding-3-small", input=words)
            return len(found.data[0].embedding)

        search("soft stone")
    return tree(last(mlflow))


@program
def metadata_of_a_clients_trace(mlflow):
    with openai_traced(mlflow) as client:
        with mlflow.start_span("request") as span:
            client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello there"}]
            )
            mlflow.update_current_trace(
                tags={"conversation": "c-1", "turns": 1}, user="u-4", session_id="s-4"
            )
            span.set_outputs("answered")
    trace = last(mlflow)
    return [trace.info.tags["conversation"], trace.info.trace_metadata["mlflow.trace.user"]]
