"""Replacing what other modules have, and taking that back: the mechanism. What is replaced, and
whether it may be, is said where it is done.

Whoever replaces or takes back several things holds ``locks.brief``, so that no other thread finds half of
them. Nothing is imported meanwhile: another thread may hold the import lock of the module and wait for this
one. What is needed is imported before, and the lock is taken afterwards.

``replace`` lets a function lead to another one, ``replace_attribute`` sets an attribute,
``replace_class`` gives an object another class; ``undo_all`` takes all of it back. ``redirect`` is for
good. ``when_loaded`` waits for a module.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from mlflow_fasttrace._internal.base.imports import imported

if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec


class _Patches:
    """What is replaced and what is awaited now."""

    def __init__(self) -> None:
        #: Actions that take the replacements back; the last is run first.
        self.undo: list[Callable[[], object]] = []
        #: By replaced function: a function with the code that it had.
        self.originals: dict[Callable[..., Any], Callable[..., Any]] = {}
        #: By module: the action for when it is loaded.
        self.awaited: dict[str, Callable[[], object]] = {}
        #: Modules that are awaited for good.
        self.awaited_for_good: set[str] = set()


_patches = _Patches()


# ---- replacing and taking back ----


def is_in_force() -> bool:
    """Whether anything is replaced now."""
    return bool(_patches.undo)


def original(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a replaced function was; any other function as it is."""
    return _patches.originals.get(function, function)


def replace(function: types.FunctionType, target: Callable[..., Any]) -> None:
    """Lets a function, whoever holds it, lead to another one until ``undo_all``."""
    own = _patches.originals[function] = redirect(function, target)
    _patches.undo.append(lambda: setattr(function, "__code__", own.__code__))


def replace_attribute(owner: Any, name: str, value: Any) -> None:
    """Sets an attribute of a module, class or object until ``undo_all``."""
    if name in vars(owner):
        before = vars(owner)[name]
        _patches.undo.append(lambda: setattr(owner, name, before))
    else:
        _patches.undo.append(lambda: delattr(owner, name))
    setattr(owner, name, value)


def replace_class(instance: Any, cls: type) -> None:
    """Makes an object one of a subclass until ``undo_all``."""
    before = type(instance)
    instance.__class__ = cls
    _patches.undo.append(lambda: setattr(instance, "__class__", before))


def at_undo(action: Callable[[], object]) -> None:
    """Has an action run by ``undo_all``, before what was replaced earlier is taken back."""
    _patches.undo.append(action)


def undo_all() -> None:
    """Takes back what is replaced, the last replacement first."""
    while _patches.undo:
        _patches.undo.pop()()
    _patches.originals.clear()


def redirect(function: types.FunctionType, target: Callable[..., Any]) -> types.FunctionType:
    """Lets a function, whoever holds it, lead to another one, for good.

    Args:
        function: It stays the object that it is, with its name, defaults and attributes.
        target: It is called with the function's arguments.

    Returns:
        A function that is what the first one was.
    """
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


#: Stands for the target among a trampoline's constants until it takes its place there.
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


def wait_for_mlflow() -> None:
    """Imports MLflow, or waits where another thread imports it. To be called before a module below
    ``mlflow`` is imported inside of a function: Python would import that one beside the other thread's
    import, where both wait for each other or find modules that have only begun.

    Raises:
        ImportError: there is no MLflow.
    """
    imported("mlflow")


def is_loading(module: types.ModuleType) -> bool:
    """Whether a module's import is under way, in any thread."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def when_loaded(module: str, action: Callable[[], object], *, for_good: bool = False) -> None:
    """Runs an action as soon as a module is loaded; now, where it is. Where its import is under way, in
    this thread or another one, that is when it ends: other threads that import the module go on waiting
    until then. A later call for the same module takes the place of an earlier one that still waits.
    Takes no lock and waits for none: callers hold some, and a forked child may call it at once.

    Args:
        for_good: ``forget_awaited`` leaves the action where it is.
    """
    found = sys.modules.get(module)
    if found is not None and not is_loading(found):
        action()
        return
    if for_good:
        _patches.awaited_for_good.add(module)
    _patches.awaited[module] = action
    if found is not None:
        _follow(found)
        if not is_loading(found):  # its import has ended just now
            _run_awaited(module)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def catch_up(module: str) -> None:
    """Runs the action of an awaited module whose import had begun before ``when_loaded``, but was not
    to be seen yet. Waits for that import: callers hold no lock that an import may wait for."""
    if module not in _patches.awaited:
        return
    if module not in sys.modules:
        # Private, and in every Python since 3.3: the lock says what sys.modules does not yet.
        wait = getattr(importlib, "_bootstrap", None)
        if (wait := getattr(wait, "_lock_unlock_module", None)) is not None:
            wait(module)
    if module in sys.modules and (action := _patches.awaited.pop(module, None)) is not None:
        when_loaded(module, action, for_good=module in _patches.awaited_for_good)


def is_awaited(module: str) -> bool:
    """Whether an action waits for a module."""
    return module in _patches.awaited


def forget_awaited() -> None:
    """Forgets the actions that wait, but for those that do so for good."""
    for module in _patches.awaited.keys() - _patches.awaited_for_good:
        _patches.awaited.pop(module, None)
    if not _patches.awaited:
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]


def _run_awaited(module: str) -> None:
    """Runs the action that waits for a module. No lock is held: the action imports other modules."""
    action = _patches.awaited.pop(module, None)
    if action is not None:
        action()


def _follow(module: types.ModuleType) -> None:
    """Has the awaited action run when an import ends that is under way. Python says in the module's
    ``__spec__`` that it has, while other threads still wait for it; so the specification gets a class
    that notices."""
    spec = module.__spec__
    base = type(spec)
    if spec is None or "_fasttrace_follows" in vars(base):
        return

    def set_attribute(self: Any, name: str, value: Any) -> None:
        if name != "_initializing" or value or type(self) is not followed:
            object.__setattr__(self, name, value)
            return
        try:
            if spec.name in sys.modules:  # else the import has failed
                _run_awaited(spec.name)
        finally:
            object.__setattr__(self, name, value)
            self.__class__ = base
        if spec.name in sys.modules:
            _run_awaited(spec.name)  # one that has begun to wait since

    followed = type(
        base.__name__, (base,), {"__setattr__": set_attribute, "_fasttrace_follows": True}
    )
    with contextlib.suppress(TypeError):  # another import system's, which cannot be followed
        cast(Any, spec).__class__ = followed


class _Finder:
    """Finds the awaited modules as the other finders do, and adds their actions."""

    def find_spec(
        self, name: str, path: Any, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _patches.awaited:
            return None
        for finder in list(sys.meta_path):
            if isinstance(finder, _Finder) or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = cast("Loader", _Loader(spec.loader))
                return spec
        return None


class _Loader:
    """A module's own loader, followed by the module's action."""

    def __init__(self, loader: Loader):
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _run_awaited(module.__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
