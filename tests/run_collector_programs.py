"""Runs programs whose spans go to a collector, and says when each began and ended, as JSON:
run_collector_programs.py MODULE STORE_URI"""

from __future__ import annotations

import importlib
import json
import sys
import time

import callable_programs  # noqa: F401  (adds its programs)
from programs import PROGRAMS, program

#: MLflow loses the roots of traces with tags where OpenTelemetry's SDK makes a span's attributes
#: immutable before its processors see its end.
WITH_TAGS = {"trace_updates"}


@program
def generative_ai(mlflow):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi ☃"}]
    answer = {"role": "assistant", "content": "hello"}
    with mlflow.start_span("chat", span_type="CHAT_MODEL") as span:
        span.set_inputs({"model": "m", "messages": messages, "temperature": 0.5, "stop": "x"})
        span.set_outputs({"id": "r", "model": "m-1", "choices": [{"message": answer}]})
        span.set_attributes(
            {
                "mlflow.message.format": "openai",
                "mlflow.llm.model": "m",
                "mlflow.llm.provider": "p",
                "mlflow.chat.tokenUsage": {"input_tokens": 3, "output_tokens": 4},
                "own": {"k": [1, 2.5, None]},
            }
        )
        with mlflow.start_span("look up", span_type="TOOL") as tool:
            tool.set_inputs({"q": "é"})
            tool.set_outputs([1, 2])
    with mlflow.start_span("agent", span_type="AGENT"):
        pass
    with mlflow.start_span("odd inputs", span_type="LLM") as span:
        span.set_inputs([1, 2])
        span.set_outputs("text")


def main() -> None:
    module_name, uri = sys.argv[1:]
    mlflow = importlib.import_module(module_name)
    mlflow.set_tracking_uri(uri)
    times = {}
    for name, run in PROGRAMS.items():
        if name not in WITH_TAGS:
            begin = time.time_ns()
            run(mlflow)
            times[name] = (begin, time.time_ns())
    mlflow.flush_trace_async_logging()
    print(json.dumps(times))


if __name__ == "__main__":
    main()
