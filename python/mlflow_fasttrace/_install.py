"""Makes ``import mlflow`` itself run on the core: ``install()``, ``uninstall()``, ``is_installed()``.

MLflow's functions stay the objects that they are, since other modules, integrations and programs
hold them by name; their code becomes a trampoline to the function that answers in their place. What
answers is in ``_seams.py``. Nothing of MLflow is imported before the program imports it: until then
an import hook waits for it.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import inspect
import logging
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from mlflow_fasttrace import _settings

__all__ = ["install", "is_installed", "uninstall"]

#: The oldest MLflow whose seams are known.
OLDEST = (3, 17)

_logger = logging.getLogger("mlflow_fasttrace")
_lock = threading.RLock()
_undo: list[Callable[[], None]] = []  # what uninstall() does, last first
_originals: dict[Callable[..., Any], Callable[..., Any]] = {}  # by MLflow's function
_refused: str | None = None  # why MLflow runs on its own code


class MovedSeam(Exception):
    """MLflow is not as this package knows it; the message names the place."""


def install() -> bool:
    """Run MLflow itself on the core: its API, its integrations, and whoever holds its functions.

    An MLflow that is not imported yet follows when it is. Calling it again does nothing. Spans that
    are open at that moment go on in MLflow, and what is started under them joins their trace.

    Returns:
        Whether MLflow runs, or will run, on the core. It does not, with a log line that says why,
        with ``MLFLOW_FASTTRACE_DISABLE=1``, without the C extension, in MLflow's unified mode
        (``MLFLOW_USE_DEFAULT_TRACER_PROVIDER=false``), and where MLflow's own code has moved.
    """
    with _lock:
        if _undo:
            return True
        if reason := why_not():
            _say(reason)
            return False
        if "mlflow" not in sys.modules:
            _when_loaded("mlflow", _apply)
            return True
        return _apply()


def uninstall() -> None:
    """Give MLflow its own code back. Spans of the core that are open are recorded to their end."""
    global _refused
    with _lock:
        _refused = None
        _await_nothing()
        _undo_all()


def is_installed() -> bool:
    """Whether MLflow runs on the core, or will when it is imported."""
    return bool(_undo) or "mlflow" in _awaited


def is_active() -> bool:
    """Whether MLflow's functions lead to the core now."""
    return bool(_undo)


def original(function: Callable[..., Any]) -> Callable[..., Any]:
    """MLflow's own function, where it leads to the core; anything else as it is."""
    return _originals.get(function, function)


def why_not() -> str | None:
    """Why MLflow's own code is in force; None where the core can be."""
    if _settings.disabled():
        return "MLFLOW_FASTTRACE_DISABLE is set"
    if (reason := _settings.not_covered()) is not None:
        return reason
    try:
        importlib.import_module("mlflow_fasttrace._core")
    except ImportError as error:
        return f"the C core cannot be loaded ({error})"
    return _refused


def _say(reason: str) -> None:
    _logger.log(
        logging.INFO if _settings.disabled() else logging.WARNING,
        "Tracing runs on MLflow itself: %s.",
        reason,
    )


def _apply() -> bool:
    global _refused
    try:
        importlib.import_module("mlflow.tracing.fluent")
        check_version()
        seams = importlib.import_module("mlflow_fasttrace._seams")
        seams.check()
        seams.apply()
    except MovedSeam as moved:
        _refused = f"MLflow {mlflow_version()} is not as it is known here: {moved}"
    except Exception as error:
        _refused = f"MLflow's code could not be replaced: {type(error).__name__}: {error}"
    else:
        return True
    _undo_all()
    _say(_refused)
    return False


def _undo_all() -> None:
    while _undo:
        _undo.pop()()
    _originals.clear()


def mlflow_version() -> str:
    """The version of the MLflow that is loaded."""
    return getattr(sys.modules.get("mlflow"), "__version__", "unknown")


def check_version() -> None:
    """Raises:
    MovedSeam: MLflow is too old.
    """
    release = _settings.release_of(mlflow_version())
    if release is not None and release[:2] < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise MovedSeam(f"it is older than {oldest}")


# ---- replacing ----


def redirect(function: types.FunctionType, target: Callable[..., Any]) -> types.FunctionType:
    """Lets a function, whoever holds it, lead to another one. Returns what it was."""
    own = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    own.__kwdefaults__ = function.__kwdefaults__
    own.__dict__.update(function.__dict__)
    own.__module__, own.__qualname__ = function.__module__, function.__qualname__
    function.__code__ = _trampoline(function, target)
    return own


def replace(function: types.FunctionType, target: Callable[..., Any]) -> None:
    """The same until uninstall()."""
    own = _originals[function] = redirect(function, target)
    _undo.append(lambda: setattr(function, "__code__", own.__code__))


def replace_attribute(owner: Any, name: str, value: Any) -> None:
    """Sets an attribute of a module, class or object until uninstall()."""
    if name in vars(owner):
        before = vars(owner)[name]
        _undo.append(lambda: setattr(owner, name, before))
    else:
        _undo.append(lambda: delattr(owner, name))
    setattr(owner, name, value)


def replace_class(instance: Any, cls: type) -> None:
    """Makes an object one of a subclass until uninstall()."""
    before = type(instance)
    instance.__class__ = cls
    _undo.append(lambda: setattr(instance, "__class__", before))


def at_uninstall(action: Callable[[], None]) -> None:
    """Has something done when MLflow gets its own code back."""
    _undo.append(action)


_TARGET = "<target>"


def _trampoline(function: types.FunctionType, target: Callable[..., Any]) -> types.CodeType:
    """Code of the same signature, and with as many free variables, that calls the target."""
    parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    taken, passed = [], []
    star = False
    for parameter in parameters:
        name = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
            taken.append(f"*{name}")
            passed.append(f"*{name}")
        elif parameter.kind is parameter.VAR_KEYWORD:
            taken.append(f"**{name}")
            passed.append(f"**{name}")
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if not star:
                star = True
                taken.append("*")
            taken.append(name)
            passed.append(f"{name}={name}")
        else:
            taken.append(name)
            passed.append(name)
    free = ", ".join(f"_free{i}" for i in range(len(function.__code__.co_freevars)))
    source = (
        f"def make({free}):\n"
        f"    def call({', '.join(taken)}):\n"
        f"        if 0: ({free or '0'})\n"
        f"        _target = {_TARGET!r}\n"
        f"        return _target({', '.join(passed)})\n"
    )
    make = next(c for c in compile(source, __file__, "exec").co_consts if inspect.iscode(c))
    code = next(c for c in make.co_consts if inspect.iscode(c))
    constants = tuple(target if constant == _TARGET else constant for constant in code.co_consts)
    return code.replace(co_consts=constants, co_name=function.__name__)


# ---- waiting for modules ----

_awaited: dict[str, Callable[[], object]] = {}  # by module: what is done when it is loaded


def _when_loaded(module: str, action: Callable[[], object]) -> None:
    _awaited[module] = action
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _await_nothing() -> None:
    _awaited.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]


def when_loaded(module: str, action: Callable[[], object]) -> None:
    """Does something, until uninstall(), as soon as a module is loaded; now, where it is."""
    if module in sys.modules:
        action()
    else:
        _when_loaded(module, action)


class _Finder:
    """Finds the awaited modules as everybody else does."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in _awaited:
            return None
        for finder in list(sys.meta_path):
            if isinstance(finder, _Finder) or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader:
    def __init__(self, loader: Any):
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        with _lock:
            action = _awaited.pop(module.__name__, None)
            if action is not None:
                action()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
