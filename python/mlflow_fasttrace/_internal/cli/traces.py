"""``mlflow-fasttrace traces``: the last traces that are known on this machine."""

from __future__ import annotations

from typing import Any

import click

from mlflow_fasttrace._internal.cli.delivered import delivered_traces
from mlflow_fasttrace._internal.cli.output import Output, print_json, print_notes, readable_errors
from mlflow_fasttrace._internal.cli.trees import delivered_line, tree_of
from mlflow_fasttrace._internal.spool.overview import COUNTED_BYTES, all_spools
from mlflow_fasttrace._internal.spool.traces import Traces, TraceView


@click.command()
@click.option("-n", "count", default=10, show_default=True, type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def traces(count: int, as_json: bool) -> None:
    """The last traces that are known here: those that wait, and those just delivered."""
    collected = Traces()
    delivered: list[dict[str, Any]] = []
    with readable_errors():
        for spool in all_spools():
            collected.add_spool(spool, refused=True, budget=COUNTED_BYTES)
            delivered += delivered_traces(spool)
    shown = _newest(collected, delivered, count)
    if as_json:
        print_json([t.to_dict() if isinstance(t, TraceView) else t for t in shown])
    else:
        out = Output()
        for trace in reversed(shown):  # the newest last, where the eye is
            out.print(tree_of(trace) if isinstance(trace, TraceView) else delivered_line(trace))
        if not shown:
            out.print("No traces are known here.")
    print_notes(collected.notes)


def _newest(
    collected: Traces, delivered: list[dict[str, Any]], count: int
) -> list[TraceView | dict[str, Any]]:
    """The traces that did something last, the last one first. A trace of which some still waits counts
    among those that wait."""
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
    return [trace for _last_ns, trace in entries[:count]]
