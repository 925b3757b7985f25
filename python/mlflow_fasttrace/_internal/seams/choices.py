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
    """What one of the two goes by."""

    span_processors: list[Callable[..., Any]]
    #: The ids of the experiments of set_destination(): for the process, and for this context.
    location: str | None
    location_of_context: str | None
    enabled: bool


class _Known:
    #: What both went by when one took over from the other last; what the core has else was chosen here since.
    to_both = Choices([], None, None, True)


def _of_core() -> Choices:
    return Choices(
        list(tracing_state.span_processors),
        destination.chosen.location,
        destination.location_of_context.get(),
        # A function with trace_disabled switches it on again.
        _core.enabled() or bool(tracing_state.disabling),
    )


def _of_mlflow() -> Choices:
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


def take_over() -> None:
    """Have the core go by what was chosen by MLflow's functions, which are about to lead here, but where this
    package's were told something else since. Span processors of both see the spans of both from now on."""
    of_mlflow, of_core, known = _of_mlflow(), _of_core(), _Known.to_both
    processors = of_mlflow.span_processors
    if of_core.span_processors != known.span_processors:
        others = [one for one in processors if one not in of_core.span_processors]
        processors = [*others, *of_core.span_processors]
    if processors != of_core.span_processors:
        tracing_state.use_span_processors(processors)
    if of_core.location == known.location != of_mlflow.location:
        destination.set_location(of_mlflow.location)
    if of_core.location_of_context == known.location_of_context != of_mlflow.location_of_context:
        destination.set_location(of_mlflow.location_of_context, context_local=True)
    if of_core.enabled == known.enabled != of_mlflow.enabled:
        _core.set_enabled(of_mlflow.enabled)
    _Known.to_both = _of_core()


def hand_over_processors() -> None:
    """Give MLflow's own code the span processors, while its functions still lead here."""
    from mlflow.tracing import config

    patching.original(config.configure)(span_processors=list(tracing_state.span_processors))


def hand_over(*, all_of_it: bool = False) -> None:
    """Give MLflow's own code, which records from now on, what the program chose for the core.

    Args:
        all_of_it: MLflow's functions led here until now: what was not chosen here is not chosen there either.
    """
    of_core, known = _of_core(), _Known.to_both
    if of_core == known and not all_of_it:
        return
    _Known.to_both = of_core
    try:
        patching.wait_for_mlflow()
        from mlflow.entities import MlflowExperimentLocation
        from mlflow.tracing import config, provider

        if all_of_it or of_core.span_processors != known.span_processors:
            patching.original(config.configure)(span_processors=of_core.span_processors)
        set_destination = patching.original(provider.set_destination)
        was_enabled = patching.original(provider.is_tracing_enabled)()
        changed = all_of_it or of_core.location != known.location
        if changed and (location := of_core.location):
            set_destination(MlflowExperimentLocation(location))
        changed = all_of_it or of_core.location_of_context != known.location_of_context
        if changed and (location := of_core.location_of_context):
            set_destination(MlflowExperimentLocation(location), context_local=True)
        # set_destination() has switched it on.
        wanted = of_core.enabled if all_of_it or of_core.enabled != known.enabled else was_enabled
        if wanted != patching.original(provider.is_tracing_enabled)():
            patching.original(provider.enable if wanted else provider.disable)()
    except Exception as error:
        let_pass(error)
        log.warn(
            "Not all span processors and destinations that were set before MLflow's own code recorded have an effect: "
            f"{type(error).__name__}: {error}"
        )
