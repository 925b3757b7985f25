"""Spans that are begun and ended by hand: ``start_span_no_context``, and the calls of the client."""

from __future__ import annotations

import contextlib
import threading

from programs import Programs
from programs.documentation import last, raised_by, read, tree

PROGRAMS = Programs()
program = PROGRAMS.add


@program
def a_trace_of_the_client(mlflow):
    client = mlflow.MlflowClient()
    root = client.start_trace(
        name="make a report",
        inputs={"account": "17", "format": "pdf"},
        attributes={"environment": "staging", "version": "1.0.2"},
        tags={"team": "paper"},
    )
    fetch = client.start_span(
        name="fetch",
        trace_id=root.trace_id,
        parent_id=root.span_id,
        inputs={"account": "17"},
        attributes={"table": "sales", "rows": 40},
        span_type="RETRIEVER",
    )
    print_ = client.start_span(name="print", trace_id=root.trace_id, parent_id=root.span_id)
    client.end_span(
        trace_id=fetch.trace_id,
        span_id=fetch.span_id,
        outputs={"rows": 40, "cached": True},
        attributes={"took": 0.15},
    )
    client.end_span(
        trace_id=print_.trace_id, span_id=print_.span_id, outputs={"pages": 2}, status="OK"
    )
    client.end_trace(
        trace_id=root.trace_id, outputs={"file": "report-17.pdf"}, attributes={"pages": 2}
    )
    trace = read(mlflow, root.trace_id)
    return [tree(trace), trace.info.tags["team"], trace.data.spans[0].attributes["pages"]]


@program
def the_clients_former_argument(mlflow):
    client = mlflow.MlflowClient()
    root = client.start_trace("former")
    child = client.start_span(
        name="child", request_id=root.request_id, parent_id=root.span_id, inputs={"a": 1}
    )
    client.end_span(request_id=child.request_id, span_id=child.span_id)
    client.end_trace(request_id=root.request_id)
    return tree(read(mlflow, root.trace_id))


@program
def the_client_with_errors(mlflow):
    client = mlflow.MlflowClient()

    def risky():
        root = client.start_trace("risky")
        try:
            child = client.start_span(name="query", trace_id=root.trace_id, parent_id=root.span_id)
            try:
                raise ConnectionError("the database is away")
            except ConnectionError as error:
                client.end_span(
                    trace_id=child.trace_id,
                    span_id=child.span_id,
                    status="ERROR",
                    attributes={"error": str(error)},
                )
                raise
        except ConnectionError as error:
            client.end_trace(
                trace_id=root.trace_id,
                status="ERROR",
                attributes={"kind": type(error).__name__, "words": str(error)},
            )
            raise

    said = raised_by(risky)
    trace = last(mlflow)
    return [said, tree(trace), trace.info.state, [len(span.events) for span in trace.data.spans]]


@program
def a_batch_by_the_client(mlflow):
    client = mlflow.MlflowClient()
    items = [{"id": n, "weight": weight} for n, weight in enumerate((3, -1, 8))]
    root = client.start_trace(name="batch", inputs={"size": len(items)})
    done = []
    for n, item in enumerate(items):
        outer = client.start_span(
            name=f"item {n}",
            trace_id=root.trace_id,
            parent_id=root.span_id,
            inputs={"id": item["id"]},
        )
        check = client.start_span(name="validate", trace_id=root.trace_id, parent_id=outer.span_id)
        good = item["weight"] > 0
        client.end_span(check.trace_id, check.span_id, outputs={"good": good})
        if good:
            move = client.start_span(
                name="transform", trace_id=root.trace_id, parent_id=outer.span_id
            )
            done.append(item["weight"] * 1000)
            client.end_span(move.trace_id, move.span_id, outputs={"grams": done[-1]})
        client.end_span(outer.trace_id, outer.span_id, status="OK" if good else "ERROR")
    client.end_trace(root.trace_id, outputs={"done": len(done), "rate": len(done) / len(items)})
    return [done, tree(read(mlflow, root.trace_id))]


