"""One tracer in a process of its own:  workload.py TRACER MODE WHAT URI SECONDS  -> a line of JSON.

``WHAT`` is a function of `PARTS`. A figure ``X.us`` is what a traced call costs its caller beyond the
same call untraced, in microseconds: the median of short blocks, in each of which both were measured
one after the other.
"""

from __future__ import annotations

import asyncio
import contextvars
import glob
import importlib
import importlib.metadata
import json
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sink import spans_at, wait_for_spans
from tracers import Tracer, adapter

BLOCKS = 20
BURST = 2000  # what MLflow's and OpenTelemetry's queues hold
MESSAGES = [{"role": "user", "content": "x" * 600} for _ in range(5)]
COMPLETION = {
    "id": "chatcmpl-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "y" * 1400}}],
    "usage": {"prompt_tokens": 800, "completion_tokens": 350, "total_tokens": 1150},
}
ATTRIBUTES: dict[str, Any] = {f"key {n}": f"value {n}" if n % 2 else n for n in range(64)}

Figures = dict[str, float]
Call = Callable[[], Any]


def noop() -> None:
    pass


def two(a: int, b: int) -> int:
    return a + b


def complete(messages: list[dict[str, str]], model: str, temperature: float = 0.2) -> Any:
    return COMPLETION


def take(text: str) -> None:
    pass


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


async def pause() -> None:
    await asyncio.sleep(0)


def us_a_call(function: Call, calls: int) -> float:
    began = time.perf_counter_ns()
    for _ in range(calls):
        function()
    return (time.perf_counter_ns() - began) / calls / 1000


def chain_of_ten(decorate: Callable[[Any], Any]) -> Call:
    """A function that calls one that calls one ...: ten of them."""

    def innermost() -> None:
        pass

    def around(inner: Call) -> Call:
        def nested() -> None:
            inner()

        return decorate(nested)

    chain: Call = decorate(innermost)
    for _ in range(9):
        chain = around(chain)
    return chain


def floor_of(function: Call) -> Call | None:
    """The function behind ``floor.c``, where run.py has built it."""
    if "FASTTRACE_FLOOR" not in os.environ:
        return None
    sys.path.insert(0, os.environ["FASTTRACE_FLOOR"])
    from floor_core import Floor  # type: ignore[import-not-found]

    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("floor")
    floor: Call = Floor(function, variable.set, variable.reset)
    return floor


# ---- processes ----


