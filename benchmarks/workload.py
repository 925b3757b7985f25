"""One measurement in a process of its own:  workload.py MODULE CASE URI  -> a line of JSON.

``caller_us`` is what a traced call costs its caller beyond the same call untraced, in microseconds.
"""

from __future__ import annotations

import asyncio
import contextvars
import glob
import importlib
import json
import os
import resource
import statistics
import sys
import time

CALLS = 2000  # small enough that MLflow's queue holds them, so that all arrive
MESSAGES = [{"role": "user", "content": "x" * 600} for _ in range(5)]
COMPLETION = {
    "id": "chatcmpl-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "y" * 1400}}],
    "usage": {"prompt_tokens": 800, "completion_tokens": 350, "total_tokens": 1150},
}


def per_call_us(function, calls: int) -> float:
    began = time.perf_counter_ns()
    for _ in range(calls):
        function()
    return (time.perf_counter_ns() - began) / calls / 1000


def plain():
    pass


def floor_of(function):
    """The function behind ``floor.c``, built next to the other figures."""
    sys.path.insert(0, os.environ["FASTTRACE_FLOOR"])
    from floor_core import Floor

    variable = contextvars.ContextVar("floor")
    return Floor(function, variable.set, variable.reset)


def floor(case: str) -> dict:
    del case
    wrapped = floor_of(plain)
    rounds = [per_call_us(wrapped, CALLS) - per_call_us(plain, CALLS) for _ in range(20)]
    return {"caller_us": sorted(rounds)[10], "spans": 0}


def settle(mlflow) -> None:
    mlflow.flush_trace_async_logging()


def noop(mlflow, calls: int) -> dict:
    traced = mlflow.trace(plain)
    with mlflow.start_span("warm"):
        for _ in range(10):
            traced()
    settle(mlflow)
    times = []
    now = time.perf_counter_ns
    with mlflow.start_span("root"):
        caller = per_call_us(traced, calls) - per_call_us(plain, calls)
        for _ in range(calls):
            began = now()
            traced()
            times.append(now() - began)
    times.sort()
    return {
        "caller_us": caller,
        "p999_us": times[int(len(times) * 0.999)] / 1000,
        "spans": 2 * calls + 12,
    }


def chat(mlflow, calls: int) -> dict:
    @mlflow.trace(span_type="CHAT_MODEL")
    def complete(messages, model, temperature=0.2):
        return COMPLETION

    with mlflow.start_span("root"):
        complete(MESSAGES, "m")
        caller = per_call_us(lambda: complete(MESSAGES, "m"), calls)
    return {"caller_us": caller, "spans": calls + 2}


def start_span(mlflow, calls: int) -> dict:
    def body():
        with mlflow.start_span("step") as span:
            span.set_inputs({"question": "why", "k": 3})
            span.set_outputs("because")
            span.set_attribute("score", 0.5)

    with mlflow.start_span("root"):
        body()
        caller = per_call_us(body, calls)
    return {"caller_us": caller, "spans": calls + 2}


def root(mlflow, calls: int) -> dict:
    traced = mlflow.trace(plain)
    traced()
    calls //= 4
    return {"caller_us": per_call_us(traced, calls), "spans": calls + 1}


def coroutines(mlflow, calls: int) -> dict:
    async def bare():
        await asyncio.sleep(0)

    traced = mlflow.trace(bare)

    async def run(function):
        await asyncio.gather(*[function() for _ in range(100)])

    async def measure(function):
        began = time.perf_counter_ns()
        await run(function)
        return (time.perf_counter_ns() - began) / 100 / 1000

    async def both():
        """The median of the rounds' differences; each round runs both, one after the other."""
        with mlflow.start_span("root"):
            await measure(traced)
            differences = []
            for _ in range(calls // 100):
                untraced = await measure(bare)
                differences.append(await measure(traced) - untraced)
        return statistics.median(differences)

    return {"caller_us": asyncio.run(both()), "spans": calls + 101}


def generator(mlflow, calls: int) -> dict:
    def items():
        yield from range(100)

    traced = mlflow.trace(items)

    def consume(function):
        for _ in function():
            pass

    consume(traced)
    rounds = calls // 100
    untraced = per_call_us(lambda: consume(items), rounds)
    caller = per_call_us(lambda: consume(traced), rounds) - untraced
    return {"caller_us": caller / 100, "spans": rounds + 1}


def cpu_of_sender() -> float:
    for lock in glob.glob(os.environ["MLFLOW_FASTTRACE_SPOOL_DIR"] + "/*/sender.lock"):
        try:
            pid = int(open(lock).read().split()[0])
            fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
        except (IndexError, OSError, ValueError):
            continue
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def live(mlflow, calls: int) -> dict:
    """100 traces of 11 spans against a real server."""
    del calls
    from mlflow.tracking import MlflowClient

    name = f"live-{os.getpid()}"
    experiment = mlflow.set_experiment(name).experiment_id
    client = MlflowClient()

    @mlflow.trace
    def leaf(n):
        return {"n": n}

    @mlflow.trace
    def root(n):
        for i in range(10):
            leaf(i)

    root(-1)
    settle(mlflow)
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    sender_cpu = cpu_of_sender()
    began = time.perf_counter()
    for n in range(100):
        root(n)
    caller = time.perf_counter() - began
    settle(mlflow)
    while (
        len(client.search_traces(locations=[experiment], max_results=500, include_spans=False))
        < 101
    ):
        time.sleep(0.01)
    until = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    spans = 1100
    used = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    result = {
        "caller_us": caller / spans * 1e6,
        "program_cpu_us": used / spans * 1e6,
        "until_there_s": until,
        "spans": spans,
    }
    if mlflow.__name__ == "mlflow_fasttrace":
        result["sender_cpu_us"] = (cpu_of_sender() - sender_cpu) / spans * 1e6
    traces = client.search_traces(locations=[experiment], max_results=500)
    arrived = sum(len(trace.data.spans) for trace in traces)
    assert arrived == spans + 11, f"{arrived} spans arrived"
    return result


CASES = {
    "noop": noop,
    "chat": chat,
    "start_span": start_span,
    "root": root,
    "async": coroutines,
    "generator": generator,
    "live": live,
}


def main() -> None:
    module, case, uri = sys.argv[1:]
    if module == "floor":
        print(json.dumps(floor(case)))
        return
    mlflow = importlib.import_module(module)
    mlflow.set_tracking_uri(uri)
    # MLflow's queue holds 2,048 spans: more would be dropped and look fast.
    calls = 400 if module == "mlflow" else CALLS
    result = CASES[case](mlflow, calls)
    settle(mlflow)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
