"""Threads that import MLflow at once, by this package's names or by MLflow's own: the first one imports
it and the others wait, as with ``import mlflow`` alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from importlib.machinery import ModuleSpec

import pytest
from mlflow_fasttrace._internal.base import locks, patching
from mlflow_fasttrace._internal.recording import destination, root_context
from support.lengths import long_but

#: Runs each of ACTIONS in a thread of its own, all at once, and prints what they raised, and whether
#: MLflow is whole and runs on the core afterwards.
PROGRAM = """
import faulthandler, json, sys, threading
faulthandler.dump_traceback_later(100, exit=True)
{imports}
barrier = threading.Barrier(6)
raised = []

def run(action):
    barrier.wait()
    try:
        action()
    except BaseException as error:
        raised.append(repr(error))

ACTIONS = {actions}
assert "mlflow" not in sys.modules and len(ACTIONS) == 6
threads = [threading.Thread(target=run, args=(action,)) for action in ACTIONS]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
import mlflow as real
import mlflow.entities, mlflow.tracing.fluent, mlflow_fasttrace
whole = [real.log_metric, real.entities.Trace, real.version.VERSION, real.tracing.fluent.trace]
with real.start_span("span") as span:
    core = type(span) is mlflow_fasttrace._core.LiveSpan
print(json.dumps([raised, len(whole), core, mlflow_fasttrace.is_installed()]))
"""

DROP_IN = "import mlflow_fasttrace as mlflow"

#: By name: how the program comes by its names, and what its threads do.
PROGRAMS = {
    "names of MLflow": (
        DROP_IN,
        """[
            lambda: mlflow.log_metric, lambda: mlflow.start_run, lambda: mlflow.MlflowClient,
            lambda: mlflow.search_runs, lambda: mlflow.set_tag, lambda: mlflow.log_param,
        ]""",
    ),
    "names below ours": (
        DROP_IN + "\nimport mlflow_fasttrace.entities, mlflow_fasttrace.tracing",
        """[
            lambda: mlflow.entities.Trace, lambda: mlflow.log_metric, lambda: mlflow.tracing.display,
            lambda: mlflow.log_feedback(trace_id="MLFLOW_NO_OP_SPAN_TRACE_ID", value=1),
            lambda: __import__("mlflow_fasttrace.entities.span"), lambda: mlflow.entities.Feedback,
        ]""",
    ),
    "install": (
        "import mlflow_fasttrace",
        """[
            lambda: __import__("mlflow"), mlflow_fasttrace.install, mlflow_fasttrace.install,
            lambda: __import__("mlflow"), mlflow_fasttrace.install, lambda: __import__("mlflow"),
        ]""",
    ),
    "autolog": (
        DROP_IN,
        """[
            mlflow.autolog, mlflow.autolog, lambda: mlflow.log_metric,
            mlflow.install, lambda: mlflow.start_run, lambda: __import__("mlflow"),
        ]""",
    ),
}


@pytest.mark.parametrize(
    "options",
    [pytest.param([], id="plain"), pytest.param(["-X", "dev"], id="dev", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("name", long_but(["names of MLflow"], PROGRAMS))
def test_threads_that_import_mlflow_at_once_all_find_it_whole(name, options, tmp_path):
    imports, actions = PROGRAMS[name]
    program = PROGRAM.format(imports=imports, actions=actions)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    result = subprocess.run(
        [sys.executable, *options, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == [[], 4, True, True], result.stderr
    assert "Deadlock" not in result.stderr


@pytest.fixture
def slow_module(tmp_path, monkeypatch):
    """A module ``slow_import`` that lets its import be entered and held: by the threading events that
    ``slow_gate`` has."""
    gate = type(sys)("slow_gate")
    gate.entered, gate.go = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules, "slow_gate", gate)
    (tmp_path / "slow_import.py").write_text(
        "import slow_gate\nslow_gate.entered.set()\nassert slow_gate.go.wait(600)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield gate
    gate.go.set()
    sys.modules.pop("slow_import", None)


def test_an_action_waits_for_the_end_of_an_import_that_is_under_way(slow_module):
    """Neither does the caller wait, nor do those go on that import the module meanwhile."""
    whole = []
    importing = threading.Thread(target=__import__, args=("slow_import",))
    importing.start()
    assert slow_module.entered.wait(600)
    patching.when_loaded(
        "slow_import", lambda: whole.append(getattr(sys.modules["slow_import"], "whole", False))
    )
    assert patching.is_awaited("slow_import")
    assert whole == []
    slow_module.go.set()
    import slow_import

    assert whole == [True]
    importing.join()
    assert type(slow_import.__spec__).__name__ == "ModuleSpec"
    assert not patching.is_loading(slow_import)
    assert "_fasttrace_follows" not in vars(type(slow_import.__spec__))


@pytest.mark.parametrize("experiment_id", [None, "7"])
def test_a_root_that_starts_during_the_import_is_recorded(experiment_id, monkeypatch):
    """MLflow's module of runs is there, and has nothing in it yet."""
    name = "mlflow.tracking.fluent"
    module = type(sys)(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__spec__._initializing = True
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(root_context, "_location_of_context", lambda: None)
    answer = root_context.RootContext().answer(experiment_id)
    assert answer[1:] == (None, None, False)
    assert (answer[0] is None) == (experiment_id is None)
    destination.reset()


def test_an_import_that_fails_runs_no_action(slow_module, tmp_path):
    (tmp_path / "slow_import.py").write_text(
        "import slow_gate\nslow_gate.entered.set()\nassert slow_gate.go.wait(600)\nraise ValueError\n"
    )
    ran = []

    def fail():
        with pytest.raises(ValueError):
            import slow_import  # noqa: F401

    importing = threading.Thread(target=fail)
    importing.start()
    assert slow_module.entered.wait(600)
    patching.when_loaded("slow_import", lambda: ran.append(1))
    slow_module.go.set()
    importing.join()
    assert ran == []
    patching.forget_awaited()


def test_no_lock_is_held_while_the_action_of_a_module_runs(slow_module):
    """Another thread may install in the middle of it, and both imports go on."""
    taken = []
    slow_module.go.set()

    def take_the_lock():
        taken.append(locks.brief.acquire(timeout=10))
        locks.brief.release()

    def take():
        other = threading.Thread(target=take_the_lock)
        other.start()
        other.join()

    patching.when_loaded("slow_import", take)
    import slow_import  # noqa: F401

    assert taken == [True]
