"""One trace over several services."""

from __future__ import annotations

import asyncio
import threading

from fastapi import Request

from programs import Programs
from programs.documentation import of, raised_by, read, tree

PROGRAMS = Programs()
program = PROGRAMS.add


@program
def a_client_and_a_server_of_flask(mlflow):
    import flask

    tracing = of(mlflow, "tracing")
    app = flask.Flask("server")

    @app.post("/handle")
    def handle():
        headers = dict(flask.request.headers)
        with tracing.set_tracing_context_from_http_request_headers(headers):
            with mlflow.start_span("server-handler") as span:
                span.set_attribute("status", "ok")
        return {"ok": True}

    with mlflow.start_span("client-root") as root:
        headers = tracing.get_tracing_context_headers_for_http_request()
        # The server runs in a thread of its own, as it would in a process.
        answers = []

        def post():
            answers.append(
                app.test_client().post("/handle", headers=headers, json={"input": "hello"}).json
            )

        thread = threading.Thread(target=post)
        thread.start()
        thread.join()
    return [answers, sorted(headers), tree(read(mlflow, root.trace_id))]


@program
def headers_hold_the_current_span(mlflow):
    tracing = of(mlflow, "tracing")
    with mlflow.start_span("outer") as outer:
        with mlflow.start_span("inner") as inner:
            value = tracing.get_tracing_context_headers_for_http_request()["traceparent"]
    version, trace, span, flags = value.split("-")
    return [
        version,
        "tr-" + trace == outer.trace_id,
        span == inner.span_id,
        flags,
    ]


@program
def headers_without_a_span(mlflow):
    tracing = of(mlflow, "tracing")
    return [
        tracing.get_tracing_context_headers_for_http_request(),
        raised_by(lambda: use(mlflow, {})),
        raised_by(lambda: use(mlflow, {"traceparent": "nonsense"})),
    ]


def use(mlflow, headers):
    with of(mlflow, "tracing").set_tracing_context_from_http_request_headers(headers):
        with mlflow.start_span("handler") as span:
            return span.parent_id


@program
def a_server_of_fastapi(mlflow):
    import httpx
    from fastapi import FastAPI

    tracing = of(mlflow, "tracing")
    app = FastAPI()

    @app.post("/handle")
    async def handle(request: Request):
        with tracing.set_tracing_context_from_http_request_headers(dict(request.headers)):
            return {"answer": await work((await request.json())["n"])}

    @mlflow.trace(span_type="TOOL")
    async def work(n):
        with mlflow.start_span("look up") as span:
            span.set_inputs(n)
        return n + 1

    async def main():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            with mlflow.start_span("client", span_type="AGENT") as root:
                headers = tracing.get_tracing_context_headers_for_http_request()
                answer = await client.post("/handle", json={"n": 1}, headers=headers)
        return root.trace_id, answer.json()

    trace_id, answer = asyncio.run(main())
    return [answer, tree(read(mlflow, trace_id))]
