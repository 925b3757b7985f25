"""03. Switching off: one integration, all of them, or tracing as a whole.

A whole process can be started without: MLFLOW_TRACE_SAMPLING_RATIO=0 records no trace.
"""

import mlflow_fasttrace as mlflow
from openai import OpenAI
from tutorial import show, tracking_uri, use_loopback_models

use_loopback_models()
mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 03")
client = OpenAI()


@mlflow.trace
def ask(question):
    messages = [{"role": "user", "content": question}]
    completion = client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    return completion.choices[0].message.content


def asked(question):
    """Asks, and returns the trace's id; None where nothing was recorded."""
    before = mlflow.get_last_active_trace_id()
    ask(question)
    trace_id = mlflow.get_last_active_trace_id()
    return trace_id if trace_id != before else None


recorded = {}
mlflow.openai.autolog()
recorded["all on"] = asked("one")

# The integration is off. What is traced by hand is still recorded.
mlflow.openai.autolog(disable=True)
recorded["openai.autolog(disable=True)"] = asked("two")
mlflow.openai.autolog()

# Nothing at all is recorded, in no thread of the process.
mlflow.tracing.disable()
recorded["tracing.disable()"] = asked("three")
mlflow.tracing.enable()
recorded["tracing.enable()"] = asked("four")

# Nothing is recorded inside of the block, in this thread or task alone.
with mlflow.tracing.context(enabled=False):
    recorded["tracing.context(enabled=False)"] = asked("five")

mlflow.flush_trace_async_logging()
for state, trace_id in recorded.items():
    print(f"{state}:")
    if trace_id is None:
        print("  no trace")
    else:
        show(mlflow.get_trace(trace_id))
