"""Runs every program, or those named, each into an experiment of its own:
python -m programs.run MODULE URI PREFIX [PROGRAM]...

"mlflow:installed" is MLflow itself, made to run on the core. PAUSE_AT_SPANS_END, in seconds, makes them slow.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
from typing import Any

from programs import api, basic, callables, evaluation, of_modules, otel, pages

PROGRAMS = of_modules(basic, api, callables, otel)
EVALUATED = of_modules(evaluation)
#: Those that run only where they are named.
NAMED = {**EVALUATED, **of_modules(pages)}


class Losses(logging.Handler):
    """What MLflow's exporter says of spans and traces that it gives up, most of it to debuggers only: a server
    that is busy refuses some, and nobody tries again."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.messages: list[str] = []
        exporters = logging.getLogger("mlflow.tracing.export")
        exporters.setLevel(logging.DEBUG)
        exporters.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "Failed" in message or "Skipping" in message:
            self.messages.append(message)


def run_all(mlflow: Any, prefix: str, names: list[str]) -> None:
    """Runs the programs, all where none is named."""
    pause = float(os.environ.get("PAUSE_AT_SPANS_END", "0"))
    for name, run in {**PROGRAMS, **NAMED}.items():
        if name not in (names or PROGRAMS):
            continue
        os.environ["PROGRAM_NAME"] = name
        mlflow.set_experiment(f"{prefix}-{name}")
        if pause:
            mlflow.tracing.configure(span_processors=[lambda span: time.sleep(pause)])
        run(mlflow)
    mlflow.flush_trace_async_logging()


def put_aside(mlflow: Any, prefix: str) -> None:
    """Renames the experiments of a run."""
    client = mlflow.tracking.MlflowClient()
    for experiment in client.search_experiments(filter_string=f"name LIKE '{prefix}-%'"):
        client.rename_experiment(experiment.experiment_id, f"lost {time.time()} {experiment.name}")


def main() -> None:
    module_name, uri, prefix, *names = sys.argv[1:]
    module_name, _, installed = module_name.partition(":")
    if installed:
        import mlflow_fasttrace

        assert mlflow_fasttrace.install()
    mlflow = importlib.import_module(module_name)
    if installed:
        assert mlflow.trace.__code__.co_filename.endswith("patching.py")
    mlflow.set_tracking_uri(uri)
    os.environ["PROGRAM_PREFIX"] = prefix
    losses = Losses() if module_name == "mlflow" and not installed else None
    run_all(mlflow, prefix, names)
    if losses is not None and losses.messages:
        print(f"MLflow lost something and runs again: {losses.messages}", file=sys.stderr)
        put_aside(mlflow, prefix)
        run_all(mlflow, prefix, names)


if __name__ == "__main__":
    main()
