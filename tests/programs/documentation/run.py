"""Runs programs of the documentation, each into an experiment of its own:

python -m programs.documentation.run MODULE URI PREFIX OUTCOMES NAME...

OUTCOMES is the file that gets, as JSON, what each of them returned, printed and raised. Where ``mlflow-fasttrace
run`` started it, MODULE is ``mlflow``, which then is on the core.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
from pathlib import Path

from programs.documentation import steady
from programs.documentation.chapters import PROGRAMS


def outcome_of(run, mlflow) -> dict:
    printed, raised, returned = io.StringIO(), None, None
    with contextlib.redirect_stdout(printed):
        try:
            returned = run(mlflow)
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
    return steady({"returned": returned, "printed": printed.getvalue(), "raised": raised})


def main() -> None:
    module_name, uri, prefix, outcomes, *names = sys.argv[1:]
    mlflow = importlib.import_module(module_name)
    if module_name == "mlflow":
        on_the_core = mlflow.trace.__code__.co_filename.endswith("patching.py")
        assert on_the_core == (
            os.environ.get("MLFLOW_FASTTRACE") == "1"
            and os.environ.get("MLFLOW_USE_DEFAULT_TRACER_PROVIDER") != "false"
        )
    mlflow.set_tracking_uri(uri)
    os.environ["PROGRAM_PREFIX"] = prefix
    results = {}
    for name in names:
        os.environ["PROGRAM_NAME"] = name
        if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
            mlflow.set_experiment(f"{prefix}-{name}")
        results[name] = outcome_of(PROGRAMS[name], mlflow)
    mlflow.flush_trace_async_logging()
    Path(outcomes).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
