"""Versions: this package's own, those of MLflow's distributions, and how they are compared.

MLflow's version is read from its files, where it is not loaded: importing it takes seconds, and what the
metadata of a distribution says is not what is imported where another one lies over it.
"""

from __future__ import annotations

import re
import sys
from importlib.machinery import PathFinder

from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os

#: This package's version; pyproject.toml has the same.
VERSION = "0.1.0"

#: The oldest release of MLflow that runs on the core; pyproject.toml asks for the same.
OLDEST_MLFLOW = (3, 12)

#: The distributions that bring the package ``mlflow``, or a part of it. The first requires its own version of the others.
MLFLOWS_DISTRIBUTIONS = ("mlflow", "mlflow-skinny", "mlflow-tracing")


def release_of(version: str) -> tuple[int, ...] | None:
    """The leading numbers of a version, which compare as versions do; None where it has none."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else None


def mlflow_version() -> str:
    """The version of the MLflow that is loaded, or else of the one that would be."""
    loaded = getattr(sys.modules.get("mlflow"), "__version__", None)
    return loaded if isinstance(loaded, str) else _version_in_files() or "unknown"


def mlflow_release() -> tuple[int, int] | None:
    """The release of that MLflow, such as (3, 17); None where that is not known, which counts as the newest."""
    release = release_of(mlflow_version())
    return None if release is None or len(release) < 2 else (release[0], release[1])


def is_mlflow(major: int, minor: int) -> bool:
    """Whether MLflow is of this release or of a later one, as far as is known."""
    return (mlflow_release() or (major, minor)) >= (major, minor)


def why_too_old() -> str | None:
    """Why MLflow runs on its own code, by its version; None where it is new enough."""
    if is_mlflow(*OLDEST_MLFLOW):
        return None
    oldest = ".".join(map(str, OLDEST_MLFLOW))
    return f"MLflow {mlflow_version()} is older than {oldest}, the oldest that is known here"


def mixed_versions() -> str | None:
    """Which distributions of MLflow lie over one another with different versions, so that the files of one are
    used by the code of the other; None where they fit, or that cannot be seen."""
    if (folder := _folder()) is None:
        return None
    try:
        names = sorted(os.listdir(os.path.dirname(folder)))
    except OSError as error:
        let_pass(error)
        return None
    found: dict[str, str] = {}
    for match in filter(None, map(_METADATA.fullmatch, names)):
        found[match[1].replace("_", "-")] = match[2]
    versions = {name: found[name] for name in MLFLOWS_DISTRIBUTIONS if name in found}
    if len(set(versions.values())) < 2:
        return None
    wanted = next(iter(versions.values()))
    return (
        " and ".join(f"{name} {version}" for name, version in versions.items())
        + " are installed over one another, which breaks MLflow: pip install --force-reinstall --no-deps "
        + " ".join(f"{name}=={wanted}" for name in reversed(versions))
    )


#: The folder with the metadata of one of MLflow's distributions.
_METADATA = re.compile(r"(mlflow|mlflow[-_]skinny|mlflow[-_]tracing)-(\d[^-]*)\.dist-info")


def _folder() -> str | None:
    """The folder of the package ``mlflow`` that is imported, or would be."""
    spec = getattr(sys.modules.get("mlflow"), "__spec__", None)
    for finder in () if spec is not None else (PathFinder, *sys.meta_path):
        if _waits_for_mlflow(finder):
            continue
        find_spec = getattr(finder, "find_spec", None)
        try:
            spec = find_spec("mlflow", None) if find_spec is not None else None
        except Exception as error:
            let_pass(error)
        if spec is not None:
            break
    origin = getattr(spec, "origin", None)
    return os.path.dirname(origin) if isinstance(origin, str) else None


def _waits_for_mlflow(finder: object) -> bool:
    """Whether a finder is one of this package's, which take being asked for MLflow for its import."""
    return type(finder).__module__.partition(".")[0] in ("mlflow_fasttrace", "sitecustomize")


#: What was found once; what was not is looked for again, since a program may add the place to its path.
_found_versions: list[str] = []


def _version_in_files() -> str | None:
    if not _found_versions and (version := _read_version() or _version_in_metadata()) is not None:
        _found_versions.append(version)
    return _found_versions[0] if _found_versions else None


def _read_version() -> str | None:
    if (folder := _folder()) is None:
        return None
    try:
        file = os.open(os.path.join(folder, "version.py"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(file, 1 << 16).decode("utf-8", "replace")
        finally:
            os.close(file)
    except OSError as error:
        let_pass(error)
        return None
    match = re.search(r'^VERSION = "([^"]+)"', text, re.MULTILINE)
    return match[1] if match else None


def _version_in_metadata() -> str | None:
    import importlib.metadata  # slow to import, and most programs do not need it

    for distribution in MLFLOWS_DISTRIBUTIONS:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