def of_status(pid: int | str, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def senders() -> list[int]:
    """The processes that deliver for this one."""
    found = []
    for lock in glob.glob(os.environ.get("MLFLOW_FASTTRACE_SPOOL_DIR", "/none") + "/*/sender.lock"):
        words = Path(lock).read_text().split()
        if words and os.path.exists(f"/proc/{words[0]}"):
            found.append(int(words[0]))
    return found


def cpu_of_senders() -> float:
    """In seconds, of the threads that live."""
    spent = 0
    for pid in senders():
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            spent += int(Path(path).read_text().split()[0])
    return spent / 1e9


def peak_memory() -> Figures:
    """In megabytes."""
    return {
        "program": of_status("self", "VmHWM:") / 1024,
        "sender": sum(of_status(pid, "VmHWM:") for pid in senders()) / 1024,
    }


# ---- what is measured ----


class Measurement:
    """The figures of one tracer.

    Args:
        seconds: For how long the calls of a row go on at most.
    """

    def __init__(self, tracer: Tracer, uri: str, seconds: float, delivers: bool = True):
        self.tracer, self.uri, self.seconds, self.delivers = tracer, uri, seconds, delivers
        self.floor = floor_of(noop)
        self.figures: Figures = {}
        self._arrived = spans_at(uri) if delivers else 0
        self._recorded = 0

    def inside(self, body: Call) -> None:
        """Runs a body inside of a root."""

        def root() -> None:
            body()

        self.tracer.traced(root)()
        self._recorded += 1

    def delivered(self, row: str, more: bool = True) -> None:
        """Waits until what was recorded is delivered, and notes how much of it has arrived.

        Args:
            more: Whether it may wait for that of the next row, where flushing takes long.
        """
        if self.delivers and more and self._recorded <= self.tracer.pending:
            return
        self.tracer.flush()
        recorded, self._recorded = self._recorded, 0
        if not self.delivers:
            return
        last = self._arrived
        self._arrived = wait_for_spans(self.uri, last + recorded, 30, quiet=1.0)
        if recorded:
            self.figures[f"{row}.arrived"] = 100 * (self._arrived - last) / recorded

    def _number(self, traced: Call, spans: int, most: int) -> int:
        """How many calls fit into the time and the tracer's queue."""
        took = min(us_a_call(traced, 1) for _ in range(3)) / 1e6
        self._recorded += 3 * spans
        calls = min(self.seconds / max(took, 1e-9), self.tracer.calls / spans, most)
        return max(1, int(calls))

    def blocks(
        self, row: str, bare: Call, traced: Call, spans: int = 1, per: int = 1, most: int = 10**6
    ) -> None:
        """A call's cost, by blocks of calls.

        Args:
            spans: That a call records.
            per: What a call's cost is divided by.
            most: That many calls at most.
        """
        calls = self._number(traced, spans, most)
        blocks = min(BLOCKS, calls)
        calls //= blocks
        costs, floors = [], []
        for _ in range(blocks):
            untraced = us_a_call(bare, calls)
            if self.floor is not None:
                floors.append(us_a_call(self.floor, 100) - us_a_call(noop, 100))
            costs.append((us_a_call(traced, calls) - untraced) / per)
        self._recorded += blocks * calls * spans
        self.figures[f"{row}.us"] = statistics.median(costs)
        if floors:
            self.figures[f"{row}.floor"] = statistics.median(floors)

    def inner(self, row: str, bare: Call, traced: Call, **options: int) -> None:
        """The same of calls inside of a root."""
        self.inside(lambda: self.blocks(row, bare, traced, **options))
        self.delivered(row)

    def singles(self, row: str, call: Call, spans: int, most: int) -> None:
        """Median, p99, p99.9 and p99.99 of single calls, where there are enough of them."""
        times: list[int] = []
        now = time.perf_counter_ns
        left = self.seconds * 1e9
        while len(times) < most and left > 0:
            for _ in range(max(1, self.tracer.calls // spans)):
                began = now()
                call()
                times.append(now() - began)
                self._recorded += spans
                left -= times[-1]
                if left < 0 or len(times) == most:
                    break
            else:
                self.tracer.flush()
        times.sort()
        for name, share in ("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("p9999", 0.9999):
            if len(times) * (1 - share) >= 0.999:  # as many calls as that takes
                self.figures[f"{row}.{name}"] = times[math.ceil(len(times) * share) - 1] / 1000

    def burst(self, row: str, bare: Call, traced: Call) -> None:
        """Calls in a row, and the processors' time until they are delivered."""
        self.delivered(row, more=False)
        untraced = us_a_call(bare, BURST)
        program, sender = time.process_time(), cpu_of_senders()
        began = time.perf_counter()
        self.inside(lambda: self._burst(row, traced, untraced))
        self.tracer.flush()
        self.figures[f"{row}.delivered"] = time.perf_counter() - began
        spent = time.process_time() - program
        self.figures[f"{row}.program_cpu"] = spent / BURST * 1e6 - untraced
        if senders():
            self.figures[f"{row}.sender_cpu"] = (cpu_of_senders() - sender) / BURST * 1e6
        self.delivered(row, more=False)

    def _burst(self, row: str, traced: Call, untraced: float) -> None:
        self.figures[f"{row}.us"] = us_a_call(traced, BURST) - untraced
        self._recorded += BURST

    def threads(self, count: int, traced: Call) -> None:
        """Calls of so many threads at once: the time of all by the number of calls."""
        calls = self._number(traced, 1, self.tracer.calls // 2) // 5 // count
        calls = max(1, calls)

        def at_once(function: Call) -> float:
            barrier = threading.Barrier(count + 1)

            def work() -> None:
                barrier.wait()
                for _ in range(calls):
                    function()
                barrier.wait()

            workers = [threading.Thread(target=work) for _ in range(count)]
            for worker in workers:
                worker.start()
            barrier.wait()
            began = time.perf_counter_ns()
            barrier.wait()
            took = time.perf_counter_ns() - began
            for worker in workers:
                worker.join()
            return took / (calls * count) / 1000

        costs = []
        for _ in range(5):
            untraced = at_once(noop)
            costs.append(at_once(traced) - untraced)
        self._recorded += 5 * calls * count
        row = f"threads_{count}"
        self.figures[f"{row}.us"] = statistics.median(costs)
        self.delivered(row)

    def tasks(self, row: str) -> None:
        """A hundred tasks, that each pause once."""
        traced = self.tracer.traced(pause)

        async def gather(function: Callable[[], Any]) -> None:
            await asyncio.gather(*[function() for _ in range(100)])

        async def both() -> None:
            costs, floors = [], []
            await gather(traced)
            for _ in range(rounds):
                began = time.perf_counter_ns()
                await gather(pause)
                between = time.perf_counter_ns()
                await gather(traced)
                after = time.perf_counter_ns()
                costs.append((after - between - (between - began)) / 100 / 1000)
                if self.floor is not None:
                    floors.append(us_a_call(self.floor, 100) - us_a_call(noop, 100))
            self.figures[f"{row}.us"] = statistics.median(costs)
            if floors:
                self.figures[f"{row}.floor"] = statistics.median(floors)

        rounds = min(BLOCKS, self.tracer.calls // 100 - 1)
        self.inside(lambda: asyncio.run(both()))
        self._recorded += 100 * (rounds + 1)
        self.delivered(row)


def consume(function: Callable[[int], Iterator[int]], count: int) -> None:
    for _ in function(count):
        pass


def micro(measured: Measurement) -> None:
    """What calls cost, delivering to the sink."""
    tracer = measured.tracer
    decorate = tracer.traced
    traced = decorate(noop)
    measured.inner("noop", noop, traced)
    measured.inside(lambda: measured.singles("noop_single", traced, 1, 20_000))
    measured.delivered("noop_single")
    bare_two, traced_two = two, decorate(two)
    measured.inner("two", lambda: bare_two(1, 2), lambda: traced_two(1, 2))
    measured.inner("nested", chain_of_ten(lambda f: f), chain_of_ten(decorate), spans=10)
    chat = decorate(complete)
    bare_chat, traced_chat = lambda: complete(MESSAGES, "m"), lambda: chat(MESSAGES, "m")
    measured.inner("chat", bare_chat, traced_chat, most=400)
    measured.inner(
        "start_span",
        noop,
        lambda: tracer.step({"question": "why", "k": 3}, "because", "score", 0.5),
    )
    measured.inner("attributes", noop, lambda: tracer.attributes(ATTRIBUTES))
    measured.blocks("root", noop, traced, most=200)
    measured.delivered("root")

    def leaf_calls() -> None:
        for _ in range(4):
            traced()

    measured.singles("root_of_5", decorate(leaf_calls), 5, 20_000)
    measured.delivered("root_of_5")
    measured.tasks("async")
    generator = decorate(numbers)
    for count, most in (100, 100), (10_000, 5):
        measured.inner(
            f"generator_{count}",
            lambda n=count: consume(numbers, n),
            lambda n=count: consume(generator, n),
            per=count,
            most=most,
        )
    for count in (1, 2, 8):
        measured.threads(count, traced)
    measured.burst("burst_noop", noop, traced)
    measured.burst("burst_chat", bare_chat, traced_chat)
    memory = peak_memory()
    measured.figures |= {f"memory.{key}": value for key, value in memory.items() if value}
    taken = decorate(take)
    for row, size, most in ("text_100_kb", 100_000, 40), ("text_5_mb", 5_000_000, 3):
        text = "z" * size
        measured.inner(row, lambda t=text: take(t), lambda t=text: taken(t), most=most)
    measured.delivered("text_5_mb", more=False)
    memory = peak_memory()
    measured.figures |= {f"memory_5_mb.{key}": value for key, value in memory.items() if value}


def switched(measured: Measurement) -> None:
    """What a call costs that is not recorded."""
    row = "off" if sys.argv[2] == "off" else "unsampled"
    traced = measured.tracer.traced(noop)
    measured.inside(lambda: measured.blocks(row, noop, traced))
    measured.tracer.flush()


def live(measured: Measurement) -> None:
    """100 traces of 11 spans to a real server or database, until it has them all."""
    from mlflow.tracking import MlflowClient

    tracer = measured.tracer
    client = MlflowClient()

    def leaf(n: int) -> dict[str, int]:
        return {"n": n}

    leaf = tracer.traced(leaf)

    def root(n: int) -> None:
        for i in range(10):
            leaf(i)

    root = tracer.traced(root)

    def arrived(details: bool = False) -> list[Any]:
        traces: list[Any] = client.search_traces(
            locations=["0"], max_results=500, include_spans=details
        )
        return traces

    root(-1)
    tracer.flush()
    before = len(arrived())
    program, sender = time.process_time(), cpu_of_senders()
    began = time.perf_counter()
    for n in range(100):
        root(n)
    caller = time.perf_counter() - began
    tracer.flush()
    program = time.process_time() - program
    sender = cpu_of_senders() - sender
    while len(arrived()) < before + 100:
        time.sleep(0.01)
    until = time.perf_counter() - began
    spans = 100 * 11
    measured.figures |= {
        "us": caller / spans * 1e6,
        "program_cpu": program / spans * 1e6,
        "delivered": until,
    }
    if sender:
        measured.figures["sender_cpu"] = sender / spans * 1e6
    newest = arrived(details=True)[:100]
    measured.figures["arrived"] = 100 * sum(len(trace.data.spans) for trace in newest) / spans


def down(measured: Measurement) -> None:
    """100 traces of two spans after the server has gone."""
    traced = measured.tracer.traced(noop)

    def root() -> None:
        traced()

    root = measured.tracer.traced(root)
    root()
    measured.tracer.flush()
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    measured.figures["down.us"] = us_a_call(root, 100) / 2


def later(measured: Measurement) -> None:
    """A span more, when the server is there again: what has arrived of those before, and of it."""
    measured.tracer.traced(noop)()
    measured.tracer.flush()
    measured.figures["arrived"] = wait_for_spans(measured.uri, 201, 15, quiet=3)


PARTS: dict[str, Callable[[Measurement], None]] = {
    "micro": micro,
    "switched": switched,
    "live": live,
    "down": down,
    "later": later,
}


# ---- what does not take a tracer ----


def msgspec_chat() -> Figures:
    """What msgspec takes to encode the inputs and outputs of the chat-sized call."""
    import msgspec  # type: ignore[import-not-found]

    encode = msgspec.msgpack.encode
    inputs = {"messages": MESSAGES, "model": "m", "temperature": 0.2}

    def both() -> None:
        encode(inputs)
        encode(COMPLETION)

    both()
    return {"chat.us": statistics.median(us_a_call(both, 100) for _ in range(50))}


def installed_size(packages: tuple[str, ...]) -> Figures:
    """Megabytes of the files of distributions, and of all that they need besides."""
    from packaging.requirements import Requirement

    def size(distribution: importlib.metadata.Distribution) -> int:
        if distribution.metadata["Name"] == "mlflow-fasttrace":  # in place, for developers
            module = importlib.import_module("mlflow_fasttrace")
            files = [path for path in Path(module.__path__[0]).rglob("*") if path.is_file()]
        else:
            files = [Path(str(file.locate())) for file in distribution.files or []]
        return sum(path.stat().st_size for path in files if path.suffix != ".pyc" and path.exists())

    sizes: dict[str, int] = {}
    waiting = list(packages)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in sizes:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # only another platform needs it
        sizes[name] = size(distribution)
        for line in distribution.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    own = sum(sizes[name] for name in packages)
    return {"size.own": own / 1e6, "size.needed": (sum(sizes.values()) - own) / 1e6}


def main() -> None:
    name, mode, what, uri, seconds = sys.argv[1:]
    if name == "msgspec":
        print(json.dumps(msgspec_chat()), flush=True)
        return
    kind = adapter(name)
    if what == "size":
        print(json.dumps(installed_size(kind.packages)), flush=True)
        return
    began = time.perf_counter()
    for module in kind.imports:
        importlib.import_module(module)
    tracer = kind(uri, mode)
    if what not in ("down", "later"):
        tracer.traced(noop)()
    first = (time.perf_counter() - began) * 1000
    if what == "micro":
        tracer.flush()
    measured = Measurement(tracer, uri, float(seconds), delivers=what == "micro")
    if what == "micro":
        measured.figures["first.ms"] = first
    PARTS[what](measured)
    print(json.dumps(measured.figures), flush=True)


if __name__ == "__main__":
    main()
