"""What records: the core, or MLflow's own code.

The environment says it, which a program may set after it has imported this package. It is settled when the first
function is traced or the first span starts, and stays: half a trace in each would be none.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from mlflow_fasttrace._internal.base.version import mixed_versions, mlflow_release, why_too_old
from mlflow_fasttrace._internal.config import environment

# Imported here, not when it is asked for: the import hook of seams/aliases.py asks, and must not import.
try:
    import mlflow_fasttrace._core
except ModuleNotFoundError:
    _no_core: str | None = (
        "this installation has no C core, which there is for Linux and macOS (a wheel for the platform, or built "
        "from source)"
    )
except ImportError as error:
    _no_core = f"the C core cannot be loaded ({error})"
else:
    # A build of CPython without the GIL switches it on for the core, unless that was forbidden.
    _no_core = (
        None
        if getattr(sys, "_is_gil_enabled", lambda: True)()
        else "the C core needs the GIL, which PYTHON_GIL=0 or -X gil=0 switches off"
    )

_logger = logging.getLogger("mlflow_fasttrace")

#: Whether it is settled that the core records. Read at every ``start_span``.
on_core = False

_settled = False
_reason: str | None = None
_said: set[str] = set()
_when_mlflow: list[Callable[[], None]] = []
_when_core: list[Callable[[], None]] = []
_when_unsettled: list[Callable[[], None]] = []


def follow_release() -> None:
    """Have the core do as the release of MLflow does that is installed, as far as is known now."""
    if _no_core is None and (release := mlflow_release()) is not None:
        mlflow_fasttrace._core.follow_mlflow(*release)


def why_mlflow() -> str | None:
    """Why MLflow's own code records; None where the core does. Settles nothing."""
    if _settled:
        return _reason
    if environment.disabled():
        return "MLFLOW_FASTTRACE_DISABLE is set"
    return environment.not_covered() or _no_core or why_too_old()


def lacks_core() -> bool:
    """Whether MLflow's own code records whatever the environment says."""
    return _no_core is not None


def mlflow_records() -> bool:
    """Whether MLflow's own code records. For functions that may be held from before that was chosen."""
    return not on_core and why_mlflow() is not None


def settle() -> str | None:
    """As ``why_mlflow``, and from now on it stays so. Where MLflow's own code records, one line says why."""
    global on_core, _settled, _reason
    if not _settled:
        _reason = why_mlflow()
        _settled, on_core = True, _reason is None
        if _reason is not None:
            say(_reason)
        for action in list(_when_core if on_core else _when_mlflow):
            action()
        mixed = None if environment.disabled() else mixed_versions()
        if mixed is not None and mixed not in _said:
            _said.add(mixed)
            _logger.warning("%s.", mixed)
    return _reason


def when_mlflow(action: Callable[[], None]) -> None:
    """Have an action run when it is settled that MLflow's own code records."""
    if action not in _when_mlflow:
        _when_mlflow.append(action)


def when_core(action: Callable[[], None]) -> None:
    """Have an action run when it is settled that the core records."""
    if action not in _when_core:
        _when_core.append(action)


def when_unsettled(action: Callable[[], None]) -> None:
    """Have an action run when the environment is to say it anew."""
    if action not in _when_unsettled:
        _when_unsettled.append(action)


def unsettle() -> None:
    """Let the environment say it anew, and be reported anew."""
    global on_core, _settled
    on_core = _settled = False
    _said.clear()
    for action in list(_when_unsettled):
        action()


def say(reason: str) -> None:
    """Log, once, why MLflow's own code records."""
    if reason not in _said:
        _said.add(reason)
        _logger.log(
            logging.INFO if environment.disabled() else logging.WARNING,
            "Tracing runs on MLflow itself: %s.",
            reason,
        )


def say_what_came_late() -> None:
    """Log, once, what the environment asks for now that it is settled that the core records."""
    late = environment.not_covered()
    if late is not None and late not in _said:
        _said.add(late)
        _logger.warning(
            "What was set after the first function was traced is ignored: %s. Set it before.", late
        )


follow_release()
