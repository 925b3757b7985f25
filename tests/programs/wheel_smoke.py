"""Every kind of span, recorded with nothing but the package: run by tests of wheels."""

import asyncio
import gc
import inspect
import os
import sys

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording.rings import rings

assert "mlflow" not in sys.modules


@mlflow.trace
def leaf(x, *rest, y=2, **others):
    return x


@mlflow.trace
def stream(n):
    for i in range(n):
        leaf(i)
        yield i


@mlflow.trace
async def call(n):
    await asyncio.sleep(0)
    return leaf(n)


@mlflow.trace
async def items(n):
    for i in range(n):
        yield i


@mlflow.trace
def fails():
    raise ValueError("no")


async def main():
    await asyncio.gather(*(call(n) for n in range(3)))
    assert [i async for i in items(2)] == [0, 1]


assert inspect.iscoroutinefunction(call)
assert inspect.isgeneratorfunction(stream)
for _ in range(200):
    with mlflow.start_span("root") as span:
        span.set_inputs({"deep": [{"a": 1.5, "b": None, "c": b"x"}], "big": 10**30})
        assert list(stream(2)) == [0, 1]
        asyncio.run(main())
        try:
            fails()
        except ValueError:
            pass
    coroutine = call(1)
    coroutine.send(None)
    del coroutine
    for _ in stream(3):
        break
    gc.collect()
assert mlflow.get_current_active_span() is None
(ring,) = rings.in_use.values()
reader = _core.RingReader(ring.path)
kinds = [kind for _, kind, _, _ in reader.drain(1 << 30)]
assert kinds.count(1) == 200 * 15, kinds.count(1)
os.unlink(ring.path)
print("ran on", sys.version_info[:2])
