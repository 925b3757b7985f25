"""Runs every program, or those named, each into an experiment of its own:
run_programs.py MODULE URI PREFIX [PROGRAM]..."""

from __future__ import annotations

import importlib
import os
import sys

import api_programs  # noqa: F401  (adds its programs)
import callable_programs  # noqa: F401
from programs import PROGRAMS


def main() -> None:
    module_name, uri, prefix, *names = sys.argv[1:]
    mlflow = importlib.import_module(module_name)
    mlflow.set_tracking_uri(uri)
    os.environ["PROGRAM_PREFIX"] = prefix
    for name, run in PROGRAMS.items():
        if names and name not in names:
            continue
        os.environ["PROGRAM_NAME"] = name
        mlflow.set_experiment(f"{prefix}-{name}")
        run(mlflow)
    mlflow.flush_trace_async_logging()


if __name__ == "__main__":
    main()
