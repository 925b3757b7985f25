"""The Python functions around a traced callable. The C core calls ``function_in_scope`` by name.

``inspect.iscoroutinefunction`` and its kin look at code flags, which a C callable does not have. So coroutine
functions and generators get *wrappers*: real ``async def`` and generator functions, whose work is done in C,
a coroutine's by ``Traced._begin``, ``_finish`` and ``_fail``, a generator's by the steps of a ``Stream``.

A synchronous function needs no wrapper to be called: the traced callable is called itself. But tools ask it
for what only functions have (pydantic and ``unittest.mock`` ask ``isinstance(f, FunctionType)``). It gets a
*signature function*: one that looks as MLflow's wrapper does, and that the traced callable lets answer for it.
"""

from __future__ import annotations

import copyreg
import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

from mlflow_fasttrace._core import SpanScope, Traced
from mlflow_fasttrace._internal.base.interruptions import let_pass


def function_in_scope(scope: SpanScope, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose every call is in a scope of its own: ``start_span(...)`` as a decorator.

    Args:
        scope: The scope that was made when the function was decorated; it is never entered.
        function: The function.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        with scope.again():
            return function(*args, **kwargs)

    return call


#: Names of functions that a class body turns into class methods or a static method by itself. It does so
#: with true functions only, so these get the signature function in the place of the traced callable.
_IMPLICIT = frozenset({"__new__", "__init_subclass__", "__class_getitem__"})


def name_of(function: Any) -> str:
    """A function's name. That of a ``functools.partial`` is its function's, that of an object its class's."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def _is_a(predicate: Callable[[Any], bool], function: Any) -> bool:
    """Whether a predicate of ``inspect`` holds for a function, or for an object's ``__call__``."""
    return predicate(function) or predicate(type(function).__call__)


def is_stream(function: Any) -> bool:
    """Whether calling it makes a generator or an async generator."""
    return _is_a(inspect.isgeneratorfunction, function) or _is_a(
        inspect.isasyncgenfunction, function
    )


def of_descriptor(descriptor: Any, trace: Callable[[Any], Any]) -> Any:
    """Trace the function inside a descriptor; of a property, the getter.

    Args:
        descriptor: Anything.
        trace: Makes the traced function.

    Returns:
        A descriptor of that kind around the traced function; None where it is no descriptor.
    """
    if isinstance(descriptor, (classmethod, staticmethod)):
        return type(descriptor)(trace(descriptor.__func__))
    if isinstance(descriptor, property):
        return descriptor if descriptor.fget is None else descriptor.getter(trace(descriptor.fget))
    if isinstance(descriptor, functools.cached_property):
        cached = type(descriptor)(trace(descriptor.func))
        cached.attrname = descriptor.attrname
        return cached
    if isinstance(descriptor, functools.partialmethod):
        return type(descriptor)(trace(descriptor.func), *descriptor.args, **descriptor.keywords)
    return None


def wrap(traced: Traced, function: Any) -> Callable[..., Any]:
    """The callable that takes a function's place.

    Args:
        traced: The traced callable of the function.
        function: The function.

    Returns:
        The traced callable itself; its signature function for a name of ``_IMPLICIT``; a wrapper for a
        coroutine function or a generator.
    """
    wrapper: Any
    if _is_a(inspect.isgeneratorfunction, function):
        wrapper = _generator_function(traced)
        code = getattr(function, "__code__", None)
        if code is not None and code.co_flags & inspect.CO_ITERABLE_COROUTINE:
            wrapper = types.coroutine(wrapper)
    elif _is_a(inspect.isasyncgenfunction, function):
        wrapper = _async_generator_function(traced)
    elif _is_a(inspect.iscoroutinefunction, function):
        wrapper = _coroutine_function(traced, function)
    else:
        wrapper = _plain_function(_Again(traced._arguments))
    # Callable objects and partials have no name of their own.
    wrapper.__name__ = name_of(function)
    wrapper.__qualname__ = wrapper.__name__
    functools.update_wrapper(wrapper, function)
    try:
        wrapper.__signature__ = inspect.signature(function)
    except Exception as error:
        let_pass(error)
    wrapper.__mlflow_traced__ = True
    if wrapper.__code__ is not _PLAIN or wrapper.__name__ in _IMPLICIT:
        return wrapper
    traced._set_signature_function(wrapper)
    return traced


def _plain_function(call: Callable[..., Any]) -> Callable[..., Any]:
    """A signature function, which passes its calls on."""

    def wrapper(*args, **kwargs):
        return call(*args, **kwargs)

    return wrapper


_PLAIN = _plain_function(len).__code__


class _Again:
    """The callable inside a signature function: one more traced callable, made as the first was. It does
    not refer to the first, which may then go without the garbage collector.

    Args:
        arguments: Those of the first one's ``Traced``.
    """

    __slots__ = ("arguments", "traced")

    def __init__(self, arguments: tuple):
        self.arguments = arguments
        self.traced: Traced | None = None

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if self.traced is None:
            self.traced = Traced(*self.arguments)
        return self.traced(*args, **kwargs)

    def __reduce__(self) -> tuple:
        return Traced, self.arguments


def _reduce(traced: Traced) -> str | tuple:
    """How a traced callable is pickled and copied: by name, as a function is. One inside a wrapper goes by
    value; only picklers that copy functions by value come to see it."""
    if isinstance(traced, types.FunctionType):
        return traced.__qualname__
    return Traced, traced._arguments


copyreg.pickle(Traced, _reduce)


def _coroutine_function(traced: Traced, function: Callable[..., Any]) -> Callable[..., Any]:
    """The wrapper of a coroutine function."""
    begin, finish, fail = traced._begin, traced._finish, traced._fail

    # A signal handler may raise after any call: what began is in a list that is there before, and ends
    # in any case.
    async def wrapper(*args, **kwargs):
        held = [None]
        try:
            begin(held, args, kwargs)
            result = await function(*args, **kwargs)
            finish(held, result)
            return result
        except BaseException as error:
            fail(held, error)
            raise

    return wrapper


def _generator_function(traced: Traced) -> Callable[..., Any]:
    """The wrapper of a generator function."""
    begin = traced._stream

    def wrapper(*args, **kwargs):
        stream = begin(args, kwargs)
        try:
            send = stream.send
            item = send(None)
            while item is not stream:
                try:
                    sent = yield item
                except BaseException as error:
                    item = stream.throw(error)
                else:
                    item = send(sent)
            return stream.value
        except BaseException as error:  # of a signal handler, if the stream has not ended
            stream.end(error)
            raise

    return wrapper


def _first_step(body: Any) -> Any:
    """The first step of an async generator, which no event loop takes note of.

    A loop closes the async generators that are left over, all at once. The wrapper is one of them and closes
    its body; were the body another, one of the two would find it running already.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return body.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _async_generator_function(traced: Traced) -> Callable[..., Any]:
    """The wrapper of an async generator function."""
    begin, first_step = traced._stream, _first_step

    async def wrapper(*args, **kwargs):
        stream = begin(args, kwargs)
        body = stream.iterator
        closing = False
        try:
            step = first_step(body)
            while True:
                if (
                    not closing
                ):  # perhaps the garbage collector's work: the context must not be touched
                    stream.enter()
                try:
                    item = await step
                except StopAsyncIteration:
                    stream.leave()
                    stream.end(None)
                    return
                except GeneratorExit:
                    stream.abandon()
                    raise
                stream.leave()
                stream.item(item)
                if closing:  # the body yields although it was closed: nobody takes the item
                    stream.end(None)
                    closing = False
                try:
                    sent = yield item
                except BaseException as error:
                    if isinstance(error, GeneratorExit):
                        closing = True
                        stream.abandon()
                    step = body.athrow(error)
                else:
                    step = body.asend(sent)
        except BaseException as error:  # of the body, or of a signal handler
            stream.leave()
            stream.end(error)
            raise

    return wrapper
