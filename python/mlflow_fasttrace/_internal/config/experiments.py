"""Which ids and names of experiments there can be at all, on whatever server."""

from __future__ import annotations


def why_impossible(experiment: dict[str, str]) -> str | None:
    """Why no experiment can be meant, and what to do; None where one can.

    Args:
        experiment: ``{"id": ...}`` or ``{"name": ...}``.
    """
    if (experiment_id := experiment.get("id")) is not None:
        stripped = experiment_id.strip()
        if stripped and stripped.isascii() and stripped.isprintable():
            return None
        return (
            f"{experiment_id!r} can be the id of no experiment: see where the program has it from "
            "(MLFLOW_EXPERIMENT_ID, set_experiment)"
        )
    try:
        experiment["name"].encode()
    except UnicodeEncodeError:
        return (
            f"{experiment['name']!r} is not UTF-8 and can be the name of no experiment: see where the "
            "program has it from (MLFLOW_EXPERIMENT_NAME, set_experiment)"
        )
    return None
