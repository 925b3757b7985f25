"""Runs programs whose spans go to a collector, and says when each began and ended, as JSON:
python -m programs.run_for_collector MODULE STORE_URI"""

from __future__ import annotations

import importlib
import json
import sys
import time

from programs import basic, callables, of_modules

PROGRAMS = of_modules(basic, callables)
# MLflow loses the roots of traces with tags where OpenTelemetry's SDK makes a span's attributes
# immutable before its processors see its end.
del PROGRAMS["trace_updates"]


def main() -> None:
    module_name, uri = sys.argv[1:]
    mlflow = importlib.import_module(module_name)
    mlflow.set_tracking_uri(uri)
    times = {}
    for name, run in PROGRAMS.items():
        begin = time.time_ns()
        run(mlflow)
        times[name] = (begin, time.time_ns())
    mlflow.flush_trace_async_logging()
    print(json.dumps(times))


if __name__ == "__main__":
    main()
