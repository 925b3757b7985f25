"""Runs call trees, one JSON line each, under MLflow or the core:  python -m programs.trees MODULE URI EXPERIMENT

A tree is ``{"kind", "name", "inputs", "outputs", "attributes", "fails", "children"}``. The answer to a
tree is one line, once it is delivered.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys


class Failed(Exception):
    pass


def run(mlflow, node, parent=None) -> None:
    KINDS[node["kind"]](mlflow, node, parent)


def children(mlflow, node, parent=None) -> None:
    for child in node["children"]:
        try:
            run(mlflow, child, parent)
        except Failed:
            if child["fails"] == "through":
                raise


def body(mlflow, node) -> object:
    mlflow.get_current_active_span().set_attributes(node["attributes"])
    children(mlflow, node)
    if node["fails"]:
        raise Failed(node["name"])
    return node["outputs"]


def traced_call(mlflow, node, parent) -> None:
    mlflow.trace(lambda value: body(mlflow, node), name=node["name"])(node["inputs"])


def coroutine(mlflow, node, parent) -> None:
    @mlflow.trace(name=node["name"])
    async def call(value):
        await asyncio.sleep(0)
        return body(mlflow, node)

    # A loop cannot run inside of another one: the coroutine is driven by hand.
    awaiting = call(node["inputs"])
    try:
        while True:
            awaiting.send(None)
    except StopIteration:
        pass


def stream(mlflow, node, parent) -> None:
    @mlflow.trace(name=node["name"])
    def items(value):
        yield node["outputs"]
        yield body(mlflow, node)

    list(items(node["inputs"]))


def scope(mlflow, node, parent) -> None:
    with mlflow.start_span(node["name"], span_type="TOOL") as span:
        span.set_inputs(node["inputs"])
        span.set_outputs(body(mlflow, node))


def by_hand(mlflow, node, parent) -> None:
    span = mlflow.start_span_no_context(
        node["name"],
        parent_span=parent,
        inputs=node["inputs"],
        attributes=node["attributes"],
    )
    try:
        children(mlflow, node, span)
    finally:
        span.end(outputs=node["outputs"], status="ERROR" if node["fails"] else None)


KINDS = {
    "call": traced_call,
    "coroutine": coroutine,
    "stream": stream,
    "scope": scope,
    "by hand": by_hand,
}


def main() -> None:
    module_name, uri, experiment = sys.argv[1:]
    mlflow = importlib.import_module(module_name)
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment)
    for line in sys.stdin:
        tree = json.loads(line)
        try:
            run(mlflow, tree)
        except Failed:
            pass
        trace_id = mlflow.get_last_active_trace_id()
        mlflow.flush_trace_async_logging()
        print(json.dumps(trace_id), flush=True)


if __name__ == "__main__":
    main()
