"""Threads and asyncio: which calls come into which trace."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

from programs import Programs
from programs.documentation import last, openai_traced, own_experiment_id, tree

PROGRAMS = Programs()
program = PROGRAMS.add


def ask(client, question):
    answer = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[
            {"role": "system", "content": "You know mountains."},
            {"role": "user", "content": question},
        ],
        temperature=0.1,
        max_tokens=100,
    )
    return answer.choices[0].message.content


@program
def threads_with_copied_contexts(mlflow):
    with openai_traced(mlflow) as client:

        @mlflow.trace
        def worker(question: str) -> str:
            return ask(client, question)

        @mlflow.trace
        def main(questions):
            results = []
            # One thread: both runs then start the questions in the same order.
            with ThreadPoolExecutor(max_workers=1) as executor:
                futures = []
                for question in questions:
                    context = contextvars.copy_context()
                    futures.append(executor.submit(context.run, worker, question))
                for future in as_completed(futures):
                    results.append(future.result())
            return sorted(results)

        results = main(["Which is the highest?", "Which is the oldest?"])
    return [results, tree(last(mlflow))]


@program
def threads_without_contexts(mlflow):
    @mlflow.trace
    def worker(n):
        return n * n

    @mlflow.trace
    def main():
        with ThreadPoolExecutor(max_workers=1) as executor:
            return list(executor.map(worker, range(3)))

    results = main()
    mlflow.flush_trace_async_logging()
    client = mlflow.MlflowClient()
    traces = client.search_traces(locations=[own_experiment_id(mlflow)])
    return [results, sorted(tree(trace) for trace in traces)]


@program
def the_last_trace_of_a_thread(mlflow):
    @mlflow.trace
    def work(n):
        return n

    ids = {}

    def in_a_thread():
        work(1)
        ids["thread"] = mlflow.get_last_active_trace_id(thread_local=True)

    work(0)
    ids["main"] = mlflow.get_last_active_trace_id()
    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    local = mlflow.get_last_active_trace_id(thread_local=True)
    anywhere = mlflow.get_last_active_trace_id()
    return [local == ids["main"], anywhere == ids["thread"], local == anywhere]


@program
def an_asynchronous_pipeline(mlflow):
    @mlflow.trace
    async def wash(item: str) -> str:
        await asyncio.sleep(0.001)
        return f"clean {item}"

    @mlflow.trace
    async def pipeline(items):
        return [await wash(item) for item in items]

    result = asyncio.run(pipeline(["cup", "plate", "spoon"]))
    return [result, tree(last(mlflow))]


@program
def tasks_side_by_side(mlflow):
    @mlflow.trace(span_type="TOOL")
    async def fetch(city):
        with mlflow.start_span("wait") as span:
            span.set_inputs(city)
            await asyncio.sleep(0.001)
        return len(city)

    @mlflow.trace(span_type="AGENT")
    async def compare(cities):
        return await asyncio.gather(*(fetch(city) for city in cities))

    result = asyncio.run(compare(["Oslo", "Bergen", "Bodo"]))
    return [result, tree(last(mlflow))]


@program
def an_asynchronous_client(mlflow):
    import openai

    mlflow.openai.autolog()

    @mlflow.trace
    async def answer(question):
        async with openai.AsyncOpenAI() as client:
            response = await client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": question}]
            )
        return response.choices[0].message.content

    text = asyncio.run(answer("Which wind is cold?"))
    mlflow.openai.autolog(disable=True)
    return [text, tree(last(mlflow))]


@program
def a_thread_of_asyncio(mlflow):
    @mlflow.trace
    def blocking(n):
        return mlflow.get_current_active_span().name, n

    @mlflow.trace
    async def main():
        first = await asyncio.to_thread(blocking, 1)
        loop = asyncio.get_running_loop()
        second = await loop.run_in_executor(None, blocking, 2)
        return first, second

    result = asyncio.run(main())
    mlflow.flush_trace_async_logging()
    traces = mlflow.MlflowClient().search_traces(locations=[own_experiment_id(mlflow)])
    return [result, sorted(tree(trace) for trace in traces)]


@program
def an_asynchronous_failure(mlflow):
    @mlflow.trace
    async def fails(n):
        await asyncio.sleep(0)
        raise TimeoutError(f"no answer from {n}")

    @mlflow.trace
    async def main():
        return await asyncio.gather(fails(1), fails(2), return_exceptions=True)

    results = [str(error) for error in asyncio.run(main())]
    trace = last(mlflow)
    return [results, tree(trace), trace.info.state]


@program
def asynchronous_methods_and_blocks(mlflow):
    class Kettle:
        @mlflow.trace(span_type="TOOL")
        async def boil(self, litres):
            with mlflow.start_span("heat"):
                await asyncio.sleep(0)
            return litres * 100

        @staticmethod
        @mlflow.trace
        async def pour(cup):
            return cup

        @classmethod
        @mlflow.trace
        async def brand(cls):
            return cls.__name__

    async def main():
        with mlflow.start_span("tea"):
            kettle = Kettle()
            return await kettle.boil(2), await Kettle.pour("blue"), await kettle.brand()

    return [list(asyncio.run(main())), tree(last(mlflow))]
