"""Nothing of the program's side hangs where it is interrupted: by a signal handler, a finalizer or a fork in
the middle of this package's own code, or by other threads."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from mlflow_fasttrace import otel
from mlflow_fasttrace._internal.base import locks, log
from mlflow_fasttrace._internal.recording import destination, start, supervisor, timeout
from mlflow_fasttrace._internal.seams import provider
from support.processes import ROOT

#: By name: what is called again and again, with a number that is another one each time.
CALLS = {
    "warn": "lambda n: log.warn(str(n))",
    "trace_disabled": "lambda n: disabled()",
    "set_experiment": "lambda n: destination.set_experiment(experiment_id=str(n))",
    "uninstall": "lambda n: mlflow_fasttrace.uninstall()",
}

BEGINNING = """
import faulthandler, itertools, logging, os, signal, threading, time
import mlflow_fasttrace
from mlflow_fasttrace import tracing
from mlflow_fasttrace._internal.base import log
from mlflow_fasttrace._internal.recording import destination
faulthandler.dump_traceback_later(60, exit=True)
logging.getLogger("mlflow_fasttrace").addHandler(logging.NullHandler())
logging.getLogger("mlflow_fasttrace").propagate = False
disabled = tracing.trace_disabled(int)
mlflow_fasttrace.uninstall()  # imports what it needs
numbers = itertools.count()
call = {call}
"""

IN_A_SIGNAL_HANDLER = (
    BEGINNING
    + """
inside = []

def handle(*_):
    if not inside:  # on a slow machine handlers would interrupt each other without end
        inside.append(1)
        call(next(numbers))
        inside.clear()

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
end = time.monotonic() + 1.5
while time.monotonic() < end:
    call(next(numbers))
signal.setitimer(signal.ITIMER_REAL, 0)
print("ended")
"""
)

IN_A_FORKED_CHILD = (
    BEGINNING
    + """
import sys
sys.setswitchinterval(1e-5)

def work():
    while not ended:
        call(next(numbers))

ended = False
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
hung = 0
for _ in range(150):
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        call(-1)
        os._exit(0)
    hung += os.waitpid(child, 0)[1] != 0
    if hung:
        break
ended = True
for thread in threads:
    thread.join()
print("hung" if hung else "ended")
"""
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "program", [IN_A_SIGNAL_HANDLER, IN_A_FORKED_CHILD], ids=["signal", "fork"]
)
def test_a_call_may_interrupt_itself(program, call, run_program):
    result = run_program(program.format(call=CALLS[call]))
    assert result.returncode == 0, result.err
    assert result.out == "ended\n"


INTERRUPTED = """
import os, random, signal, threading, time
os.environ["MLFLOW_FASTTRACE_SENDER"] = "none"
import mlflow_fasttrace
from mlflow_fasttrace._internal.base import locks, log
from mlflow_fasttrace._internal.recording import destination, start, supervisor

class Alarm(Exception):
    pass

raised = 0

def handle(*_):
    global raised
    raised += 1
    raise Alarm

def begin():
    destination.reset()
    start.start()

lock = locks.Lock()

def take():
    with lock:
        pass

def work(call, before):
    while raised == before:
        call()

signal.signal(signal.SIGALRM, handle)
calls = take, begin, supervisor.supervisor.restart, lambda: log._warned.is_due("warning")
for call in calls:
    call()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-4))
            work(call, raised)
        except Alarm:
            pass
free = []
looks = lambda: free.extend(one.acquire(timeout=5) for one in list(locks._locks))
other = threading.Thread(target=looks)
other.start()
other.join()
assert raised > 100 and len(free) == 5 and all(free), (raised, free)
print("ended")
"""


def test_an_exception_of_a_signal_handler_leaves_no_lock_taken(run_program):
    result = run_program(INTERRUPTED)
    assert result.returncode == 0, result.err
    assert result.out == "ended\n"


TIMEOUTS = """
import os, random, signal, time
import mlflow_fasttrace
from mlflow_fasttrace._internal.recording import destination, start, supervisor
from mlflow_fasttrace._internal.spool.folder import spool_for
from mlflow_fasttrace._internal.spool.lock import sender_of

raised = 0

def handle(*_):
    global raised
    raised += 1
    raise TimeoutError  # an OSError

