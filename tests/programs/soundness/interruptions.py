"""Exceptions of signal handlers that fall into the core's work: each leaves the traced call, once, and
what was open is closed. The signal comes while the code of a value, a hook or a log handler runs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import hooks

kind: type[BaseException] = TimeoutError
raised: list[BaseException] = []


def handler(number, frame):
    raised.append(kind("from the handler"))
    raise raised[-1]


def handler_of_any(*arguments):
    raised.append(kind("from the handler"))
    raise raised[-1]


class Bound:
    def handler(self, number, frame):
        handler(number, frame)


class Signals:
    """A value in whose conversion the signal comes."""

    def __str__(self):
        os.kill(os.getpid(), signal.SIGALRM)
        return "not reached"

    __repr__ = __str__


class BadKey:
    """A value that is no JSON: the repr of the whole is asked for, where the signal comes."""

    def __str__(self):
        raise ValueError("no")

    def __repr__(self):
        os.kill(os.getpid(), signal.SIGALRM)
        return "not reached"


class SignalsAsIterated(list):
    def __iter__(self):
        os.kill(os.getpid(), signal.SIGALRM)
        return super().__iter__()


class SignalsAsItems(dict):
    def items(self):
        os.kill(os.getpid(), signal.SIGALRM)
        return super().items()


class Error(Exception):
    def __str__(self):
        os.kill(os.getpid(), signal.SIGALRM)
        return "not reached"


calls: list[object] = []


@mlflow.trace
def function(value):
    calls.append(value)


@mlflow.trace
def returns(value):
    return [value]


@mlflow.trace
def raises(value):
    raise Error()


@mlflow.trace
async def coroutine(value):
    calls.append(value)


@mlflow.trace
async def coroutine_returns():
    return Signals()


@mlflow.trace
def generator(value):
    calls.append(value)
    yield 1


@mlflow.trace
def generator_yields():
    yield Signals()
    calls.append("the second step")


@mlflow.trace(output_reducer=lambda items: os.kill(os.getpid(), signal.SIGALRM))
def generator_reduces():
    yield 1


@mlflow.trace
async def async_generator_yields():
    yield Signals()
    calls.append("the second step")


async def exhaust(items):
    return [item async for item in items]


def scope(*, attributes=None, inputs=None, outputs=None, attribute=None):
    with mlflow.start_span("scope", attributes=attributes) as span:
        calls.append("the block")
        if inputs is not None:
            span.set_inputs(inputs)
        if outputs is not None:
            span.set_outputs(outputs)
        if attribute is not None:
            span.set_attribute("attribute", attribute)


def no_context():
    span = mlflow.start_span_no_context("no context", inputs={"value": Signals()})
    span.end()


@mlflow.trace
def processed():
    pass


def with_processor():
    hooks.process_span.answer(lambda span: os.kill(os.getpid(), signal.SIGALRM))
    try:
        processed()
    finally:
        hooks.process_span.answer(None)


class Handler(logging.Handler):
    def emit(self, record):
        os.kill(os.getpid(), signal.SIGALRM)


def with_log_handler():
    logger, log_handler = logging.getLogger("mlflow_fasttrace"), Handler()
    logger.addHandler(log_handler)
    try:
        with mlflow.start_span("scope") as span:
            from mlflow_fasttrace._internal.base import log

            log._warned.at.clear()
            span.set_attribute("", 1)
    finally:
        logger.removeHandler(log_handler)


# By name: the program, and whether the function's own code may have run.
WAYS = {
    "an argument": (lambda: function(Signals()), False),
    "a repr": (lambda: function({(): BadKey()}), False),
    "an __iter__": (lambda: function(SignalsAsIterated([1])), False),
    "an items()": (lambda: function(SignalsAsItems(a=1)), False),
    "a result": (lambda: returns(Signals.__new__(Signals)), None),
    "an exception's text": (lambda: raises(1), None),
    "an argument of a coroutine": (lambda: asyncio.run(coroutine(Signals())), False),
    "a result of a coroutine": (lambda: asyncio.run(coroutine_returns()), None),
    "an argument of a generator": (lambda: list(generator(Signals())), False),
    "an item": (lambda: list(generator_yields()), False),
    "a reducer": (lambda: list(generator_reduces()), None),
    "an item of an async generator": (
        lambda: asyncio.run(exhaust(async_generator_yields())),
        False,
    ),
    "attributes of a scope": (lambda: scope(attributes={"a": Signals()}), False),
    "inputs of a scope": (lambda: scope(inputs=Signals()), None),
    "outputs of a scope": (lambda: scope(outputs=[Signals()]), None),
    "an attribute": (lambda: scope(attribute={"a": Signals()}), None),
    "start_span_no_context": (no_context, None),
    "a span processor": (with_processor, None),
    "a log handler": (with_log_handler, None),
}


def check(name: str) -> None:
    program, may_run = WAYS[name]
    calls.clear()
    raised.clear()
    before = _core.current()
    try:
        program()
    except kind as error:
        # What the function itself raised is the context, as where a handler raises in an except block.
        assert any(error is one for one in raised), (name, error)
        assert len(raised) == 1, (name, raised)
    else:
        raise AssertionError(f"{name}: nothing was raised")
    if may_run is False:
        assert not calls, (name, calls)
    assert _core.current() is before, name
    _core.end_abandoned()
    assert not _core.live_traces(), name


def main() -> None:
    global kind
    function("a first span, so that recording has begun")
    for one in (TimeoutError, ValueError, TypeError, SystemExit, KeyboardInterrupt):
        kind = one
        for some_handler in (handler, handler_of_any, Bound().handler):
            signal.signal(signal.SIGALRM, some_handler)
            for name in WAYS:
                check(name)
    with mlflow.start_span("outer") as outer:
        for name in WAYS:
            if "coroutine" not in name and "async" not in name:
                program, _ = WAYS[name]
                try:
                    program()
                except KeyboardInterrupt:
                    pass
                assert mlflow.get_current_active_span() is outer, name

    # A worker thread keeps what was raised for it, and the main thread gets nothing.
    class Interrupts:
        def __str__(self):
            raise KeyboardInterrupt("in the worker")

    seen: list[BaseException] = []

    def work():
        try:
            function(Interrupts())
        except KeyboardInterrupt as error:
            seen.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    function("after it")
    assert [str(error) for error in seen] == ["in the worker"]

    # A second signal while the first one's exception waits to leave: the newer one leaves.
    class Twice(dict):
        def items(self):
            try:
                os.kill(os.getpid(), signal.SIGALRM)
            finally:
                os.kill(os.getpid(), signal.SIGALRM)

    raised.clear()
    try:
        function(Twice(a=1))
    except KeyboardInterrupt as error:
        assert error is raised[1] and error.__context__ is raised[0]
    else:
        raise AssertionError("nothing was raised")

    # A finalizer that traces before the exception has left: Python would swallow it there.
    class Dropped:
        def __del__(self):
            function("in a finalizer")
            with mlflow.start_span("in a finalizer"):
                calls.append("the block")

    span = mlflow.start_span_no_context("ends with what interrupts")
    dropped = [Dropped()]
    swallowed: list[object] = []
    sys.unraisablehook = swallowed.append
    hooks.process_span.answer(lambda span: dropped.clear())
    calls.clear()
    raised.clear()
    try:
        span.end(outputs=Signals())
    except KeyboardInterrupt as error:
        assert error is raised[0] and len(raised) == 1
    else:
        raise AssertionError(("nothing was raised", swallowed))
    assert span.end_time_ns is not None
    assert calls == ["in a finalizer", "the block"] and not swallowed, (calls, swallowed)
    hooks.process_span.answer(None)

    # A value's own SystemExit costs the value alone.
    class Exits:
        def __str__(self):
            raise SystemExit(3)

        __repr__ = __str__

    function([Exits(), 1])


main()
