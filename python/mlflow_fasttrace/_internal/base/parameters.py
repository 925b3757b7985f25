"""The parameters of MLflow's functions, which grow with its releases: what MLflow does not take from a program
this package does not take either, so that the program runs under both."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from mlflow_fasttrace._internal.base.version import is_mlflow

_F = TypeVar("_F", bound=Callable[..., Any])

#: The release that brought a parameter, for those that came after the oldest release that is known here.
_SINCE = {
    "log_level": (3, 13),
    "run_id": (3, 14),
    "links": (3, 15),
    "description": (3, 17),
}


def of_installed_mlflow(function: _F) -> _F:
    """Decorates a function whose last parameters MLflow may not have yet. It is returned as it is where MLflow has
    them all; otherwise one that refuses the others, as Python does."""
    signature = inspect.signature(function)
    unknown = {
        name for name in signature.parameters if name in _SINCE and not is_mlflow(*_SINCE[name])
    }
    if not unknown:
        return function
    known = [each for name, each in signature.parameters.items() if name not in unknown]

    @functools.wraps(function)
    def of_release(*args: Any, **kwargs: Any) -> Any:
        if len(args) > len(known):
            raise TypeError(
                f"{function.__name__}() takes at most {len(known)} positional arguments but "
                f"{len(args)} were given"
            )
        for name in kwargs.keys() & unknown:
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument {name!r}")
        return function(*args, **kwargs)

    of_release.__signature__ = signature.replace(parameters=known)  # type: ignore[attr-defined]  # read by inspect
    return cast(_F, of_release)


def given(**arguments: Any) -> dict[str, Any]:
    """The arguments that are not None, for a function that may lack the parameters of the others."""
    return {name: value for name, value in arguments.items() if value is not None}
