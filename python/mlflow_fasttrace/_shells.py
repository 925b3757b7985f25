"""Thin Python shells for what must stay a coroutine function or a generator function.

``inspect.iscoroutinefunction`` and its kin look at code flags, which a C callable does not have.
So these are real ``async def`` and generator functions; what they do is done in C: a coroutine by
``Traced.begin``, ``finish`` and ``fail``, a generator by the steps of a ``Stream``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mlflow_fasttrace._core import SpanScope, Traced


def function_in_scope(scope: SpanScope, function: Callable[..., Any]) -> Callable[..., Any]:
    """For ``start_span(...)`` as a decorator: every call in a scope of its own."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        with scope.again():
            return function(*args, **kwargs)

    return call


def coroutine_function(traced: Traced, function: Callable[..., Any]) -> Callable[..., Any]:
    begin, finish, fail = traced.begin, traced.finish, traced.fail

    async def call(*args, **kwargs):
        span = begin(args, kwargs)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            fail(span, error)
            raise
        finish(span, result)
        return result

    return call


def generator_function(traced: Traced) -> Callable[..., Any]:
    begin = traced.stream

    def call(*args, **kwargs):
        stream = begin(args, kwargs)
        send = stream.send
        item = send(None)
        while item is not stream:
            try:
                sent = yield item
            except GeneratorExit:
                stream.close()
                raise
            except BaseException as error:
                item = stream.throw(error)
            else:
                item = send(sent)
        return stream.value

    return call


def async_generator_function(traced: Traced) -> Callable[..., Any]:
    begin = traced.stream

    async def call(*args, **kwargs):
        stream = begin(args, kwargs)
        body = stream.iterator
        step, argument = body.asend, None
        while True:
            token = stream.enter()
            try:
                item = await step(argument)
            except StopAsyncIteration:
                stream.leave(token)
                stream.end(None)
                return
            except BaseException as error:
                # Closed while it awaits: perhaps by the garbage collector, where the context must
                # not be touched.
                if not isinstance(error, GeneratorExit):
                    stream.leave(token)
                stream.end(error)
                raise
            stream.leave(token)
            stream.item(item)
            try:
                argument = yield item
                step = body.asend
            except GeneratorExit:
                try:
                    await body.aclose()
                finally:
                    stream.end(None)
                raise
            except BaseException as error:
                step, argument = body.athrow, error

    return call
