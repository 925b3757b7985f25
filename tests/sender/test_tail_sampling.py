"""Tail sampling: MLFLOW_FASTTRACE_KEEP says which traces are delivered, once they are whole."""

from __future__ import annotations

from support.texts import KILLS_ITSELF, assert_all_there, program_text
from support.traces import traces_of
from support.waiting import wait_until

#: Traces that some rule lets through; prints how long a flush takes while one of them is open.
KINDS = """
import contextlib

@mlflow.trace
def fails():
    raise ValueError

with mlflow.start_span("has an error inside"):
    with contextlib.suppress(ValueError):
        fails()
mlflow.start_span_no_context("slow", start_time_ns=10**9).end(end_time_ns=3 * 10**9)
mlflow.start_span_no_context("not slow", start_time_ns=10**9).end(end_time_ns=2 * 10**9)
open_one = mlflow.start_span_no_context("open")
mlflow.start_span_no_context("part of it", parent_span=open_one).end()
began = time.monotonic()
mlflow.flush_trace_async_logging()
print(time.monotonic() - began, flush=True)
"""


def test_traces_are_delivered_that_failed_or_were_slow(server, own_spool, run_program):
    then = KINDS + "\nopen_one.record_exception(ValueError('late'))\nopen_one.end()\n"
    process = run_program(
        program_text(server.uri, "tail sampled", 50, then), MLFLOW_FASTTRACE_KEEP="error, slow>1.5s"
    )
    assert process.returncode == 0, process.err
    assert process.err == ""
    assert float(process.out) < 20, "a flush does not wait for the end of traces"

    def delivered():
        found = traces_of(server.uri, "tail sampled")
        return found if len(found) >= 3 else None

    traces = {trace.data.spans[0].name: trace for trace in wait_until(delivered, 60, "the traces")}
    assert set(traces) == {"has an error inside", "slow", "open"}
    assert len(traces["open"].data.spans) == 2
    assert len(traces["has an error inside"].data.spans) == 2


def test_a_share_of_the_traces_is_delivered(server, own_spool, run_program):
    process = run_program(
        program_text(server.uri, "share", 400),
        MLFLOW_FASTTRACE_KEEP="25%",
    )
    assert process.returncode == 0, process.err
    delivered = len(traces_of(server.uri, "share"))
    assert 50 < delivered < 150, delivered


def test_what_a_killed_program_left_open_is_delivered(server, own_spool, run_program):
    then = KINDS + KILLS_ITSELF
    process = run_program(
        program_text(server.uri, "left open", 5, then), MLFLOW_FASTTRACE_KEEP="error"
    )
    assert process.returncode == -9, process.err
    assert float(process.out) < 20, "a flush does not wait for the end of traces"

    def there():
        names = {
            span.name for trace in traces_of(server.uri, "left open") for span in trace.data.spans
        }
        return names if "part of it" in names else None

    assert wait_until(there, 60, "the open trace") == {"has an error inside", "fails", "part of it"}


def test_rules_that_cannot_be_read_deliver_everything(server, own_spool, run_program):
    process = run_program(
        program_text(server.uri, "odd rules", 3), MLFLOW_FASTTRACE_KEEP="errors,slow"
    )
    assert process.returncode == 0, process.err
    assert_all_there(server.uri, "odd rules", 3)
