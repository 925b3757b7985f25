"""01. Installing: light and full.

    pip install mlflow-fasttrace            # light: MLflow's SDK for tracing, no server, no database
    pip install mlflow-fasttrace mlflow     # full: also MLflow's server, its UI and its database

A service needs the light one: what it records goes to a server elsewhere (MLFLOW_TRACKING_URI). On your own
machine the full one is at hand: a file is enough to record into, and `mlflow ui` shows it. The code is
the same.
"""

from importlib.metadata import PackageNotFoundError, version

import mlflow_fasttrace as mlflow
from tutorial import show, tracking_uri


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


for package in ("mlflow-fasttrace", "mlflow-tracing", "mlflow"):
    print(f"{package:<18} {installed(package)}")

full = installed("mlflow") != "not installed"
if not full and not tracking_uri().startswith("http"):
    raise SystemExit("This is the light installation: name a server in MLFLOW_TRACKING_URI.")
print("This is the full installation." if full else "This is the light installation.")

mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 01")


@mlflow.trace
def greet(name):
    return f"Hello, {name}!"


greet("world")

# Spans leave in the background. Who reads what has just been recorded waits for it first.
mlflow.flush_trace_async_logging()
show(mlflow.get_trace(mlflow.get_last_active_trace_id()), "inputs", "outputs")
