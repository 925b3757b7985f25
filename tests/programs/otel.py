"""Programs in which MLflow, its integrations and OpenTelemetry meet."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from programs import Programs

PROGRAMS = Programs()
program = PROGRAMS.add


def api(mlflow):
    return importlib.import_module(f"{mlflow.__name__}.tracing")


@contextlib.contextmanager
def propagation(mlflow):
    """OpenTelemetry's process-wide context and MLflow's see each other."""
    os.environ["MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT"] = "true"
    api(mlflow).reset()
    try:
        yield
    finally:
        del os.environ["MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT"]
        api(mlflow).reset()


@PROGRAMS.add_with_mlflow("3.15")
def bridged_spans(mlflow):
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode

    tracer = api(mlflow).get_bridged_tracer_provider().get_tracer("library")
    with tracer.start_as_current_span("request", kind=SpanKind.SERVER) as request:
        request.set_attributes({"text": "value", "number": 3, "list": [1, 2], "json": '{"a": 1}'})
        request.add_event("happened", {"k": "v"})
        with tracer.start_as_current_span("inside", attributes={"gen_ai.system": "x"}) as inside:
            inside.set_status(Status(StatusCode.OK))
        with contextlib.suppress(ValueError), tracer.start_as_current_span("failed"):
            raise ValueError("no")
        with contextlib.suppress(KeyError):
            with tracer.start_as_current_span("quiet", record_exception=False):
                raise KeyError("k")
        linked = tracer.start_span("linked", links=[Link(request.get_span_context(), {"l": 1})])
        linked.update_name("renamed")
        linked.set_status(StatusCode.ERROR, "because")
        linked.end()
    tracer.start_span("alone", start_time=1_700_000_000_000_000_000).end(
        end_time=1_700_000_001_000_000_000
    )


@PROGRAMS.add_with_mlflow("3.15")
def bridged_spans_and_mlflows_stay_apart(mlflow):
    tracer = api(mlflow).get_bridged_tracer_provider().get_tracer("library")
    with tracer.start_as_current_span("theirs"):
        with mlflow.start_span("ours"):
            with tracer.start_as_current_span("theirs again"):
                pass


@PROGRAMS.add_with_mlflow("3.15")
def libraries_under_mlflow(mlflow):
    """Theirs under ours, by the process-wide context."""

    def work(name):
        tracer = api(mlflow).get_bridged_tracer_provider().get_tracer("library")
        with tracer.start_as_current_span(name), tracer.start_as_current_span(f"{name} below"):
            pass

    async def task(name):
        with mlflow.start_span(name):
            await asyncio.sleep(0.01)
            work(f"{name} theirs")

    async def tasks():
        for n in range(2):  # one after the other: their order is the tree's
            await asyncio.create_task(task(f"task {n}"))

    with propagation(mlflow):
        with mlflow.start_span("root"):
            work("theirs")
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(work, "in a thread"))
            thread.start()
            thread.join()
            asyncio.run(tasks())

            @mlflow.trace
            def function():
                work("in a function")

            function()
        work("outside")


@PROGRAMS.add_with_mlflow("3.15")
def an_application_of_its_own(mlflow):
    """The program's own provider keeps its spans; they carry MLflow's ids."""
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("application")
    with propagation(mlflow):
        with mlflow.start_span("ours") as ours:
            with tracer.start_as_current_span("theirs") as theirs:
                same = theirs.get_span_context().trace_id == int(ours.trace_id[3:], 16)
                under = theirs.parent.span_id == int(ours.span_id, 16)
                ours.set_outputs([same, under])


@program
def context_that_integrations_pass_on(mlflow):
    """As Agno's integration gives MLflow's context to spans of OpenTelemetry."""
    provider = importlib.import_module(f"{mlflow.__name__}.tracing.provider")
    tracer = provider._get_tracer("integration")
    with mlflow.start_span("ours"):
        with tracer.start_as_current_span("theirs", context=provider.get_current_context()):
            with tracer.start_as_current_span("theirs below"):
                pass


@PROGRAMS.add_with_mlflow("3.16")  # before, its integration needs all of LangChain
def mixed_trees(mlflow):
    """Autologging inside a traced function inside a span inside FastAPI inside a span of
    OpenTelemetry, with threads and tasks."""
    import httpx
    from fastapi import FastAPI
    from langchain_core.language_models import FakeListLLM
    from langchain_core.runnables import RunnableLambda

    mlflow.langchain.autolog()
    chain = RunnableLambda(lambda n: f"question {n}") | FakeListLLM(responses=["answer"])
    app = FastAPI()

    @mlflow.trace(span_type="AGENT")
    async def agent(n: int):
        first = await chain.ainvoke(n)
        with ThreadPoolExecutor(1) as pool:
            context = contextvars.copy_context()
            second = pool.submit(context.run, chain.invoke, n + 1).result()
        return first + second

    @app.get("/ask")
    async def ask(n: int):
        with mlflow.start_span("request", span_type="CHAIN") as span:
            for i in range(2):
                with mlflow.start_span(f"step {i}"):
                    result = await asyncio.create_task(agent(n + i))
            span.set_outputs(result)
        return result

    async def main():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            tracer = api(mlflow).get_bridged_tracer_provider().get_tracer("application")
            with tracer.start_as_current_span("parent"):
                return (await client.get("/ask", params={"n": 1})).json()

    assert asyncio.run(main()) == "answeranswer"
    mlflow.langchain.autolog(disable=True)
    chain.invoke(0)
