"""Exceptions that belong to the program and arise in the middle of this package's work."""

from __future__ import annotations

try:
    from mlflow_fasttrace import _core
except ImportError:  # the commands run without it and say so; nothing is traced then
    _core = None  # type: ignore[assignment]


def let_pass(error: BaseException) -> None:
    """Raises an exception again that is none of this package's business: a signal handler raised it, or it
    is one like ``KeyboardInterrupt``. A handler for all exceptions begins with this."""
    if _core is not None and _core.is_interruption(error):
        raise error