@program
def a_context_manager_over_the_client(mlflow):
    client = mlflow.MlflowClient()

    @contextlib.contextmanager
    def spanned(name, trace_id, parent_id, **more):
        span = client.start_span(name=name, trace_id=trace_id, parent_id=parent_id, **more)
        try:
            yield span
        except Exception as error:
            client.end_span(
                span.trace_id, span.span_id, status="ERROR", attributes={"error": str(error)}
            )
            raise
        client.end_span(span.trace_id, span.span_id, status="OK")

    root = client.start_trace("managed")
    with spanned("good", root.trace_id, root.span_id, span_type="TOOL") as span:
        with spanned("inner", root.trace_id, span.span_id):
            pass
    with contextlib.suppress(KeyError), spanned("bad", root.trace_id, root.span_id):
        raise KeyError("lost")
    client.end_trace(root.trace_id)
    return tree(read(mlflow, root.trace_id))


@program
def a_stack_of_the_clients_spans(mlflow):
    client = mlflow.MlflowClient()
    stack = []

    def push(name, **more):
        if stack:
            span = client.start_span(
                name, trace_id=stack[-1].trace_id, parent_id=stack[-1].span_id, **more
            )
        else:
            span = client.start_trace(name, **more)
        stack.append(span)

    def pop(**more):
        span = stack.pop()
        if stack:
            client.end_span(span.trace_id, span.span_id, **more)
        else:
            client.end_trace(span.trace_id, **more)
        return span.trace_id

    push("one", inputs=1)
    push("two", inputs=2)
    push("three", inputs=3)
    pop(outputs="c")
    pop(outputs="b", status="OK")
    trace_id = pop(outputs="a")
    return tree(read(mlflow, trace_id))


@program
def what_the_client_refuses(mlflow):
    client = mlflow.MlflowClient()
    return [
        raised_by(lambda: client.start_span("x", trace_id="tr-" + "0" * 32, parent_id="1" * 16)),
        raised_by(lambda: client.start_span("x", trace_id="tr-" + "0" * 32, parent_id=None)),
        raised_by(lambda: client.end_span("tr-" + "0" * 32, "1" * 16)),
        raised_by(lambda: client.end_trace("tr-" + "0" * 32)),
        raised_by(lambda: client.get_trace("tr-" + "0" * 32)),
        mlflow.get_trace("tr-" + "0" * 32, silent=True),
    ]


@program
def ending_twice_by_the_client(mlflow):
    client = mlflow.MlflowClient()
    root = client.start_trace("twice")
    client.end_trace(root.trace_id, outputs="first")
    mlflow.flush_trace_async_logging()
    again = raised_by(lambda: client.end_trace(root.trace_id, outputs="second"))
    return [again, read(mlflow, root.trace_id).data.spans[0].outputs]


@program
def a_span_apart_from_the_context(mlflow):
    root = mlflow.start_span_no_context(
        name="root", inputs={"n": 1}, tags={"season": "winter"}, metadata={"mill": "north"}
    )
    current = mlflow.get_current_active_span()
    child = mlflow.start_span_no_context(
        name="child", span_type="TOOL", parent_span=root, attributes={"depth": "1"}
    )
    child.set_outputs("ready")
    child.end()
    root.end(outputs="done", attributes={"last": True}, status="OK")
    trace = read(mlflow, root.trace_id)
    picked = [trace.info.tags["season"], trace.info.trace_metadata["mill"]]
    return [current, picked, tree(trace), [span.outputs for span in trace.data.spans]]


@program
def a_span_that_a_callback_ends(mlflow):
    spans = {}

    def started(key, words):
        spans[key] = mlflow.start_span_no_context(name=key, inputs=words)

    def finished(key, words):
        spans.pop(key).end(outputs=words)

    started("download", {"bytes": 3})
    trace_id = spans["download"].trace_id
    thread = threading.Thread(target=finished, args=("download", "saved"))
    thread.start()
    thread.join()
    trace = read(mlflow, trace_id)
    return [tree(trace), trace.data.spans[0].outputs]


