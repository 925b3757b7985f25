"""``mlflow-fasttrace traces``: the last traces that are known on this machine, or those to come."""

from __future__ import annotations

import time
from typing import Any

import click

from mlflow_fasttrace._internal.cli.delivered import delivered_traces
from mlflow_fasttrace._internal.cli.filters import filter_of, filter_options
from mlflow_fasttrace._internal.cli.following import follow_traces
from mlflow_fasttrace._internal.cli.output import Output, print_json, print_notes, readable_errors
from mlflow_fasttrace._internal.cli.trees import TraceTree, delivered_line, heading_of
from mlflow_fasttrace._internal.cli.wanted import Wanted
from mlflow_fasttrace._internal.spool.overview import COUNTED_BYTES, all_spools
from mlflow_fasttrace._internal.spool.traces import Traces, TraceView

_DEFAULT_COUNT = 10


@click.command(epilog="Example: mlflow-fasttrace traces --follow --status error --since 10m")
@click.option(
    "-n",
    "count",
    metavar="COUNT",
    type=click.IntRange(0),
    help=f"How many of the last ones: {_DEFAULT_COUNT}, or with --since all.",
)
@click.option("-f", "--follow", is_flag=True, help="And those to come, while they are recorded.")
@filter_options
@click.option("--all-spans", is_flag=True, help="Equal siblings one by one, not as 'leaf x 198'.")
@click.option(
    "--json", "as_json", is_flag=True, help="For machines; with --follow an object a line."
)
def traces(count: int | None, follow: bool, all_spans: bool, as_json: bool, **options: Any) -> None:
    """The last traces that are known here: those that wait, and those just delivered.

    With --follow also those to come, until Ctrl-C: on a terminal they grow while their spans end, and each
    is printed when it has ended.
    """
    wanted = Wanted(filter_of(**options))
    if count is None:
        count = _DEFAULT_COUNT if options["since"] is None else None
    if follow:
        with readable_errors():
            follow_traces(wanted, count, fold=not all_spans, as_json=as_json)
        return
    with readable_errors():
        shown, notes = _newest(wanted, count)
    if as_json:
        print_json([t.to_dict() if isinstance(t, TraceView) else t for t in shown])
    else:
        out = Output()
        for trace in reversed(shown):  # the newest last, where the eye is
            if isinstance(trace, TraceView):
                head = heading_of(trace)
                tree = TraceTree(trace, head, for_people=out.for_people, fold=not all_spans)
                out.print(tree)
            else:
                out.print(delivered_line(trace))
        if not shown:
            out.print("No such traces are known here." if wanted else "No traces are known here.")
    print_notes(notes)


def _newest(
    wanted: Wanted, count: int | None
) -> tuple[list[TraceView | dict[str, Any]], list[str]]:
    """The wanted traces that did something last, the last one first, and what could not be read. A trace of
    which some still waits counts among those that wait."""
    collected = Traces()
    delivered: list[dict[str, Any]] = []
    for spool in all_spools():
        collected.add_spool(spool, refused=True, budget=COUNTED_BYTES)
        delivered += delivered_traces(spool)
    here = collected.newest()
    waiting = {trace.trace_id for trace in here}
    entries: list[tuple[int, TraceView | dict[str, Any]]] = [
        (trace.last_ns, trace) for trace in here
    ]
    entries += [
        (trace["start_ns"] + (trace["duration_ns"] or 0), trace)
        for trace in delivered
        if trace["trace_id"] not in waiting
    ]
    entries.sort(key=lambda entry: entry[0], reverse=True)
    shown: list[TraceView | dict[str, Any]] = []
    now_ns = time.time_ns()
    for _last_ns, trace in entries:
        if count is not None and len(shown) == count:
            break
        if (
            wanted.takes(trace, now_ns)
            if isinstance(trace, TraceView)
            else wanted.takes_delivered(trace)
        ):
            shown.append(trace)
    return shown, [*collected.notes, *wanted.notes]
