"""13. The trace as a whole: tags, metadata, user and session, and what the list of traces shows of it."""

import mlflow_fasttrace as mlflow
from tutorial import show, tracking_uri

mlflow.set_tracking_uri(tracking_uri())
experiment = mlflow.set_experiment("Tutorial 13")


@mlflow.trace
def reply(messages):
    text = f"I have read {len(messages)} messages."
    # From anywhere inside of the trace.
    mlflow.update_current_trace(
        tags={"channel": "mail", "draft": "yes"},  # can be changed later
        metadata={"build": "1.4.0"},  # stays as it is
        user="ada",
        session_id="session-1",
        # By default the list shows the beginning of the root's inputs and outputs.
        request_preview=messages[-1],
        response_preview=text,
    )
    return {"text": text, "language": "en"}


reply(["Hello!", "Are you there?"])
trace_id = mlflow.get_last_active_trace_id()
mlflow.flush_trace_async_logging()

# Also when the trace has long been on the server.
mlflow.set_trace_tag(trace_id, "reviewed", "yes")
mlflow.delete_trace_tag(trace_id, "draft")

(trace, *_) = mlflow.search_traces(
    locations=[experiment.experiment_id],
    filter_string="tags.channel = 'mail' AND tags.reviewed = 'yes'",
    order_by=["timestamp_ms DESC"],
    return_type="list",
)
show(trace, "inputs")
print("request: ", trace.info.request_preview)
print("response:", trace.info.response_preview)
print("tags:    ", {k: v for k, v in sorted(trace.info.tags.items()) if "mlflow." not in k})
metadata = trace.info.trace_metadata
for key in ("build", "mlflow.trace.user", "mlflow.trace.session"):
    print(f"metadata: {key} = {metadata[key]}")
