"""Tracing in production: sampling, contexts of requests, feedback of users, and services of FastAPI."""

from __future__ import annotations

import asyncio
import os

import pydantic
from fastapi import Query, Request

from programs import Programs
from programs.documentation import last, of, own_experiment_id, raised_by, tree

PROGRAMS = Programs()
program = PROGRAMS.add


@program
def sampling_by_function(mlflow):
    @mlflow.trace(sampling_ratio_override=0.0)
    def noisy(n):
        return n

    @mlflow.trace(sampling_ratio_override=1.0)
    def payment(n):
        return noisy(n) + 1

    @mlflow.trace
    def normal(n):
        return n

    before = mlflow.get_last_active_trace_id()
    noisy(1)
    same = mlflow.get_last_active_trace_id() == before
    payment(2)
    lines = tree(last(mlflow))
    normal(3)
    return [same, lines, tree(last(mlflow))]


@program
def ratios_that_are_none(mlflow):
    return [
        raised_by(lambda given=ratio: mlflow.trace(len, sampling_ratio_override=given))
        for ratio in (1.5, -0.1, "half", 1, 0)
    ]


class Chat(pydantic.BaseModel):
    message: str


class Verdict(pydantic.BaseModel):
    is_correct: bool
    comment: str | None = None


def asked(app, *requests):
    """What an app answers to requests, one after another."""
    import httpx

    async def main():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return [await client.request(**request) for request in requests]

    return [[answer.status_code, answer.json()] for answer in asyncio.run(main())]


@program
def a_chat_service(mlflow):
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/chat")
    @mlflow.trace
    def handle_chat(request: Request, chat: Chat):
        mlflow.update_current_trace(
            session_id=request.headers.get("X-Session-ID"),
            user=request.headers.get("X-User-ID"),
            client_request_id=request.headers.get("X-Request-ID"),
            metadata={
                "environment": "production",
                "app_version": os.getenv("APP_VERSION_THAT_IS_NOT_SET", "1.0.0"),
            },
        )
        return {"response": f"heard: {chat.message}"}

    headers = {"X-Request-ID": "req-1", "X-Session-ID": "s-1", "X-User-ID": "u-1"}
    answers = asked(
        app,
        {"method": "POST", "url": "/chat", "json": {"message": "hello"}, "headers": headers},
        {"method": "POST", "url": "/chat", "json": {"message": "bye"}},
    )
    mlflow.flush_trace_async_logging()
    traces = mlflow.search_traces(order_by=["timestamp_ms ASC"], return_type="list")
    return [
        answers,
        [
            [
                trace.info.client_request_id,
                trace.info.trace_metadata.get("mlflow.trace.user"),
                trace.info.trace_metadata.get("mlflow.trace.session"),
                trace.info.trace_metadata["environment"],
                sorted(trace.data.spans[0].inputs),
                trace.data.spans[0].inputs["chat"],
                trace.data.spans[0].outputs,
            ]
            for trace in traces
        ],
    ]


@program
def an_asynchronous_service(mlflow):
    from fastapi import FastAPI

    app = FastAPI()

    @mlflow.trace(span_type="TOOL")
    async def look_up(n):
        await asyncio.sleep(0)
        return n * 2

    @app.get("/double/{n}")
    @mlflow.trace(name="double")
    async def double(n: int):
        if n < 0:
            raise ValueError("negative")
        return {"result": await look_up(n)}

    answers = asked(app, {"method": "GET", "url": "/double/4"})
    return [answers, tree(last(mlflow))]


@program
def the_wrong_order_of_a_service(mlflow):
    from fastapi import FastAPI

    app = FastAPI()
    before = mlflow.get_last_active_trace_id()

    @mlflow.trace
    @app.get("/plain")
    def plain():
        return {"ok": True}

    answers = asked(app, {"method": "GET", "url": "/plain"})
    untraced = mlflow.get_last_active_trace_id() == before
    return [answers, untraced, plain(), last(mlflow).data.spans[0].name]


@program
def feedback_of_a_services_users(mlflow):
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/chat")
    @mlflow.trace
    def handle_chat(request: Request, chat: Chat):
        mlflow.update_current_trace(client_request_id=request.headers["X-Request-ID"])
        return {"response": chat.message.upper()}

    @app.post("/feedback")
    def handle_feedback(request: Request, verdict: Verdict, client_request_id: str = Query(...)):
        mlflow.flush_trace_async_logging()
        client = mlflow.MlflowClient()
        traces = client.search_traces(locations=[own_experiment_id(mlflow)])
        traces = [one for one in traces if one.info.client_request_id == client_request_id][:1]
        if not traces:
            return {"status": "error", "message": f"nothing of {client_request_id}"}
        mlflow.log_feedback(
            trace_id=traces[0].info.trace_id,
            name="correct",
            value=verdict.is_correct,
            source=mlflow.entities.AssessmentSource(
                source_type="HUMAN", source_id=request.headers.get("X-User-ID")
            ),
            rationale=verdict.comment,
        )
        return {"status": "success", "trace_id": traces[0].info.trace_id}

    user = {"X-User-ID": "u-3"}
    answers = asked(
        app,
        {
            "method": "POST",
            "url": "/chat",
            "json": {"message": "hello"},
            "headers": {"X-Request-ID": "req-9"},
        },
        {
            "method": "POST",
            "url": "/feedback",
            "params": {"client_request_id": "req-9"},
            "json": {"is_correct": True, "comment": "loud"},
            "headers": user,
        },
        {
            "method": "POST",
            "url": "/feedback",
            "params": {"client_request_id": "req-0"},
            "json": {"is_correct": False},
            "headers": user,
        },
    )
    (one,) = last(mlflow).info.assessments
    return [answers, one.name, one.value, one.rationale, one.source.source_id]


@program
def a_request_with_success_and_error(mlflow):
    @mlflow.trace
    def handle(user_id, message):
        mlflow.update_current_trace(tags={"user_id": user_id, "service_version": "1.0.0"})
        try:
            if not message:
                raise ValueError("an empty message")
            mlflow.update_current_trace(tags={"length": str(len(message))})
            return message
        except ValueError as error:
            mlflow.update_current_trace(tags={"error": True, "error_type": type(error).__name__})
            raise

    handle("u-1", "hello")
    good = last(mlflow)
    said = raised_by(lambda: handle("u-1", ""))
    bad = last(mlflow)
    return [
        said,
        [
            {key: value for key, value in sorted(trace.info.tags.items()) if "mlflow" not in key}
            for trace in (good, bad)
        ],
    ]


@program
def tracing_is_switched_off_and_on(mlflow):
    tracing = of(mlflow, "tracing")

    @mlflow.trace
    def work():
        return "done"

    before = mlflow.get_last_active_trace_id()
    tracing.disable()
    work()
    with mlflow.start_span("quiet") as span:
        span.set_inputs(1)
        span.set_attribute("a", 1)
        off = [type(span).__name__, span.span_id, span.inputs]
    unchanged = mlflow.get_last_active_trace_id() == before
    tracing.enable()
    work()
    return [off, unchanged, tree(last(mlflow))]
