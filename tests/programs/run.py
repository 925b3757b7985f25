"""Runs every program, or those named, each into an experiment of its own:
python -m programs.run MODULE URI PREFIX [PROGRAM]...

"mlflow:installed" is MLflow itself, made to run on the core. PAUSE_AT_SPANS_END, in seconds, makes them slow.
"""

from __future__ import annotations

import importlib
import os
import sys
import time

from programs import api, basic, callables, evaluation, of_modules, otel, pages

PROGRAMS = of_modules(basic, api, callables, otel)
EVALUATED = of_modules(evaluation)
#: Those that run only where they are named.
NAMED = {**EVALUATED, **of_modules(pages)}


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


if __name__ == "__main__":
    main()