@program
def times_of_the_past(mlflow):
    second = 1_000_000_000
    start = 1_600_000_000 * second
    root = mlflow.start_span_no_context("past", start_time_ns=start)
    child = mlflow.start_span_no_context("step", parent_span=root, start_time_ns=start + second)
    child.end(end_time_ns=start + 2 * second)
    root.end(end_time_ns=start + 3 * second)
    trace = read(mlflow, root.trace_id)
    return [
        trace.info.request_time == start // 1_000_000,
        f"{trace.info.execution_duration} ms",
        sorted((span.end_time_ns - span.start_time_ns) // second for span in trace.data.spans),
    ]


@program
def a_span_that_ends_twice(mlflow):
    span = mlflow.start_span_no_context("once")
    span.end(outputs=1)
    again = raised_by(lambda: span.end(outputs=2))
    late = raised_by(lambda: span.set_attribute("late", True))
    found = read(mlflow, span.trace_id).data.spans[0]
    return [again, late, found.outputs, found.attributes.get("late")]


@program
def a_whole_trace_at_once(mlflow):
    trace_id = mlflow.log_trace(
        name="noted",
        request={"question": "how deep?"},
        response="nine metres",
        attributes={"boat": "red"},
        tags={"lake": "large"},
        start_time_ms=1_650_000_000_000,
        execution_time_ms=2500,
    )
    trace = read(mlflow, trace_id)
    return [
        tree(trace),
        trace.data.request,
        trace.data.response,
        trace.info.tags["lake"],
        f"{trace.info.execution_duration} ms",
    ]


@program
def a_trace_from_elsewhere_is_added(mlflow):
    import copy

    with mlflow.start_span("remote", span_type="AGENT"), mlflow.start_span("step"):
        pass
    other = last(mlflow).to_dict()

    @mlflow.trace
    def call():
        mlflow.add_trace(copy.deepcopy(other))
        return "merged"

    call()
    merged = tree(last(mlflow))
    with mlflow.start_span("target") as target:
        with mlflow.start_span("deeper") as deeper:
            pass
        mlflow.add_trace(other, target=deeper)
    return [merged, tree(read(mlflow, target.trace_id))]


@program
def a_whole_trace_with_what_came_between(mlflow):
    trace_id = mlflow.log_trace(request=1, response=2, intermediate_outputs={"docs": ["map"]})
    return read(mlflow, trace_id).data.intermediate_outputs


@program
def a_whole_trace_with_attributes_and_what_came_between(mlflow):
    trace_id = mlflow.log_trace(
        request=1, attributes={"boat": "red"}, intermediate_outputs={"docs": ["map"]}
    )
    return read(mlflow, trace_id).data.intermediate_outputs


def times_of(trace):
    """When a trace began and how long it took, in milliseconds, seen from its root."""
    (root,) = [span for span in trace.data.spans if span.parent_id is None]
    start = root.start_time_ns // 1_000_000
    took = root.end_time_ns // 1_000_000 - start
    return [trace.info.request_time - start, abs(trace.info.execution_duration - took) <= 1]


@program
def times_of_a_trace_that_another_was_added_to(mlflow):
    with mlflow.start_span("remote"):
        pass
    other = last(mlflow)

    @mlflow.trace
    def call():
        mlflow.add_trace(other)

    call()
    return times_of(last(mlflow))


@program
def a_child_that_began_before_its_root(mlflow):
    second = 1_000_000_000
    start = 1_600_000_000 * second
    root = mlflow.start_span_no_context("root", start_time_ns=start)
    child = mlflow.start_span_no_context("child", parent_span=root, start_time_ns=start - second)
    child.end(end_time_ns=start + 5 * second)
    root.end(end_time_ns=start + 3 * second)
    trace = read(mlflow, root.trace_id)
    return [times_of(trace), f"{trace.info.execution_duration} ms"]


@program
def a_child_that_ended_after_its_root(mlflow):
    second = 1_000_000_000
    start = 1_600_000_000 * second
    root = mlflow.start_span_no_context("root", start_time_ns=start)
    child = mlflow.start_span_no_context("child", parent_span=root, start_time_ns=start)
    root.end(end_time_ns=start + 3 * second)
    child.end(end_time_ns=start + 5 * second)
    trace = read(mlflow, root.trace_id)
    return [tree(trace), times_of(trace), f"{trace.info.execution_duration} ms"]


@program
def children_on_both_sides_of_their_root(mlflow):
    second = 1_000_000_000
    start = 1_600_000_000 * second
    root = mlflow.start_span_no_context("root", start_time_ns=start)
    early = mlflow.start_span_no_context("early", parent_span=root, start_time_ns=start - second)
    late = mlflow.start_span_no_context("late", parent_span=root, start_time_ns=start + second)
    early.end(end_time_ns=start + 9 * second)
    root.end(end_time_ns=start + 3 * second)
    late.end(end_time_ns=start + 5 * second)
    trace = read(mlflow, root.trace_id)
    return [tree(trace), times_of(trace), f"{trace.info.execution_duration} ms"]
