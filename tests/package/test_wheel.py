"""One wheel for every Python: tagged cp310-abi3, nothing outside the Limited API, run on each."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest
from support.pythons import EACH_VERSION, pip_install, venv_of


def test_the_wheel_is_tagged_for_every_python(wheel):
    assert "-cp310-abi3-" in wheel.name


def test_the_wheel_keeps_to_the_limited_api(wheel):
    audit = [sys.executable, "-m", "abi3audit", "--strict", wheel]
    result = subprocess.run(audit, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_wheel_has_stubs_for_type_checkers(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for module in ("", "entities/", "genai/scorers/", "tracing/fluent/"):
        assert f"mlflow_fasttrace-stubs/{module}__init__.pyi" in names


SMOKE = """
import asyncio, gc, inspect, os, sys
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

assert inspect.iscoroutinefunction(call) and inspect.isgeneratorfunction(stream)
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
"""


@pytest.mark.parametrize("version", EACH_VERSION)
def test_the_wheel_runs_on_this_python(wheel, own_spool, tmp_path, version):
    python = venv_of(version, tmp_path / "venv")
    pip_install(python, "platformdirs>=4")
    pip_install(python, "--no-deps", wheel)
    result = subprocess.run(
        [python, "-X", "dev", "-c", SMOKE],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            "MLFLOW_FASTTRACE_SENDER": "none",
        },
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("ran on")
