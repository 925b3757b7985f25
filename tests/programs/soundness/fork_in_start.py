"""A span that was open at a fork, and ends in the child while that is about to record to a ring of its own,
as one that a finalizer ends does: its record waits, and has the time of the end."""

from __future__ import annotations

import os
import time

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording.rings import rings

from programs.soundness.recorded import span_records

span = mlflow.start_span_no_context("open at the fork")
forget = rings.forget


def ends_the_span():
    forget()
    span.end()


rings.forget = ends_the_span
pid = os.fork()
if pid == 0:
    status = 1
    try:
        assert span.end_time_ns is None
        before = time.time_ns()
        with mlflow.start_span("in the child"):
            pass
        (first, second) = [_core.decode(record) for record in span_records()]
        assert b"open at the fork" in span_records()[0], (first, second)
        assert span.end_time_ns < before
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(pid, 0) == (pid, 0)