def begin():
    destination.reset()
    start.start()

def work(call, before):
    while raised == before:
        call()

signal.signal(signal.SIGALRM, handle)
begin()
spool = spool_for("http://127.0.0.1:9")
for call in begin, supervisor.supervisor.restart, lambda: sender_of(spool):
    end, caught, raised = time.monotonic() + 1, 0, 0
    while time.monotonic() < end:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1e-4))
            work(call, raised)
        except TimeoutError:
            caught += 1
    assert raised > 100, raised
    assert raised == caught, (call, raised - caught)
print("ended")
"""


def test_no_timeout_error_of_a_signal_handler_is_taken_for_a_files(own_spool, run_program):
    result = run_program(
        TIMEOUTS, MLFLOW_FASTTRACE_SENDER="none", MLFLOW_TRACKING_URI="http://127.0.0.1:9"
    )
    assert result.returncode == 0, result.err
    assert result.out == "ended\n"


def test_a_forked_child_keeps_the_lock_that_its_own_thread_holds():
    lock, other = locks.Lock(), locks.Lock()
    held, go = threading.Event(), threading.Event()

    def hold():
        with suppress(RuntimeError), other:  # the lock that it gives back is another one by then
            held.set()
            go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    with lock:
        locks.after_fork()  # as in a child, which has this thread alone
        assert other.acquire(blocking=False)
        other.release()
        taken = []
        child = threading.Thread(target=lambda: taken.append(lock.acquire(blocking=False)))
        child.start()
        child.join()
        assert taken == [False]
    go.set()
    thread.join(60)


def test_one_lock_is_waited_for_without_an_end(run_program):
    """A finalizer may come in the middle of what a lock guards and take another one, in two threads the other way
    round. Of the other three, who holds any lock does not wait for the start's, nobody waits for the restart's,
    and the third is MLflow's want of one."""
    program = run_program(
        """
import importlib, pkgutil
import mlflow_fasttrace
for module in pkgutil.walk_packages(mlflow_fasttrace.__path__, "mlflow_fasttrace."):
    if "__main__" not in module.name:
        importlib.import_module(module.name)
from mlflow_fasttrace._internal.base import locks
from mlflow_fasttrace._internal.recording import start, supervisor
from mlflow_fasttrace._internal.spool import database
others = {start._starting.lock, supervisor.supervisor._restart_lock, database._making}
print(set(locks._all()) - others == {locks.brief})
"""
    )
    assert program.out == "True\n", program.err


