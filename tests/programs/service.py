"""A service of FastAPI under uvicorn, traced, that calls another one like it.

Environment:
    WAY: "dropin" (``import mlflow_fasttrace as mlflow``) or "installed" (``import mlflow``).
    NEXT: Where the other service is; without it there is none to call.
"""

from __future__ import annotations

import asyncio
import os

import httpx
import mlflow_fasttrace
from fastapi import FastAPI, Request

if os.environ["WAY"] == "dropin":
    import mlflow_fasttrace as mlflow
    from mlflow_fasttrace.tracing import (
        get_tracing_context_headers_for_http_request,
        set_tracing_context_from_http_request_headers,
    )
else:
    mlflow_fasttrace.install()
    import mlflow
    from mlflow.tracing import (
        get_tracing_context_headers_for_http_request,
        set_tracing_context_from_http_request_headers,
    )

mlflow.set_experiment(os.environ["EXPERIMENT"])
app = FastAPI()


@mlflow.trace(span_type="TOOL")
def work(n: int) -> int:
    return n + 1


async def call_next(n: int) -> dict:
    headers = get_tracing_context_headers_for_http_request()
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{os.environ['NEXT']}/continue", params={"n": n}, headers=headers, timeout=600
        )
    return {**answer.json(), "sent": headers}


@app.get("/health")
def health() -> str:
    return "ok"


@app.post("/start")
async def start(n: int):
    """Begins a trace, which the other service continues three times at once."""
    with mlflow.start_span("start") as span:
        mlflow.update_current_trace(tags={"begun": "here"}, session_id="session-1", user="me")
        answers = await asyncio.gather(*(call_next(n + i) for i in range(3)))
        span.set_outputs(sum(answer["n"] for answer in answers))
    return {"trace_id": span.trace_id, "answers": answers}


@app.post("/continue")
async def carry_on(n: int, request: Request):
    """Continues the caller's trace, in a task and in a worker thread."""
    with set_tracing_context_from_http_request_headers(request.headers):
        received = get_tracing_context_headers_for_http_request()
        assert mlflow.get_current_active_span() is None
        with mlflow.start_span(f"continue {n}") as span:
            result = await asyncio.to_thread(work, n)
            sent = get_tracing_context_headers_for_http_request()
            span.set_outputs(result)
    return {"n": result, "received": received, "sent": sent, "trace_id": span.trace_id}
