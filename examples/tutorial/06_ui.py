"""06. Looking at traces: MLflow's own UI.

This starts a server over the tutorial's database and prints a link to the trace that it has just recorded, and
one to every other chapter's. On the command line it is

    mlflow server --backend-store-uri sqlite:///tutorial.db --port 5000

Where MLFLOW_TRACKING_URI names a server that runs already, the links lead there.
"""

import sys

import mlflow_fasttrace as mlflow
from tutorial import show, start_server, tracking_uri

EXPERIMENT = "Tutorial 06"

mlflow.set_tracking_uri(tracking_uri())
experiment = mlflow.set_experiment(EXPERIMENT)


@mlflow.trace
def look(at):
    return f"Here is {at}."


look("a trace")
mlflow.flush_trace_async_logging()
trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
show(trace, "inputs", "outputs")

server, url = None, tracking_uri()
if not url.startswith("http"):
    print("The server starts, which takes some seconds.", flush=True)
    server, url = start_server(url)
try:
    page = f"{url}/#/experiments/{experiment.experiment_id}/traces"
    print(f"this trace:   {page}?selectedEvaluationId={trace.info.trace_id}")
    print(f"all chapters: {url}/#/experiments", flush=True)
    if server is not None:
        print("Enter, or Ctrl-C, ends the server.", flush=True)
        sys.stdin.readline()
except KeyboardInterrupt:
    pass
finally:
    if server is not None:
        server.terminate()
        server.wait()