def test_threads_that_warn_at_once_log_one_line(monkeypatch):
    monkeypatch.setattr(log, "_warned", log._Warned())
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    due = []

    def warn():
        barrier.wait(60)
        for n in range(900):
            if log._warned.is_due(f"warning {n}"):
                due.append(n)

    try:
        barrier = threading.Barrier(4)
        threads = [threading.Thread(target=warn) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert sorted(due) == list(range(900))


def test_a_warning_is_due_again_after_a_minute(monkeypatch):
    monkeypatch.setattr(log, "_warned", log._Warned())
    monkeypatch.setattr(log.clock, "monotonic", lambda: now)
    now = 100.0
    assert log._warned.is_due("warning")
    now = 159.0
    assert not log._warned.is_due("warning")
    now = 160.0
    assert log._warned.is_due("warning")
    assert not log._warned.is_due("warning")


def test_a_finalizer_in_the_middle_of_a_choice_does_not_wait_for_another_threads_start():
    """That thread may wait for the choice to be made."""
    held, go = threading.Event(), threading.Event()

    def starts():
        with start._starting.lock:
            held.set()
            go.wait(60)

    thread = threading.Thread(target=starts)
    thread.start()
    held.wait(60)
    try:
        with locks.brief:
            assert start.start() is True, "what is recorded here is put off"
    finally:
        go.set()
        thread.join(60)


def test_warnings_are_remembered_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(log, "_warned", log._Warned())
    assert log._warned.is_due("first")
    assert not log._warned.is_due("first")
    for n in range(3000):
        assert log._warned.is_due(f"trace {n}")
    assert len(log._warned.at) <= log._REMEMBERED
    assert not log._warned.is_due("trace 2999")


def test_nobody_waits_while_a_sender_is_started_again(monkeypatch, recorded):
    """Neither who chooses where traces go, nor another thread that finds the sender gone."""
    entered, go = threading.Event(), threading.Event()

    def ensure_sender(ring):
        entered.set()
        assert go.wait(60)

    monkeypatch.setattr(supervisor.supervisor, "ensure_sender", ensure_sender)
    monkeypatch.setitem(supervisor.rings.in_use, "test", supervisor.Ring(None, "", None, None, ""))
    thread = threading.Thread(target=supervisor.supervisor.restart)
    thread.start()
    assert entered.wait(60)
    chooses = threading.Thread(
        target=destination.set_experiment, kwargs={"experiment_id": "1"}, daemon=True
    )
    restarts = threading.Thread(target=supervisor.supervisor.restart, daemon=True)
    for other in (chooses, restarts):
        other.start()
        other.join(30)
        assert not other.is_alive()
    go.set()
    thread.join(60)


def test_an_encoding_that_was_reset_meanwhile_is_not_kept(monkeypatch):
    monkeypatch.setattr(destination, "route", lambda: (destination.reset(), ("file:///a", None))[1])
    assert destination.encode_for("7")
    assert destination.chosen.encoded == {}
    monkeypatch.setattr(destination, "route", lambda: ("file:///a", None))
    encoded = destination.encode_for("7")
    assert destination.chosen.encoded == {"7": encoded}
    destination.reset()


def test_what_recording_can_do_without_stops_neither_it_nor_the_sender(own_spool, run_program):
    program = run_program(
        """
import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import timeout
from mlflow_fasttrace._internal.recording.supervisor import supervisor

def watch():
    raise RuntimeError("can't start new thread")

timeout.watch = watch
with mlflow.start_span("span") as span:
    print(type(span) is _core.LiveSpan, len(supervisor._starts))
""",
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        MLFLOW_FASTTRACE_EXIT_TIMEOUT="0",
    )
    assert program.out == "True 1\n", program.err
    assert "can't start new thread. Traces are recorded all the same." in program.err


@pytest.mark.parametrize("interval", ["inf", "1e300"])
def test_an_endless_interval_does_not_end_the_thread_that_looks(interval, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACE_TIMEOUT_SECONDS", "1000")
    monkeypatch.setenv("MLFLOW_TRACE_TIMEOUT_CHECK_INTERVAL_SECONDS", interval)
    monkeypatch.setattr(timeout, "_thread_pid", None)
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    before = set(threading.enumerate())
    timeout.watch()
    (thread,) = set(threading.enumerate()) - before
    thread.join(0.5)  # it ends at once where it cannot wait so long
    assert thread.is_alive()
    assert raised == []


def test_a_thread_that_could_not_be_started_is_started_later(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACE_TIMEOUT_SECONDS", "1000")
    monkeypatch.setattr(timeout, "_thread_pid", None)

    def start(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError):
            timeout.watch()
    before = set(threading.enumerate())
    timeout.watch()
    (thread,) = set(threading.enumerate()) - before
    assert thread.name == "mlflow-fasttrace-timeout"


@pytest.mark.parametrize("name", ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore"])
def test_ruff_refuses_the_next_plain_lock(name):
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "json", "-"]
    result = subprocess.run(
        [*command, "--stdin-filename", "python/mlflow_fasttrace/_internal/recording/new.py"],
        input=f"import threading\n\nlock = threading.{name}()\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    (fault,) = json.loads(result.stdout)
    assert fault["code"] == "TID251"
    assert "base/locks.py" in fault["message"]


@pytest.mark.parametrize(
    ("module", "name", "kept", "made"),
    [
        (otel, "_default_provider", "_default_providers", "TracerProvider"),
        (provider, "core_provider", "_core_providers", "CoreTracerProvider"),
    ],
)
def test_threads_that_ask_at_once_get_one_provider(module, name, kept, made, monkeypatch):
    """Each makes one before any is kept."""
    cls = getattr(module, made)
    barrier = threading.Barrier(2)

    def make():
        barrier.wait(60)
        return cls()

    monkeypatch.setattr(module, made, make)
    monkeypatch.setattr(module, kept, {})
    got = []
    threads = [threading.Thread(target=lambda: got.append(getattr(module, name)())) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] is got[1]
