"""09. The current span: any code that runs inside of it can reach it, without having been handed it."""

import mlflow_fasttrace as mlflow
from tutorial import show, tracking_uri

mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 09")


def note(key, value):
    """A helper that is not traced: it writes to whichever span is current."""
    span = mlflow.get_current_active_span()
    if span is not None:  # outside of every span there is none
        span.set_attribute(key, value)


@mlflow.trace
def load(user, password):
    # Inputs as you want them to be seen, instead of the arguments as they are.
    mlflow.get_current_active_span().set_inputs({"user": user})
    note("cache", "miss")
    return {"user": user, "plan": "free"}


@mlflow.trace
def handle(user):
    note("version", "1.4.0")
    profile = load(user, "secret")
    note("plan", profile["plan"])  # again on handle's own span: load's has ended
    return profile


note("nobody", "sees this")
print("outside:", mlflow.get_current_active_span())
handle("ada")
mlflow.flush_trace_async_logging()
show(mlflow.get_trace(mlflow.get_last_active_trace_id()), "inputs", "attributes")
