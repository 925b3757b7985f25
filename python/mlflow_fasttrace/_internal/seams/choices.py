"""What the program chose for all its traces while the one recorded, the core or MLflow's own code, is what the other
goes by afterwards: span processors, which may be what hides a secret, destinations, and whether tracing is on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log, patching
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.recording import destination, tracing_state


class Choices(NamedTuple):
    """What MLflow's own code goes by."""

    span_processors: list[Callable[..., Any]]
    #: The ids of the experiments of set_destination(): for the process, and for this context.
    location: str | None
    location_of_context: str | None
    enabled: bool


def of_mlflow() -> Choices:
    """What was chosen by MLflow's functions until now. To be called before these lead here."""
    from mlflow.tracing import config, provider

    chosen = provider._MLFLOW_TRACE_USER_DESTINATION
    return Choices(
        list(config.get_config().span_processors),
        _experiment(chosen._global_value),
        _experiment(chosen._context_local_value.get()),
        provider.is_tracing_enabled(),
    )


def _experiment(location: Any) -> str | None:
    """The experiment's id of a location; None of a location of Databricks, and where there is none."""
    experiment_id = getattr(location, "experiment_id", None)
    return None if experiment_id is None else str(experiment_id)


def take_over(choices: Choices) -> None:
    """Have the core go by what was chosen, but where this package's functions were told something else."""
    if choices.span_processors and not tracing_state.span_processors:
        tracing_state.use_span_processors(choices.span_processors)
    if choices.location and not destination.chosen.location:
        destination.set_location(choices.location)
    if choices.location_of_context and not destination.location_of_context.get():
        destination.set_location(choices.location_of_context, context_local=True)
    if not choices.enabled:
        _core.set_enabled(False)


def hand_over(*, all_of_it: bool = False) -> None:
    """Give MLflow's own code, which records from now on, what the program chose for the core.

    Args:
        all_of_it: MLflow's functions led here until now: what was not chosen here is not chosen there either.
    """
    location, of_context = destination.chosen.location, destination.location_of_context.get()
    enabled, processors = _core.enabled(), tracing_state.span_processors
    if not (processors or location or of_context or all_of_it) and enabled:
        return
    try:
        patching.wait_for_mlflow()
        from mlflow.entities import MlflowExperimentLocation
        from mlflow.tracing import config, provider

        if processors or all_of_it:
            patching.original(config.configure)(span_processors=list(processors))
        set_destination = patching.original(provider.set_destination)
        if location:
            set_destination(MlflowExperimentLocation(location))
        if of_context:
            set_destination(MlflowExperimentLocation(of_context), context_local=True)
        if enabled != patching.original(provider.is_tracing_enabled)():
            if not tracing_state.disabling:
                patching.original(provider.enable if enabled else provider.disable)()
    except Exception as error:
        let_pass(error)
        log.warn(
            "Span processors and destinations that were set before MLflow's own code recorded have no effect: "
            f"{type(error).__name__}: {error}"
        )
