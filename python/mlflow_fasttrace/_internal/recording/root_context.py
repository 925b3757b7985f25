"""What Python knows of a new trace: its experiment, an active run or model, an enclosing
``mlflow.tracing.context()``. The core asks for it at a root (the hook ``root_context``).

This is on the path of a root span as soon as MLflow is loaded: nothing here imports, logs or reads
the environment unless something is active.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import patching
from mlflow_fasttrace._internal.recording import destination

if TYPE_CHECKING:
    from mlflow_fasttrace._internal.base.hooks import RootAnswer

#: Where MLflow's ``ThreadLocalVariable`` keeps the values of all threads, by thread id.
_VALUES_OF_THREADS = "_ThreadLocalVariable__global_thread_values"

_NOTHING: RootAnswer = (None, None, None, False)

# Bound here once: a look-up less for each at a root.
_modules = sys.modules
_location_of_context = destination.location_of_context.get
_scope_of_context = _core.scope_var.get
_encoded = destination.chosen.encoded.get


class RootContext:
    """Answers the core, from what does not change from root to root and what is active now."""

    __slots__ = ("_fluent", "_models", "_runs", "experiment_of_mlflow", "model", "wants_whole")

    def __init__(self) -> None:
        #: The model that traces belong to by the environment.
        self.model: str | None = None
        #: MLflow's active experiment when the destination was worked out.
        self.experiment_of_mlflow: str | None = None
        #: Whether MLflow's own code has to do with a trace as a whole; None unless MLflow runs on
        #: the core.
        self.wants_whole: Callable[[], bool] | None = None
        # Module mlflow.tracking.fluent, and by thread id its active runs and models.
        self._fluent: Any = None
        self._runs: dict[int, Any] = {}
        self._models: dict[int, Any] = {}

    def answer(self, experiment_id: str | None) -> RootAnswer:
        """Answers the core at the start of a trace. That nothing is active, the usual answer, is
        found out here in half the time of a closer look.

        Args:
            experiment_id: The experiment that the program gave for this trace.
        """
        fluent: Any = _modules.get("mlflow.tracking.fluent")
        if experiment_id or self.model or _location_of_context() or _scope_of_context():
            return self._look_closely(experiment_id, fluent)
        context = _modules.get("mlflow.pyfunc.context")
        if context is not None and context.get_prediction_context():
            return self._look_closely(experiment_id, fluent)
        if fluent is None:
            return _NOTHING
        wants_whole = self.wants_whole
        if wants_whole is not None and (
            fluent._active_experiment_id is not self.experiment_of_mlflow or wants_whole()
        ):
            return self._look_closely(experiment_id, fluent)
        if self._fluent is not fluent:
            if patching.is_loading(fluent):  # another thread imports it: nothing can be active yet
                return _NOTHING
            if not self._find_values(fluent):
                return self._look_closely(experiment_id, fluent)
        # Copies: other threads change them.
        if any(list(self._runs.values())) or (
            self._models and any(map(_has_model, list(self._models.values())))
        ):
            return self._look_closely(experiment_id, fluent)
        return _NOTHING

    def _find_values(self, fluent: Any) -> bool:
        """Notes where MLflow keeps the active runs and models of all threads; False where that is
        not known of this MLflow."""
        runs = vars(fluent._active_run_stack).get(_VALUES_OF_THREADS)
        models = vars(fluent._ACTIVE_MODEL_CONTEXT).get(_VALUES_OF_THREADS)
        if runs is None or models is None:
            return False
        self._runs, self._models = runs, models
        self._fluent = fluent  # last: another thread that sees it uses the other two
        return True

    def _look_closely(self, experiment_id: str | None, fluent: Any) -> RootAnswer:
        metadata: dict[str, Any] = {}
        tags: dict[str, Any] = {}
        experiment_id = experiment_id or _location_of_context()
        if fluent is not None and self._fluent is not fluent and patching.is_loading(fluent):
            fluent = None
        if fluent is not None:
            if _in_any_thread(fluent._active_run_stack, bool) and (run := _active_run(fluent)):
                metadata["mlflow.sourceRun"] = run.info.run_id
                if experiment_id is None and not destination.location():
                    experiment_id = run.info.experiment_id
            if (self.model or _in_any_thread(fluent._ACTIVE_MODEL_CONTEXT, _has_model)) and (
                model_id := fluent._get_active_model_id_global()
            ):
                metadata["mlflow.modelId"] = model_id
        elif self.model:
            metadata["mlflow.modelId"] = self.model
        if (module := _modules.get("mlflow.pyfunc.context")) and (
            prediction := module.get_prediction_context()
        ):
            if prediction.model_id and "mlflow.modelId" not in metadata:
                metadata["mlflow.modelId"] = prediction.model_id
            if prediction.is_evaluate and prediction.request_id:
                tags["mlflow.eval.requestId"] = prediction.request_id
            tags.update(prediction.dependencies_schemas or {})
        if scope := _scope_of_context():
            metadata.update(scope[0])
            tags.update(scope[1])
        wants_whole = self.wants_whole
        whole = wants_whole is not None and (wants_whole() or "mlflow.eval.requestId" in tags)
        if (
            experiment_id is None
            and wants_whole is not None
            and fluent._active_experiment_id is not self.experiment_of_mlflow
        ):
            # MLflow's own code sets and forgets its experiment without a call to this package.
            experiment_id = str(fluent._active_experiment_id or fluent._get_experiment_id())
        encoded = None
        if experiment_id is not None:
            encoded = _encoded(experiment_id) or destination.encode_for(experiment_id)
        return encoded, metadata or None, tags or None, whole


def _active_run(fluent: Any) -> Any:
    """The run that a trace belongs to: the innermost of this thread; without one, the latest of any thread, which may
    have begun this one. MLflow's traces belong to the latest run also where their own thread has another."""
    runs = vars(fluent._active_run_stack).get(_VALUES_OF_THREADS)
    # Only a thread that had one is asked for it: the answer keeps an entry for every thread that is asked.
    if (runs is None or runs.get(threading.get_ident())) and (run := fluent.active_run()):
        return run
    return fluent._get_latest_active_run()


def _in_any_thread(variable: Any, holds: Callable[[Any], bool]) -> bool:
    """Whether MLflow's thread-local variable has, in some thread, a value that ``holds``. MLflow's
    own functions find that out at ten times the cost."""
    values = vars(variable).get(_VALUES_OF_THREADS)
    if values is None:  # another MLflow: its functions decide
        return True
    return any(map(holds, list(values.values())))


def _has_model(context: Any) -> bool:
    return context.model_id is not None


root_context = RootContext()
