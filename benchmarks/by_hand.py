"""The decorator that a program writes for a tracer whose own records neither arguments nor results."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any


def recorded(
    function: Callable[..., Any],
    start: Callable[[str], AbstractContextManager[Any]],
    setter: str,
) -> Callable[..., Any]:
    """A function, a coroutine function or a generator function in a span, with both as JSON.

    Args:
        start: Begins a span of a name.
        setter: The name of a span's method that sets an attribute to a text.
    """
    name = function.__name__

    def note(span: Any, key: str, value: Any) -> None:
        getattr(span, setter)(key, json.dumps(value))

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with start(name) as span:
                note(span, "input", [args, kwargs])
                result = await function(*args, **kwargs)
                note(span, "output", result)
                return result

        return coroutine

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Any:
            with start(name) as span:
                note(span, "input", [args, kwargs])
                items = []
                for item in function(*args, **kwargs):
                    items.append(item)
                    yield item
                note(span, "output", items)

        return generator

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with start(name) as span:
            note(span, "input", [args, kwargs])
            result = function(*args, **kwargs)
            note(span, "output", result)
            return result

    return call
