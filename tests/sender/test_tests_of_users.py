"""A program that reads its traces at once, each from a database of its own: the tests that users write."""

from __future__ import annotations

import json

import pytest
from mlflow_fasttrace._internal.spool.overview import all_spools, something_waits
from support.traces import traces_of
from support.waiting import wait_until

SUITE = """
import json, os, shutil, threading, time, types
import mlflow
import mlflow_fasttrace as fasttrace
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow_fasttrace._internal.recording import deferred_starts, supervisor as module
from mlflow_fasttrace._internal.recording.rings import rings
module.STARTING_SECONDS = 60.0  # that a sender may take until it is seen, on a slow machine
{prepare}
supervisor = module.supervisor
SqlAlchemyStore("sqlite:///" + os.path.abspath("empty.db"), ".")
started, spawn = [], supervisor._spawn
supervisor._spawn = lambda *args: (started.append(args), spawn(*args))

@fasttrace.trace
def answer(n):
    return n

def test(n):
    path = os.path.abspath(str(n) + ".db")
    shutil.copy("empty.db", path)
    fasttrace.set_tracking_uri("sqlite:///" + path)
    assert answer(n) == n
    {then}
    trace = fasttrace.get_trace(fasttrace.get_last_active_trace_id())
    return [span.inputs for span in trace.data.spans]

read = [test(n) for n in range({tests})]
print(json.dumps([read, len(started), len(list(rings)), threading.active_count()]))
"""
PATIENT = "deferred_starts.DEFERRED_SECONDS = 30.0"


def suite(run_program, tests: int, prepare: str, then: str = ""):
    process = run_program(SUITE.format(tests=tests, prepare=prepare, then=then))
    assert process.returncode == 0, process.err
    read, started, rings, threads = json.loads(process.out.splitlines()[-1])
    assert read == [[{"n": n}] for n in range(tests)]
    assert rings <= 2
    assert threads <= 3
    return started


def test_who_reads_at_once_starts_no_process(own_spool, run_program):
    """A thread delivers what is waited for, and the rings of former databases are let go of."""
    assert suite(run_program, 20, PATIENT) == 0
    assert not list(own_spool.glob("*/*.seg"))


@pytest.mark.long
def test_who_reads_often_gets_a_sender(own_spool, run_program):
    """A program that reads again and again, from one database."""
    then = """for _ in range(20):
        answer(n)
        fasttrace.get_trace(fasttrace.get_last_active_trace_id())"""
    assert suite(run_program, 1, PATIENT, then) >= 1


@pytest.mark.long
def test_what_nobody_waits_for_gets_a_sender(own_spool, run_program):
    """It is started while the program does something else."""
    then = """(ring,) = [ring for ring in rings if ring.uri.endswith(path)]
    while not ring.progress().is_delivered: time.sleep(0.01)"""
    assert suite(run_program, 1, "deferred_starts.DEFERRED_SECONDS = 0.0", then) == 1


NO_THREADS = """
def no_thread(*_args, **_kwargs): raise RuntimeError("no more threads")
module.threading = deferred_starts.threading = types.SimpleNamespace(
    Thread=no_thread, current_thread=threading.current_thread
)
"""


@pytest.mark.long
def test_a_sender_is_started_at_once_where_no_thread_may_be(own_spool, run_program):
    assert suite(run_program, 1, PATIENT + NO_THREADS) == 1


IN_A_HURRY = """
import os
import mlflow_fasttrace as fasttrace
import mlflow
fasttrace.set_tracking_uri("sqlite:///" + os.path.abspath("late.db"))
with fasttrace.start_span("late"):
    pass
"""


@pytest.mark.parametrize("seconds", ["0.001", "0.5"], ids=["before", "while"])
def test_a_program_that_ends_before_its_thread_has_delivered_leaves_a_sender(
    own_spool, run_program, seconds
):
    """The thread has not come to the lock yet, or has it and makes the database's tables."""
    process = run_program(IN_A_HURRY, MLFLOW_FASTTRACE_EXIT_TIMEOUT=seconds)
    assert process.returncode == 0, process.err
    assert "by the sender that has just been started" in process.err
    wait_until(lambda: not any(map(something_waits, all_spools())), 90, "delivery")
    assert len(traces_of(f"sqlite:///{process.folder}/late.db", "Default")) == 1
