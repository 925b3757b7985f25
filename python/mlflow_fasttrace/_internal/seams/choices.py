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


_UNTOUCHED = Choices([], None, None, True)


class _Before:
    """What each went by when one took over from the other last; what it has else was chosen since."""

    core = _UNTOUCHED
    mlflow = _UNTOUCHED


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
        list(patching.original(config.get_config)().span_processors),
        _experiment(chosen._global_value),
        _experiment(chosen._context_local_value.get()),
        patching.original(provider.is_tracing_enabled)(),
    )


def _experiment(location: Any) -> str | None:
    """The experiment's id of a location; None of a location of Databricks, and where there is none."""
    experiment_id = getattr(location, "experiment_id", None)
    return None if experiment_id is None else str(experiment_id)


def take_over() -> None:
    """Have the core go by what was chosen by MLflow's functions, which are about to lead here, but where this
    package's were told something else since. Span processors of both see the spans of both from now on."""
    of_mlflow, of_core, before = _of_mlflow(), _of_core(), _Before
    chosen = {
        field: getattr(of_mlflow, field)
        for field in Choices._fields
        if getattr(of_mlflow, field) != getattr(before.mlflow, field)
        and getattr(of_core, field) == getattr(before.core, field)
    }
    if of_core.span_processors != before.core.span_processors:
        others = [one for one in of_mlflow.span_processors if one not in of_core.span_processors]
        chosen["span_processors"] = [*others, *of_core.span_processors]
    if "span_processors" in chosen:
        tracing_state.use_span_processors(chosen["span_processors"])
    if "location" in chosen:
        destination.set_location(chosen["location"])
    if "location_of_context" in chosen:
        destination.set_location(chosen["location_of_context"], context_local=True)
    if "enabled" in chosen:
        _core.set_enabled(chosen["enabled"])
    _Before.core, _Before.mlflow = _of_core(), of_mlflow


def hand_over_processors() -> None:
    """Give MLflow's own code the span processors, while its functions still lead here."""
    from mlflow.tracing import config

    patching.original(config.configure)(span_processors=list(tracing_state.span_processors))


def hand_over(*, all_of_it: bool = False) -> None:
    """Give MLflow's own code, which records from now on, what the program chose for the core.

    Args:
        all_of_it: MLflow's functions led here until now: what was not chosen here is not chosen there either.
    """
    of_core, before = _of_core(), _Before.core
    changed = {
        field
        for field in Choices._fields
        if all_of_it or getattr(of_core, field) != getattr(before, field)
    }
    if not changed:
        return
    _Before.core = of_core
    try:
        patching.wait_for_mlflow()
        try:
            _tell_mlflow(of_core, changed)
        finally:
            _Before.mlflow = _of_mlflow()
    except Exception as error:
        let_pass(error)
        log.warn(
            "Not all span processors and destinations that were set before MLflow's own code recorded have an effect: "
            f"{type(error).__name__}: {error}"
        )


def _tell_mlflow(choices: Choices, fields: set[str]) -> None:
    """Have MLflow's own code go by these fields."""
    from mlflow.entities import MlflowExperimentLocation
    from mlflow.tracing import config, provider

    is_enabled = patching.original(provider.is_tracing_enabled)
    set_destination = patching.original(provider.set_destination)
    wanted = choices.enabled if "enabled" in fields else is_enabled()
    if "span_processors" in fields:
        patching.original(config.configure)(span_processors=choices.span_processors)
    if "location" in fields and choices.location:
        set_destination(MlflowExperimentLocation(choices.location))
    if "location_of_context" in fields and choices.location_of_context:
        location = MlflowExperimentLocation(choices.location_of_context)
        set_destination(location, context_local=True)
    if wanted != is_enabled():  # set_destination() has switched it on
        patching.original(provider.enable if wanted else provider.disable)()
