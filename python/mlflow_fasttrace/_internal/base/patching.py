"""Replacing what is there, and waiting for what is not: how functions, attributes and classes of
other modules are given another meaning, and taken back. No policy: what is replaced, and whether it
may be, is said in seams/."""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

lock = threading.RLock()
_undo: list[Callable[[], None]] = []  # what uninstall() does, last first
_originals: dict[Callable[..., Any], Callable[..., Any]] = {}  # by MLflow's function


def is_in_force() -> bool:
    """Whether MLflow's functions lead to the core now."""
    return bool(_undo)


def original(function: Callable[..., Any]) -> Callable[..., Any]:
    """MLflow's own function, where it leads to the core; anything else as it is."""
    return _originals.get(function, function)


def undo_all() -> None:
    while _undo:
        _undo.pop()()
    _originals.clear()


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


_awaited: dict[str, Callable[[], object]] = {}  # by module: what is done when it is loaded


def await_module(module: str, action: Callable[[], object]) -> None:
    _awaited[module] = action
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def await_nothing() -> None:
    _awaited.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]


def when_loaded(module: str, action: Callable[[], object]) -> None:
    """Does something, until uninstall(), as soon as a module is loaded; now, where it is."""
    if module in sys.modules:
        action()
    else:
        await_module(module, action)


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
        with lock:
            action = _awaited.pop(module.__name__, None)
            if action is not None:
                action()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def is_awaited(module: str) -> bool:
    """Whether something is to be done when the module is loaded."""
    return module in _awaited
