"""Runs the programs of one framework, each into an experiment of its own:

run.py HOW FRAMEWORK URI PREFIX STUB

HOW is how the programs come by their ``mlflow``: see WAYS. URI is the MLflow server's, STUB the address
of tests/support/llm_stub.py. The programs of a framework are the public functions of the module
FRAMEWORK_programs; each takes the tracing module and the stub's address. Its ``enable`` comes first.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from types import FunctionType, ModuleType


def _mlflow() -> ModuleType:
    import mlflow

    return mlflow


def _drop_in() -> ModuleType:
    import mlflow_fasttrace

    return mlflow_fasttrace


def _installed() -> ModuleType:
    import mlflow
    import mlflow_fasttrace

    assert mlflow_fasttrace.install()
    return mlflow


#: What follows from the way is for WAYS alone: the programs are the same.
WAYS = {"mlflow": _mlflow, "drop-in": _drop_in, "installed": _installed}


def main() -> None:
    how, framework, uri, prefix, stub, *only = sys.argv[1:]
    mlflow = WAYS[how]()
    mlflow.set_tracking_uri(uri)
    module = importlib.import_module(f"{framework}_programs")
    module.enable(mlflow, stub)
    loop = asyncio.new_event_loop()  # one for all: SDKs keep connections
    asyncio.set_event_loop(loop)
    for name, program in vars(module).copy().items():
        if (
            not isinstance(program, FunctionType)
            or program.__module__ != module.__name__
            or name.startswith("_")
            or name == "enable"
            or (only and name not in only)
        ):
            continue
        mlflow.set_experiment(f"{prefix}-{framework}-{name}")
        outcome = program(mlflow, stub)
        if inspect.iscoroutine(outcome):
            loop.run_until_complete(outcome)
    loop.close()
    mlflow.flush_trace_async_logging()


if __name__ == "__main__":
    main()
