"""16. Threads: a new thread does not know what was current where it was started. A copy of the context does.

`asyncio.to_thread` copies it by itself. A pool does not: without a copy, each of its calls begins a trace of its
own.
"""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import mlflow_fasttrace as mlflow
from tutorial import show, tracking_uri

mlflow.set_tracking_uri(tracking_uri())
mlflow.set_experiment("Tutorial 16")


seen = set()  # the traces that the calls of work() belong to


@mlflow.trace
def work(number):
    seen.add(mlflow.get_active_trace_id())
    with mlflow.start_span("multiply"):
        return number * number


@mlflow.trace
def with_copies(numbers):
    with ThreadPoolExecutor(3) as pool:
        # One copy for each call: a context cannot be entered twice at the same time.
        futures = [pool.submit(copy_context().run, work, number) for number in numbers]
        return [future.result() for future in futures]


@mlflow.trace
def without_copies(numbers):
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(work, numbers))


for function in (with_copies, without_copies):
    seen.clear()
    print(function.__name__, function([1, 2, 3]))
    trace_id = mlflow.get_last_active_trace_id()
    mlflow.flush_trace_async_logging()
    show(mlflow.get_trace(trace_id), "inputs", "outputs")
    where = "in the same trace" if seen == {trace_id} else f"in {len(seen)} traces of their own"
    print(f"  the calls of work() are {where}")
