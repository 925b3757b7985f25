"""02. Automatic tracing: one line for OpenAI, one for Anthropic.

`autolog()` makes every call of a library a span: what was asked, what was answered, the tokens. MLflow has it
for many libraries more (LangChain, LangGraph, DSPy, LlamaIndex, ...); they all work like these two.
"""

import mlflow_fasttrace as mlflow
from anthropic import Anthropic
from openai import OpenAI
from tutorial import show, tracking_uri, use_loopback_models

use_loopback_models()
mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 02")

mlflow.openai.autolog()
mlflow.anthropic.autolog()

question = [{"role": "user", "content": "Why is the sky blue?"}]
OpenAI().chat.completions.create(model="gpt-4o-mini", messages=question)
of_openai = mlflow.get_last_active_trace_id()
Anthropic().messages.create(model="claude-sonnet-4-5", max_tokens=100, messages=question)
of_anthropic = mlflow.get_last_active_trace_id()

mlflow.flush_trace_async_logging()
for trace_id in (of_openai, of_anthropic):
    trace = mlflow.get_trace(trace_id)
    show(trace, "inputs", "outputs")
    print(f"  {trace.info.token_usage['total_tokens']} tokens")
