"""Versions: this package's own, MLflow's, and how they are compared."""

from __future__ import annotations

import re
import sys

#: This package's version; pyproject.toml has the same.
VERSION = "0.1.0"


def release_of(version: str) -> tuple[int, ...] | None:
    """The leading numbers of a version, which compare as versions do; None where it has none."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else None


def mlflow_version() -> str:
    """The version of the MLflow that is loaded, or else of the one that is installed."""
    if loaded := getattr(sys.modules.get("mlflow"), "__version__", None):
        return loaded
    import importlib.metadata  # slow to import, and the first span of a program does not need it

    for distribution in ("mlflow-tracing", "mlflow-skinny", "mlflow"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
