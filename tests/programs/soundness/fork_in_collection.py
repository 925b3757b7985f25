"""A fork while a finalizer runs in another thread: a thread of the child that gets the number of that thread
has its spans in the context variable, as any other."""

from __future__ import annotations

import gc
import os
import threading
import warnings

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core

# Python warns of the fork of a process with threads, which is the point here.
warnings.filterwarnings("ignore", category=DeprecationWarning)
inside, end = threading.Event(), threading.Event()


class Waits:
    def __init__(self):
        self.me = self

    def __del__(self):
        inside.set()
        end.wait(60)


def collect():
    Waits()
    gc.collect()


def in_child() -> bool:
    found = []

    def work():
        with mlflow.start_span("span") as span:
            found.append(_core.current_span_var.get() is span)

    for _ in range(4):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    return found == [True] * 4


with mlflow.start_span("first"):
    pass
thread = threading.Thread(target=collect)
thread.start()
inside.wait()
pid = os.fork()
if pid == 0:
    os._exit(0 if in_child() else 1)
_, status = os.waitpid(pid, 0)
end.set()
thread.join()
assert status == 0, status
