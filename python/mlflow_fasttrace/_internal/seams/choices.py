"""What the program chose by MLflow's functions before these lead to the core: span processors, destinations,
whether tracing is on. What it chose by this package's before MLflow's own code is to record: ``tracing.hand_over``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mlflow.tracing import config
from mlflow.tracing import provider as mlflow_provider

from mlflow_fasttrace import _core, tracing
from mlflow_fasttrace._internal.base.patching import original
from mlflow_fasttrace._internal.recording import destination


class Choices(NamedTuple):
    """What MLflow's own code goes by."""

    span_processors: list[Callable[..., Any]]
    #: The ids of the experiments of set_destination(): for the process, and for this context.
    location: str | None
    location_of_context: str | None
    enabled: bool


def of_mlflow() -> Choices:
    """What was chosen until now. To be called before anything is replaced."""
    chosen = mlflow_provider._MLFLOW_TRACE_USER_DESTINATION
    return Choices(
        list(original(config.get_config)().span_processors),
        _experiment(chosen._global_value),
        _experiment(chosen._context_local_value.get()),
        original(mlflow_provider.is_tracing_enabled)(),
    )


def _experiment(location: Any) -> str | None:
    """The experiment's id of a location; None of a location of Databricks, and where there is none."""
    experiment_id = getattr(location, "experiment_id", None)
    return None if experiment_id is None else str(experiment_id)


def take_over(choices: Choices) -> None:
    """Have the core go by what was chosen, but where this package's functions were told something else."""
    if choices.span_processors and not tracing.span_processors():
        tracing.configure(choices.span_processors)
    if choices.location and not destination.chosen.location:
        destination.set_location(choices.location)
    if choices.location_of_context and not destination.location_of_context.get():
        destination.set_location(choices.location_of_context, context_local=True)
    if not choices.enabled:
        _core.set_enabled(False)
