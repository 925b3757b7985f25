"""Log levels of spans."""

from __future__ import annotations

from programs import Programs
from programs.documentation import last, of, raised_by

PROGRAMS = Programs()
program = PROGRAMS.add


def levels(trace):
    spans = sorted(trace.data.spans, key=lambda span: span.start_time_ns)
    return [[span.name, getattr(span.log_level, "name", None)] for span in spans]


@program
def levels_of_functions_and_blocks(mlflow):
    SpanLogLevel = mlflow.entities.SpanLogLevel

    @mlflow.trace(log_level="DEBUG")
    def find(query):
        return [query]

    @mlflow.trace(log_level=SpanLogLevel.INFO)
    def answer(query):
        find(query)
        with mlflow.start_span("by name", log_level="WARNING"):
            pass
        with mlflow.start_span("afterwards") as span:
            span.set_log_level(SpanLogLevel.WARNING)
        return query

    answer("why")
    return levels(last(mlflow))


@program
def levels_by_default(mlflow):
    SpanType = mlflow.entities.SpanType
    kinds = sorted(name for name in vars(SpanType) if name.isupper())
    with mlflow.start_span("root"):
        for kind in [*kinds, "MINE"]:
            with mlflow.start_span(kind, span_type=kind):
                pass
    default = of(mlflow, "tracing.utils.default_log_level").default_log_level_for_span_type
    return [levels(last(mlflow)), [default(kind).name for kind in kinds]]


@program
def an_exception_raises_the_level(mlflow):
    def failing(level, error):
        try:
            with mlflow.start_span(f"{level} {type(error).__name__}", log_level=level):
                raise error
        except Exception:
            pass

    with mlflow.start_span("root"):
        failing(None, ValueError("a"))
        failing("INFO", ValueError("b"))
        failing("CRITICAL", ValueError("c"))
        with mlflow.start_span("recorded") as span:
            span.record_exception(RuntimeError("seen, not raised"))
        with mlflow.start_span("lowered again") as span:
            span.record_exception("words")
            span.set_log_level("INFO")
    return levels(last(mlflow))


@program
def levels_by_hand(mlflow):
    span = mlflow.start_span_no_context("by hand", log_level="ERROR")
    first = span.log_level
    span.set_log_level("CRITICAL")
    found = [first.name, int(first), span.log_level.name, first < span.log_level]
    span.end()
    return found


@program
def levels_that_are_none(mlflow):
    with mlflow.start_span("span") as span:
        found = [
            raised_by(lambda: span.set_log_level("LOUD")),
            # The page says that a number will do, and that is no longer so.
            raised_by(lambda: span.set_log_level(20)),
            raised_by(lambda: span.set_log_level("warning")),
        ]
    return [found, levels(last(mlflow))]
