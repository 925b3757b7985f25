"""The program's code runs in the middle of the core's work and changes what the core is at: finalizers in a
garbage collection, the ``__str__`` of a value, a log handler, other threads."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log
from mlflow_fasttrace._internal.recording import destination

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
BIG = {"text": ["x" * 50] * 200}


class Event:
    """What add_event() asks for."""

    name = "event"
    timestamp = 1
    attributes = BIG


def finalizers_change_the_span_that_is_read() -> None:
    """Before Python 3.12 making a list can run the collector, and it the finalizers."""
    with mlflow.start_span("read") as span:
        for i in range(20):
            span.set_attribute(f"a{i}", [{"k": [i]}] * 20)
            span.add_event(Event())

        class Finalized:
            def __init__(self):
                self.me = self

            def __del__(self):
                span.set_attribute("more", BIG)
                span.set_inputs(BIG)
                span.add_event(Event())

        span.set_inputs(BIG)
        span.set_outputs([BIG, BIG])
        before = gc.get_threshold()
        gc.set_threshold(1, 1, 1)
        until = time.monotonic() + SECONDS / 4
        try:
            while time.monotonic() < until:
                Finalized()
                span.inputs, span.outputs, span.attributes, span._attribute_texts
                span.get_attribute("a3"), span._status_pair, repr(span)
                if span.end_time_ns is None and len(span._event_tuples) > 100:
                    break
        finally:
            gc.set_threshold(*before)
        assert span.attributes["a3"] == [{"k": [3]}] * 20


def threads_read_and_set_one_span() -> None:
    errors: list[BaseException] = []
    with mlflow.start_span("shared") as span:
        span.set_inputs(BIG)
        stop = threading.Event()

        def run(step):
            try:
                while not stop.is_set():
                    step()
            except BaseException as error:
                errors.append(error)

        class Cyclic:
            def __init__(self):
                self.me = self

            def __del__(self):
                time.sleep(0)  # another thread may run now

        def read():
            assert span.inputs is not None and isinstance(span.attributes, dict)

        def set_again():
            span.set_attribute("changing", BIG)
            span.set_inputs(BIG)
            span.set_outputs([BIG])

        threads = [
            threading.Thread(target=run, args=(step,))
            for step in (read, read, set_again, set_again, Cyclic)
        ]
        before, interval = gc.get_threshold(), sys.getswitchinterval()
        gc.set_threshold(10, 2, 2)
        sys.setswitchinterval(1e-6)
        for thread in threads:
            thread.start()
        stop.wait(SECONDS / 2)
        stop.set()
        for thread in threads:
            thread.join()
        gc.set_threshold(*before)
        sys.setswitchinterval(interval)
    assert not errors, errors


def metadata_that_replaces_what_its_trace_holds() -> None:
    class Replaces:
        def __str__(self):
            trace = span._trace
            trace.request_preview = "p" * 10000
            trace.client_request_id = "c" * 10000
            trace.response_preview = "r" * 10000
            span._rename("n" * 1000)
            return "replaced"

    for _ in range(100):
        with mlflow.start_span("trace") as span:
            trace = span._trace
            trace.request_preview = "".join(["first ", "preview"])
            trace.response_preview = "".join(["first ", "response"])
            trace.client_request_id = "".join(["first ", "id"])
            trace.metadata["key"] = Replaces()
            trace.tags["key"] = Replaces()


def a_value_that_leaves_the_scope_it_is_set_in() -> None:
    class Leaves:
        def __str__(self):
            scopes[-1].__exit__(None, None, None)
            return "left"

    scopes = []
    for _ in range(100):
        scopes.append(mlflow.start_span("left", attributes={"a": Leaves(), "b": BIG}))
        span = scopes[-1].__enter__()
        assert span.end_time_ns is not None
        assert mlflow.get_current_active_span() is None
        scopes[-1].__exit__(None, None, None)
    with mlflow.start_span("next") as span:
        assert span.parent_id is None


def a_log_handler_that_has_the_destination_worked_out_anew() -> None:
    class Resets(logging.Handler):
        def emit(self, record):
            destination.reset()

    logger, handler = logging.getLogger("mlflow_fasttrace"), Resets()
    logger.addHandler(handler)
    try:
        for _ in range(20):
            log._warned.at.clear()
            with mlflow.start_span("warns") as span:
                span.set_attribute("", 1)
                log._warned.at.clear()
                span.set_attributes("none")
    finally:
        logger.removeHandler(handler)


def a_hook_that_is_replaced_while_it_answers() -> None:
    from mlflow_fasttrace._internal.base import hooks
    from mlflow_fasttrace._internal.spans import values

    class Replaced:
        def __call__(self, value):
            hooks.encode_default.answer(values.encode_default)
            gc.collect()
            return [self, str(value)][1]

    for _ in range(20):
        hooks.encode_default.answer(Replaced())
        with mlflow.start_span("hook") as span:
            span.set_inputs({1: {2, 3}})
            assert span.inputs == {"1": "{2, 3}"}


def arguments_that_change_while_they_are_encoded() -> None:
    class Changes:
        def __str__(self):
            keywords.clear()
            gc.collect()
            return "changed"

    @mlflow.trace
    def function(first, second, **others):
        return None

    for _ in range(50):
        keywords = {"first": Changes(), "second": ["s" * 100], "third": ["t" * 100]}
        try:
            _core.Traced.__call__(function, **keywords)
        except TypeError:
            pass


for check in (
    finalizers_change_the_span_that_is_read,
    threads_read_and_set_one_span,
    metadata_that_replaces_what_its_trace_holds,
    a_value_that_leaves_the_scope_it_is_set_in,
    a_log_handler_that_has_the_destination_worked_out_anew,
    a_hook_that_is_replaced_while_it_answers,
    arguments_that_change_while_they_are_encoded,
):
    check()
assert _core.current() is None
