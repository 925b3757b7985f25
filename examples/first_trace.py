"""A first trace: two functions, one of which calls the other."""

import mlflow_fasttrace as mlflow

mlflow.set_experiment("First traces")


@mlflow.trace(span_type="TOOL")
def look_up(word):
    return {"tea": "a drink", "rope": "a cord"}[word]


@mlflow.trace(span_type="AGENT")
def answer(question):
    word = question.strip("?").split()[-1]
    return f"{word.capitalize()} is {look_up(word)}."


print(answer("What is tea?"))
