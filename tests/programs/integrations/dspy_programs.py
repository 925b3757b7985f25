"""DSPy: predictions, modules, ReAct, evaluation."""

from __future__ import annotations

import dspy
import pytest


def enable(mlflow, stub):
    mlflow.dspy.autolog()
    dspy.configure(
        lm=dspy.LM(
            "openai/gpt-4o-mini", api_base=f"{stub}/v1", api_key="stub", cache=False, num_retries=0
        )
    )


class Brief(dspy.Module):
    """Two predictions, one after the other."""

    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("question -> answer")
        self.shorten = dspy.ChainOfThought("question -> summary: str")

    def forward(self, question):
        return self.shorten(question=self.answer(question=question).answer)


def _look_up(word: str) -> str:
    """Looks a word up."""
    return f"{word} is a word"


def _examples():
    return [
        dspy.Example(question=f"question {n}", answer=f"answer {n}").with_inputs("question")
        for n in range(3)
    ]


def predict(mlflow, stub):
    answer = dspy.Predict("question -> answer")(question="Who are you?")
    assert answer.answer == "answer of: Who are you?"


async def predict_async(mlflow, stub):
    await dspy.Predict("question -> answer").acall(question="async")


def chain_of_thought(mlflow, stub):
    dspy.ChainOfThought("question -> answer")(question="Why?")


def module(mlflow, stub):
    Brief()(question="Who ☃ are you?")


def react(mlflow, stub):
    agent = dspy.ReAct("question -> answer", tools=[dspy.Tool(_look_up, name="look_up")])
    agent(question="What is a 'fox'?")


def react_with_an_error(mlflow, stub):
    def breaks(word: str) -> str:
        """Always fails."""
        raise ValueError("in a tool")

    dspy.ReAct("question -> answer", tools=[breaks])(question="What is a 'fox'?")


def typed(mlflow, stub):
    dspy.Predict("question -> answer: str, sure: str")(question="Really?")


def streamed(mlflow, stub):
    program = dspy.streamify(dspy.Predict("question -> answer"), async_streaming=False)
    assert isinstance(list(program(question="a stream"))[-1], dspy.Prediction)


def errors(mlflow, stub):
    for words in ("[status 400]", "[status 500]"):
        with pytest.raises(dspy.utils.exceptions.LMProviderError):
            dspy.Predict("question -> answer")(question=words)


def nested(mlflow, stub):
    @mlflow.trace(span_type="AGENT")
    def main():
        with mlflow.start_span("before"):
            pass
        mlflow.update_current_trace(tags={"fruit": "apple"})
        return Brief()(question="inside").summary

    main()


def own_spans_inside(mlflow, stub):
    class Traced(dspy.Module):
        def __init__(self):
            super().__init__()
            self.answer = dspy.Predict("question -> answer")

        @mlflow.trace(span_type="PARSER")
        def shorten(self, text):
            return text[:5]

        def forward(self, question):
            with mlflow.start_span("thinking"):
                answer = self.answer(question=question).answer
            return dspy.Prediction(short=self.shorten(answer))

    Traced()(question="inside out")


def parallel(mlflow, stub):
    predict = dspy.Predict("question -> answer")
    dspy.Parallel(num_threads=2, disable_progress_bar=True)(
        [(predict, example.inputs()) for example in _examples()]
    )


def evaluate(mlflow, stub):
    def metric(example, prediction, trace=None):
        return len(prediction.answer) > 5

    evaluate = dspy.Evaluate(
        devset=_examples(), metric=metric, num_threads=1, display_progress=False
    )
    evaluate(dspy.Predict("question -> answer"))


def compile(mlflow, stub):
    """MLflow traces nothing while an optimizer works."""

    def metric(example, prediction, trace=None):
        return True

    optimizer = dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=1)
    compiled = optimizer.compile(dspy.Predict("question -> answer"), trainset=_examples())
    compiled(question="after it")


def switched_off(mlflow, stub):
    mlflow.dspy.autolog(disable=True)
    dspy.Predict("question -> answer")(question="not recorded")
    mlflow.dspy.autolog()
    dspy.Predict("question -> answer")(question="recorded")
