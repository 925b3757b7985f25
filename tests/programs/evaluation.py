"""Programs for ``mlflow.genai.evaluate``: functions that are traced, in part, or not at all."""

from __future__ import annotations

import asyncio
import importlib
import os

from programs import Programs

PROGRAMS = Programs()
program = PROGRAMS.add

DATA = [
    {"inputs": {"question": question}, "expectations": {"expected_response": question.upper()}}
    for question in ("one", "two", "three")
]


def evaluate(mlflow, predict_fn=None, data=DATA):
    genai = importlib.import_module(f"{mlflow.__name__}.genai")
    scorers = importlib.import_module(f"{mlflow.__name__}.genai.scorers")

    @scorers.scorer
    def is_short(outputs):
        return len(str(outputs)) < 4

    @scorers.scorer
    def spans(trace):
        return len(trace.data.spans)

    genai.evaluate(data=data, predict_fn=predict_fn, scorers=[is_short, spans])


@program
def evaluated_untraced(mlflow):
    evaluate(mlflow, lambda question: question.upper())


@program
def evaluated_traced(mlflow):
    @mlflow.trace
    def answer(question):
        return question.upper()

    evaluate(mlflow, answer)


@program
def evaluated_half_traced(mlflow):
    @mlflow.trace(span_type="TOOL")
    def look_up(question):
        return question.upper()

    evaluate(mlflow, lambda question: look_up(question))


@program
def evaluated_in_scopes(mlflow):
    def answer(question):
        with mlflow.start_span("scope") as span:
            span.set_inputs(question)
            with mlflow.start_span("inner"):
                return question.upper()

    evaluate(mlflow, answer)


@program
def evaluated_by_hand(mlflow):
    def answer(question):
        span = mlflow.start_span_no_context("by hand", inputs=question)
        span.end(outputs=question)
        return question

    evaluate(mlflow, answer)


@program
def evaluated_stream(mlflow):
    @mlflow.trace
    def items(question):
        yield from question

    evaluate(mlflow, lambda question: "".join(items(question)))


@program
def evaluated_async(mlflow):
    @mlflow.trace
    async def answer(question):
        await asyncio.sleep(0)
        return question.upper()

    evaluate(mlflow, answer)


@program
def evaluated_async_untraced(mlflow):
    async def answer(question):
        await asyncio.sleep(0)
        return question.upper()

    evaluate(mlflow, answer)


@program
def evaluated_conditionally(mlflow):
    @mlflow.trace
    def look_up(question):
        return question.upper()

    # The first question, which MLflow tries, is answered without a span.
    evaluate(mlflow, lambda question: question if question == "one" else look_up(question))


@program
def evaluated_fails(mlflow):
    @mlflow.trace
    def answer(question):
        if question == "two":
            raise ValueError("no answer")
        return question

    evaluate(mlflow, answer)


@program
def evaluated_answers(mlflow):
    evaluate(mlflow, data=[{**row, "outputs": "given"} for row in DATA])


@program
def evaluated_traces(mlflow):
    @mlflow.trace
    def answer(question):
        return question.upper()

    for row in DATA:
        answer(**row["inputs"])
    mlflow.flush_trace_async_logging()
    evaluate(mlflow, data=mlflow.search_traces(return_type="pandas"))


@program
def evaluated_dataset(mlflow):
    datasets = importlib.import_module(f"{mlflow.__name__}.genai.datasets")
    prefix = os.environ["PROGRAM_PREFIX"]
    dataset = datasets.create_dataset(name=f"{prefix} questions", experiment_id=[])
    dataset.merge_records(DATA)

    @mlflow.trace
    def answer(question):
        return question.upper()

    evaluate(mlflow, answer, data=dataset)
