"""Makes ``import mlflow`` itself run on the core: ``install()``, ``uninstall()``, ``is_installed()``.

MLflow's functions stay the objects that they are, since other modules, integrations and programs hold them
by name; their code becomes a trampoline to the function that answers in their place. ``private_names.py`` says what
must be there for it, ``apply.py`` what is replaced. Nothing of MLflow is imported before the program imports
it: until then an import hook waits.
"""

from __future__ import annotations

import functools
import sys

from mlflow_fasttrace._internal.base import locks, patching
from mlflow_fasttrace._internal.base.version import mlflow_version, why_too_old
from mlflow_fasttrace._internal.config import engine
from mlflow_fasttrace._internal.seams.moved import MovedSeam

__all__ = ["install", "is_installed", "uninstall"]

_refused: str | None = None  # why MLflow runs on its own code
_left_alone = False  # the program has called uninstall(), and not install() since


def install() -> bool:
    """Run MLflow itself on the core: its API, its integrations, and all code that holds its functions.

    An MLflow that is not imported yet follows when it is. Calling it again does nothing. Spans that
    are open at that moment go on in MLflow, and what is started under them joins their trace.

    Returns:
        Whether MLflow runs, or will run, on the core. It does not, with a log line that says why,
        with ``MLFLOW_FASTTRACE_DISABLE=1``, without the C extension, in MLflow's unified mode
        (``MLFLOW_USE_DEFAULT_TRACER_PROVIDER=false``), with an MLflow before 3.12, and where MLflow's own code has
        moved.

    Example:
        >>> import mlflow
        >>> import mlflow_fasttrace
        >>> mlflow_fasttrace.install()
        True
        >>> with mlflow.start_span("on the core") as span:
        ...     type(span).__module__
        'mlflow_fasttrace._core'
        >>> mlflow_fasttrace.uninstall()
    """
    global _left_alone
    _left_alone = False
    if patching.is_in_force():
        return True
    if reason := why_not():
        engine.say(reason)
        return False
    follow()
    patching.catch_up("mlflow")
    return _refused is None


def follow() -> None:
    """Have MLflow run on the core when it is loaded, unless the program has called ``uninstall()``: where this
    package's functions record there, MLflow's would begin traces of their own beside them. Does not wait where MLflow
    is being imported."""
    if not (_left_alone or patching.is_in_force() or why_not()):
        engine.when_mlflow(_give_back)
        patching.when_loaded("mlflow", _apply)


def uninstall() -> None:
    """Give MLflow its own code back, until ``install()`` is called, or a name that is MLflow's is asked for in this
    package. Spans of the core that are open are recorded to their end.

    Example:
        >>> import mlflow_fasttrace
        >>> mlflow_fasttrace.install()
        True
        >>> mlflow_fasttrace.uninstall()
        >>> mlflow_fasttrace.is_installed()
        False
    """
    global _refused, _left_alone
    _refused, _left_alone = None, True
    _give_back()
    engine.unsettle()


def is_installed() -> bool:
    """Whether MLflow runs on the core.

    Returns:
        True also where it will, as soon as it is imported.

    Example:
        >>> import mlflow_fasttrace
        >>> mlflow_fasttrace.install()
        True
        >>> mlflow_fasttrace.is_installed()
        True
        >>> mlflow_fasttrace.uninstall()
    """
    return patching.is_in_force() or patching.is_awaited("mlflow")


def why_not() -> str | None:
    """Why MLflow's own code is in force; None where the core can be."""
    return engine.why_mlflow() or _refused


def _give_back() -> None:
    # Where it is not loaded nothing was chosen here.
    choices = sys.modules.get("mlflow_fasttrace._internal.seams.choices")
    was_in_force = patching.is_in_force()
    if choices is not None and was_in_force:
        choices.hand_over_processors()  # first: another thread's span may end at any time
    with locks.brief:
        patching.forget_awaited()  # what was to follow with a module of MLflow's
        patching.undo_all()
    if choices is not None and "mlflow" in sys.modules:
        choices.hand_over(all_of_it=was_in_force)


def _apply() -> None:
    """Put the core in the place of MLflow's code, which is loaded, if all that it needs is there. Several
    threads may do so at once."""
    from mlflow_fasttrace._internal.seams import private_names

    try:
        if (reason := why_too_old()) is not None:
            _refuse(reason)
            return
        engine.follow_release()
        private_names.check()
        from mlflow_fasttrace._internal.seams import choices
        from mlflow_fasttrace._internal.seams.apply import apply

        if not patching.is_in_force():
            choices.take_over()
        with locks.brief:
            if not patching.is_in_force():
                apply()
        for module in private_names.late_modules():
            patching.when_loaded(module, functools.partial(_check_late, module))
            patching.catch_up(module)
    except MovedSeam as moved:
        _refuse(moved_text(moved))
    except Exception as error:
        _refuse(f"MLflow's code could not be replaced: {type(error).__name__}: {error}")


def _check_late(module: str) -> None:
    """Check a module of MLflow's that is loaded after the core was installed. Where it has moved, MLflow
    gets its own code back: what the core would record lacks what the module says."""
    from mlflow_fasttrace._internal.seams import private_names

    try:
        private_names.check_module(module)
    except MovedSeam as moved:
        _refuse(moved_text(moved))
    except Exception as error:
        _refuse(f"{module} could not be checked: {type(error).__name__}: {error}")


def moved_text(moved: MovedSeam) -> str:
    """One line on an MLflow that this release does not know."""
    return f"MLflow {mlflow_version()} is not as it is known here: {moved}"


def _refuse(reason: str) -> None:
    """Give MLflow its own code back, for good, and say why."""
    global _refused
    _refused = reason
    _give_back()
    engine.say(reason)
