"""What MLflow's integration of OpenAI's SDK loses: the body of a response that the program reads itself
(``with_streaming_response``), what came of a stream that is left early, and which parameters are not sent at all
(``openai.omit``). The integration itself goes on as it is; it gets what it would need to know."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import os
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from mlflow_fasttrace._internal.base import log
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.patching import replace_attribute, when_loaded

_AUTOLOG = "mlflow.openai.autolog"
#: Of a body that is given on as it was decoded.
_OF_THE_TRANSFER = ("content-encoding", "content-length", "transfer-encoding")

#: Ends a span with the result of its call.
_End = Callable[[Any], None]


def complete_when_loaded() -> None:
    """Put the functions below around the integration's as soon as it is loaded."""
    when_loaded(_AUTOLOG, _complete)


def _complete() -> None:
    autolog = sys.modules[_AUTOLOG]
    start = vars(autolog).get("_start_span")
    end = vars(autolog).get("_end_span_on_success")
    parse = vars(autolog).get("_try_parse_raw_response")
    if start is None or end is None or parse is None:
        return

    def start_span(instance: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return start(instance, _sent(inputs), *args, **kwargs)

    def end_span_on_success(
        span: Any, inputs: dict[str, Any], raw_result: Any, *args: Any, **kwargs: Any
    ) -> None:
        def end_with(result: Any) -> None:
            end(span, _sent(inputs), result, *args, **kwargs)

        try:
            if _ends_later(raw_result, end_with, span, parse):
                return
        except Exception as error:
            let_pass(error)
            log.warn(f"A response of OpenAI's SDK is recorded as MLflow does: {error}")
        end_with(raw_result)

    replace_attribute(autolog, "_start_span", start_span)
    replace_attribute(autolog, "_end_span_on_success", end_span_on_success)


def _sent(inputs: dict[str, Any]) -> dict[str, Any]:
    """Parameters without those that the SDK does not send."""
    kinds = _types_of_openai("Omit", "NotGiven")
    return {name: value for name, value in inputs.items() if not isinstance(value, kinds)}


def _ends_later(result: Any, end_with: _End, span: Any, parse: Callable[[Any], Any]) -> bool:
    """Whether the span of a call ends when the program has read the body. Streams are left to the integration, which is
    told where the program leaves one early.

    Args:
        result: Of the call.
        end_with: Ends the span.
        span: It.
        parse: Makes of a raw response what is in it, and leaves others.
    """
    import openai

    if isinstance(result, _types_of_openai("APIResponse", "AsyncAPIResponse")):
        _Body(result, end_with, span).follow(result.http_response)
        return True
    stream = parse(result)  # of with_raw_response
    if isinstance(stream, openai.Stream):
        _follow_stream(stream, _Below(stream._iterator), end_with)
        return True
    if isinstance(stream, openai.AsyncStream):
        _follow_stream(stream, _AsyncBelow(stream._iterator), end_with)
        return True
    return False


def _types_of_openai(*names: str) -> tuple[Any, ...]:
    """Those of the SDK's types that this release of it has."""
    import openai

    found = [getattr(openai, name, None) for name in names]
    return tuple(kind for kind in found if isinstance(kind, type))


# ---- streams that are left early ----


class _Below:
    """The SDK's own iterator, under the integration's: it ends where the program has left the stream, so that the
    integration takes what came for all there is.

    It holds the iterator weakly: that one holds the stream, whose end is watched.
    """

    def __init__(self, iterator: Any):
        self._iterator = weakref.ref(iterator)
        self.is_left = False
        self.is_busy = False

    def __iter__(self) -> _Below:
        return self

    def __next__(self) -> Any:
        iterator = self._iterator()
        if self.is_left or iterator is None:
            raise StopIteration
        self.is_busy = True
        try:
            return next(iterator)
        finally:
            self.is_busy = False


class _AsyncBelow(_Below):
    """The same of an asynchronous stream."""

    def __aiter__(self) -> _AsyncBelow:
        return self

    async def __anext__(self) -> Any:
        iterator = self._iterator()
        if self.is_left or iterator is None:
            raise StopAsyncIteration
        self.is_busy = True
        try:
            return await anext(iterator)
        finally:
            self.is_busy = False


class _Above:
    """The integration's iterator, in the SDK's place; it holds the SDK's."""

    def __init__(self, iterator: Any, own: Any):
        self._iterator = iterator
        self._own = own
        self._begun = False

    def __iter__(self) -> _Above:
        return self

    def __next__(self) -> Any:
        return next(self._iterator)

    def __aiter__(self) -> _Above:
        return self

    def __anext__(self) -> Any:
        if self._begun:
            return self._iterator.__anext__()
        self._begun = True
        hooks = sys.get_asyncgen_hooks()
        # An event loop that ends closes the generators that it knows, and what came would be lost with this one.
        sys.set_asyncgen_hooks(None, None)
        try:
            return self._iterator.__anext__()
        finally:
            sys.set_asyncgen_hooks(*hooks)


def _follow_stream(stream: Any, below: _Below, end_with: _End) -> None:
    """Has a stream's span end with what came where the program closes the stream, drops it or ends itself."""
    own = stream._iterator
    stream._iterator = below
    try:
        end_with(stream)  # puts the integration's iterator around it
    finally:
        above = stream._iterator
        stream._iterator = own if above is below else _Above(above, own)
    if above is below:
        return
    watched = _Watched(stream.response)
    leave = _once(functools.partial(_leave, below, above, watched))
    weakref.finalize(stream, leave)
    watched.when_closed(lambda: None if below.is_busy else leave())


def _leave(below: _Below, above: Any, watched: _Watched) -> None:
    watched.let_go()
    below.is_left = True
    _exhaust(above)


# ---- bodies that the program reads ----


class _Body:
    """What a program reads of a response.

    Args:
        response: The SDK's, whose body is not read.
        end_with: Ends the span.
        span: It.
    """

    def __init__(self, response: Any, end_with: _End, span: Any):
        self._template = copy.copy(response)
        del self._template.http_response  # or it would hold the response whose end is watched
        http = response.http_response
        self._watched = _Watched(http)
        self._head = (http.status_code, http.headers, http.request)
        self._end_with = end_with
        self._span = span
        self._parts: list[bytes] = []
        self._is_read = False
        self._is_busy = False
        self._end = _once(self._end_now)

    def follow(self, http: Any) -> None:
        """Has the span end when the response is read or closed, dropped, or the program ends.

        Args:
            http: The response, as the SDK has it.
        """
        if http.is_closed:  # it has been read, by a hook of the program's, say
            self._parts.append(http.content)
            self._end()
            return
        self._watched.put("iter_bytes", self._tee)
        self._watched.put("aiter_bytes", self._tee_async)
        self._watched.when_closed(lambda: None if self._is_busy else self._end())
        weakref.finalize(http, self._end)

    def _tee(self, read: Any) -> Any:
        def iter_bytes(*args: Any, **kwargs: Any) -> Iterator[bytes]:
            with self._reading():
                for part in read(*args, **kwargs):
                    self._parts.append(part)
                    yield part

        return iter_bytes

    def _tee_async(self, read: Any) -> Any:
        async def aiter_bytes(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            with self._reading():
                async for part in read(*args, **kwargs):
                    self._parts.append(part)
                    yield part

        return aiter_bytes

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """The program reads the body, from its beginning: its span ends with all of it."""
        if not self._is_read:
            self._parts.clear()
        self._is_busy = not self._is_read
        try:
            yield
            self._is_read = True
        except Exception as error:
            self._span.record_exception(error)
            raise
        finally:
            self._is_busy = False
        self._end()

    def _end_now(self) -> None:
        self._watched.let_go()
        content = b"".join(self._parts)
        if not content:
            self._span.end()
            return
        try:
            result = self._parsed(content)
        except Exception as error:
            let_pass(error)  # half of a body is no JSON
            self._end_with(content.decode("utf-8", "replace"))
            return
        self._end_with(result)
        _exhaust(result)

    def _parsed(self, content: bytes) -> Any:
        """What the SDK makes of a body; a stream where the program asked for one."""
        import httpx

        status, headers, request = self._head
        kept = [
            (name, value)
            for name, value in headers.multi_items()
            if name.lower() not in _OF_THE_TRANSFER
        ]
        response = copy.copy(self._template)
        response._parsed_by_type = {}
        response.http_response = httpx.Response(
            status, headers=kept, content=content, request=request
        )
        result = response.parse()
        return _run(result) if inspect.iscoroutine(result) else result


# ---- both ----


def _once(function: Callable[[], None]) -> Callable[[], None]:
    """A function that calls another the first time only, in this process, and lets nothing of it out but what is the
    program's."""
    calls = [function]
    process = os.getpid()

    def call() -> None:
        try:
            if calls and os.getpid() == process:
                calls.pop()()
        except Exception as error:
            let_pass(error)
            log.warn(f"A response of OpenAI's SDK cannot be recorded: {error}")

    return call


class _Watched:
    """An HTTP response of which some methods are put into others, for a while. It holds the response weakly; the
    methods do not, so that the garbage collector has to come by for one that is never let go."""

    def __init__(self, http: Any):
        self._http = weakref.ref(http)
        self._names: list[str] = []

    def put(self, name: str, into: Callable[[Any], Any]) -> None:
        """Puts a method into what a function makes of it."""
        http = self._http()
        setattr(http, name, into(getattr(http, name)))
        self._names.append(name)

    def when_closed(self, then: Callable[[], None]) -> None:
        """Calls a function whenever the response has been closed, in either way."""

        def closes(close: Any) -> Any:
            def closed() -> None:
                try:
                    close()
                finally:
                    then()

            return closed

        def closes_async(close: Any) -> Any:
            async def closed() -> None:
                try:
                    await close()
                finally:
                    then()

            return closed

        self.put("close", closes)
        self.put("aclose", closes_async)

    def let_go(self) -> None:
        """Gives the response its own methods back."""
        if (http := self._http()) is not None:
            for name in self._names:
                vars(http).pop(name, None)


def _exhaust(result: Any) -> None:
    """Takes what is left of an iterator of either kind, which waits for nothing. Anything else stays as it is."""

    async def to_the_end() -> None:
        async for _chunk in result:
            pass

    if hasattr(result, "__anext__"):
        _run(to_the_end())
    elif hasattr(result, "__next__"):
        for _chunk in result:
            pass


def _run(coroutine: Any) -> Any:
    """What a coroutine returns that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("it waits for something")
