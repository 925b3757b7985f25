"""Programs under test: their tests freeze time, and put functions, sockets and file systems of their own in
the place of Python's. Traces are recorded and delivered all the same, by a sender process."""

from __future__ import annotations

import json

import pytest
from support.otlp_receiver import Receiver
from support.spools import sender_pids
from support.waiting import refusing_port

BEGINNING = """
import contextlib, datetime, faulthandler, inspect, json, os, sys, time
from unittest import mock
import mlflow_fasttrace as mlflow
from mlflow_fasttrace._internal.recording.flush import flush
from mlflow_fasttrace._internal.recording.supervisor import supervisor
faulthandler.dump_traceback_later(100, exit=True)
"""

#: Records the first trace of the program, and prints what became of it.
RECORDS = (
    BEGINNING
    + """
@mlflow.trace
def traced():
    return 1

with {patched}:
    traced()
    delivered = flush({seconds})
print(json.dumps([delivered, len(supervisor._threads), "mlflow" in sys.modules]))
"""
)

FROZEN = {
    "freezegun": '__import__("freezegun").freeze_time("2020-01-01")',
    "freezegun that ticks": '__import__("freezegun").freeze_time("2020-01-01", tick=True)',
    "time-machine": '__import__("time_machine").travel("2020-01-01", tick=False)',
    "time-machine that ticks": '__import__("time_machine").travel("2020-01-01", tick=True)',
    "time.time": 'mock.patch("time.time", return_value=0.0)',
    "time.monotonic": 'mock.patch("time.monotonic", return_value=0.0)',
    "time.sleep": 'mock.patch("time.sleep", side_effect=AssertionError)',
}

PATCHED = {
    "subprocess.run": 'mock.patch("subprocess.run")',
    "subprocess.Popen": 'mock.patch("subprocess.Popen")',
    "open": 'mock.patch("builtins.open", mock.mock_open())',
    "os.listdir": 'mock.patch("os.listdir", return_value=[])',
    "os.open": 'mock.patch("os.open", side_effect=FileNotFoundError)',
    "os.path.exists": 'mock.patch("os.path.exists", return_value=False)',
    "os.kill": 'mock.patch("os.kill")',
    "fcntl.flock": 'mock.patch("fcntl.flock")',
    "socket.socket": 'mock.patch("socket.socket", side_effect=OSError)',
    "threading.Thread": 'mock.patch("threading.Thread")',
    "pyfakefs": '__import__("pyfakefs.fake_filesystem_unittest").fake_filesystem_unittest.Patcher()',
    "responses": '__import__("responses").RequestsMock()',
    "pytest-socket": "contextlib.nullcontext(__import__('pytest_socket').disable_socket())",
}


@pytest.fixture
def collector():
    with Receiver() as receiver:
        yield receiver


def variables(uri: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{uri}/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "MLFLOW_FASTTRACE_EXIT_TIMEOUT": "0",
    }


@pytest.mark.parametrize("name", [*FROZEN, *PATCHED])
def test_a_patched_program_s_traces_are_delivered(name, own_spool, run_program, collector):
    patched = {**FROZEN, **PATCHED}[name]
    program = run_program(RECORDS.format(patched=patched, seconds=60), **variables(collector.uri))
    assert program.returncode == 0, program.err
    assert json.loads(program.out.splitlines()[-1]) == [True, 0, False], program.err
    assert len(collector.requests) == 1
    assert program.pid not in sender_pids(own_spool)


@pytest.mark.parametrize("name", FROZEN)
def test_a_flush_ends_while_time_is_frozen(name, own_spool, run_program):
    """Nobody listens at the destination."""
    uri = f"http://127.0.0.1:{refusing_port()}"
    program = run_program(RECORDS.format(patched=FROZEN[name], seconds=0.5), **variables(uri))
    assert program.returncode == 0, program.err
    assert json.loads(program.out.splitlines()[-1]) == [False, 0, False], program.err


def test_time_may_be_frozen_by_a_decorator_and_before_the_import(own_spool, run_program, collector):
    code = (
        "from freezegun import freeze_time\nfreezer = freeze_time('2020-01-01')\nfreezer.start()\n"
        + BEGINNING
        + """
@freeze_time("2021-01-01")
@mlflow.trace
def traced():
    return datetime.datetime.now().year

assert traced() == 2021
delivered = flush(60)
freezer.stop()
print(json.dumps(delivered))
"""
    )
    program = run_program(code, **variables(collector.uri))
    assert program.returncode == 0, program.err
    assert program.out.splitlines()[-1] == "true"


#: Lists all names of the package and of its public modules, and looks at those that are its own, as debuggers,
#: completion and tests do.
LOOKS = (
    BEGINNING
    + """
import doctest, pydoc
import mlflow_fasttrace.otel
modules = [mlflow, mlflow.entities, mlflow.fluent, mlflow.otel, mlflow.traces, mlflow.tracing]
for module in modules:
    own = {*vars(module), *getattr(module, "_OWN", ()), "__wrapped__", "__test__", "_ipython_display_"}
    for name in {*own, *dir(module)}:
        if name in own or name.startswith("_"):
            getattr(module, name, None)
    doctest.DocTestFinder().find(module, module.__name__)
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] == "mlflow")))
assert mlflow.search_traces is mlflow.search_traces
mlflow.install()
import mlflow as real
assert inspect.signature(mlflow.search_traces) == inspect.signature(real.search_traces)
assert mlflow.search_traces.__doc__ == real.search_traces.__doc__
"""
)


def test_looking_at_the_names_imports_nothing_of_mlflow(run_program):
    program = run_program(LOOKS)
    assert program.returncode == 0, program.err
    assert json.loads(program.out.splitlines()[-1]) == []
