"""Recursion of traced functions with a raised limit ends in RecursionError, never in an overflow of the C
stack: in the main thread, in threads, in one with a small stack, through generators."""

from __future__ import annotations

import os
import resource
import sys
import threading

import mlflow_fasttrace as mlflow

STACK_BYTES = 256 << 10  # a program with the usual 8 MiB takes as many times longer

if resource.getrlimit(resource.RLIMIT_STACK)[0] != STACK_BYTES:
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, STACK_BYTES))
    os.execv(sys.executable, [sys.executable, "-m", "programs.soundness.recursion"])

# From 3.12 on Python bounds calls through C itself, and takes long to show a deep traceback.
sys.setrecursionlimit(10**6 if sys.version_info < (3, 12) else 200)
threading.stack_size(STACK_BYTES)


@mlflow.trace
def function(n):
    return 0 if n == 0 else function(n - 1) + 1


@mlflow.trace
def generator(n):
    if n:
        yield from generator(n - 1)
    yield n


class Deep:
    @mlflow.trace
    def __str__(self):
        return str(self)


ways = {
    "a function": lambda: function(200_000),
    "a generator": lambda: sum(1 for _ in generator(100_000)),
    "a value's own code": lambda: function(0) and str(Deep()),
}
errors: list[str] = []


def run(name):
    try:
        ways[name]()
    except RecursionError:
        pass
    except BaseException as error:
        errors.append(f"{name}: {error!r}")
    if function(50) != 50:
        errors.append(f"{name}: a call of usual depth fails afterwards")


def in_thread(name):
    thread = threading.Thread(target=run, args=(name,))
    thread.start()
    thread.join()


for name in ways:
    run(name)
    in_thread(name)
threading.stack_size(128 * 1024)
# In less stack than this limit takes, every Python comes to the end of it, and shows a traceback there.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 1000))
in_thread("a function")
assert not errors, errors
assert mlflow.get_current_active_span() is None
