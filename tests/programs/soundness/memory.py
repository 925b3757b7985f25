"""What spans hold is bounded by what is set on them now, and goes when nobody holds them any more."""

from __future__ import annotations

import _thread
import gc
import resource
import time
import weakref

import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base.interruptions import let_pass

from programs.soundness.recorded import span_records


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def outputs_that_are_set_again_and_again() -> None:
    megabyte = "x" * (1 << 20)
    with mlflow.start_span("streaming") as span:
        span.set_attribute("kept", 1)
        for _ in range(20):
            span.set_outputs(megabyte)
        before = resident_bytes()
        for i in range(1500):  # more than 1 GiB in all
            span.set_outputs([i, megabyte])
            span.set_attribute("step", i)
        assert resident_bytes() - before < 64 << 20
        assert span.outputs == [1499, megabyte]
        assert span.attributes["kept"] == 1 and span.attributes["step"] == 1499
        assert list(span.attributes)[-2:] == ["mlflow.spanOutputs", "step"]


def many_attributes() -> None:
    with mlflow.start_span("many") as span:
        start = time.thread_time()
        for i in range(40_000):
            span.set_attribute(f"{i:05}.with.a.long.and.equal.end", i)
        spent = time.thread_time() - start
        few = time.thread_time()
        with mlflow.start_span("few") as other:
            for i in range(40_000):
                other.set_attribute("one", i)
        few = time.thread_time() - few
        assert spent < 20 * few, (spent, few)
        for i in range(0, 40_000, 2):
            span._remove_attribute(f"{i:05}.with.a.long.and.equal.end")
        for i in range(1, 40_000, 4):
            span.set_attribute(f"{i:05}.with.a.long.and.equal.end", -i)
        attributes = span.attributes
        own = [key for key in attributes if key.endswith("equal.end")]
        assert len(own) == 20_000
        assert own[-1] == "39997.with.a.long.and.equal.end"
        for i in range(1, 40_000, 2):
            value = span.get_attribute(f"{i:05}.with.a.long.and.equal.end")
            assert value == (-i if i % 4 == 1 else i)


class Holder:
    pass


def scopes_in_circles() -> None:
    gone = []
    for _ in range(100):
        holder = Holder()
        holder.scope = mlflow.start_span("circle", attributes={"holder": holder})
        gone.append(weakref.ref(holder))
        attributes: dict[str, Holder] = {}
        scope = mlflow.start_span("circle", attributes=attributes)
        attributes["holder"] = holder = Holder()  # younger than the scope, which is released first
        holder.scope = scope
        gone.append(weakref.ref(holder))
    del holder, scope, attributes
    gc.collect()
    assert not [one for one in gone if one() is not None]


def spans_in_circles() -> None:
    gone = []
    for way in range(300):
        with mlflow.start_span("circle") as span:
            holder = Holder()
            holder.span = span
            if way % 3 == 0:
                span.holder = holder
            elif way % 3 == 1:
                span.__dict__["holder"] = holder
            else:
                span._trace.metadata["holder"] = [holder]
                span._trace.assessments.append(holder)
                span._trace.tags["holder"] = holder
            gone.append(weakref.ref(holder))
    del span, holder
    gc.collect()
    assert not [one for one in gone if one() is not None]


def spans_that_follow_one_another() -> None:
    """A span has nothing of the one whose memory it got, nor do spans that are alive at a time share any."""
    for _ in range(3):
        with mlflow.start_span("full", span_type="TOOL", attributes={"a": 1}) as full:
            full.set_inputs(["in"])
            full.set_outputs("x" * 5000)
            full.record_exception(ValueError("wrong"))
            full.set_status("ERROR")
            for i in range(20):
                full.set_attribute(f"many{i}", i)
            full.mark = object()
        del full
        with mlflow.start_span("blank") as blank:
            assert (blank.inputs, blank.outputs) == (None, None)
            assert not hasattr(blank, "mark")
            assert blank.end_time_ns is None
            own = {key for key in blank.attributes if not key.startswith("mlflow.")}
            assert not own, own
        del blank
        *_, of_full, of_blank = span_records()
        assert b"exception" in of_full and b"exception" not in of_blank
        spans = [mlflow.start_span_no_context("alive") for _ in range(500)]
        for i, span in enumerate(spans):
            span.set_inputs(i)
        assert [span.inputs for span in spans] == list(range(500))
        assert len({span.span_id for span in spans}) == 500
        for span in spans:
            span.end()
        del spans, span


def errors_that_are_swallowed() -> None:
    """What stood beside an error that the package swallowed goes without a garbage collection: looking whose
    error it is leaves no circle."""

    def swallows(value, *others):
        try:
            raise ValueError
        except ValueError as error:
            let_pass(error)

    gc.disable()
    try:
        value = Holder()
        gone = weakref.ref(value)
        swallows(value, 1)
        del value
        assert gone() is None
        # The outermost frame of a thread, which nobody has called.
        value, ended = Holder(), _thread.allocate_lock()
        gone = weakref.ref(value, lambda _: ended.release())
        ended.acquire()
        _thread.start_new_thread(swallows, (value, 1))
        del value
        assert ended.acquire(timeout=30)
    finally:
        gc.enable()


def traces_whose_spans_are_dropped() -> None:
    def drop(kind):
        root = mlflow.start_span_no_context("root")
        child = mlflow.start_span_no_context("child", parent_span=root)
        root._trace.info = Holder()
        gone.append(weakref.ref(root._trace.info))
        if kind == 0:
            child.end()  # the root is dropped
        elif kind == 1:
            root.end()  # the child is dropped
        return

    gone = []
    for i in range(300):
        drop(i % 3)
    _core.end_abandoned()
    gc.collect()
    assert not [one for one in gone if one() is not None]
    assert not _core.live_traces()


def a_long_chain_of_open_spans() -> None:
    scopes = []
    for _ in range(260_000):
        scope = mlflow.start_span("deep")
        scope.__enter__()
        scopes.append(scope)
    scopes.clear()
    _core.current_span_var.set(None)
    _core.end_abandoned()
    gc.collect()
    mlflow.tracing.disable()
    for _ in range(100_000):
        _core.current_span_var.set(_core.non_recording_span(False))
    _core.current_span_var.set(None)
    mlflow.tracing.enable()


for check in (
    outputs_that_are_set_again_and_again,
    many_attributes,
    scopes_in_circles,
    spans_in_circles,
    spans_that_follow_one_another,
    errors_that_are_swallowed,
    traces_whose_spans_are_dropped,
    a_long_chain_of_open_spans,
):
    check()
