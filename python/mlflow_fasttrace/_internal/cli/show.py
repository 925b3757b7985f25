"""``mlflow-fasttrace show``: the traces of a file, or one trace, with their values."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator

import click
from rich.text import Text

from mlflow_fasttrace._internal.base.texts import one_line, printable
from mlflow_fasttrace._internal.cli.delivered import delivered_traces
from mlflow_fasttrace._internal.cli.output import (
    Output,
    cut,
    print_notes,
    readable_errors,
)
from mlflow_fasttrace._internal.cli.trees import tree_of
from mlflow_fasttrace._internal.spool.files import Unreadable
from mlflow_fasttrace._internal.spool.overview import all_spools
from mlflow_fasttrace._internal.spool.traces import SpanView, Traces, TraceView

_TRACE_ID = re.compile("[0-9a-f]{1,32}")  # or its beginning
_NAMED_IDS = 5  # of several that fit
_FILE_COLUMNS = 160  # where the output is no terminal
_VALUE_MARGIN, _LEAST_VALUE = 40, 20  # columns
_VALUES = (("inputs", "mlflow.spanInputs"), ("outputs", "mlflow.spanOutputs"))


@click.command()
@click.argument("what", metavar="FILE|TRACE")
@click.option("--full", is_flag=True, help="Whole inputs and outputs.")
@click.option("--json", "as_json", is_flag=True, help="As MLflow's span dictionaries.")
def show(what: str, full: bool, as_json: bool) -> None:
    """The traces of a ring, segment, refused or damaged file, or one trace by its id.

    TRACE is tr-... or the id alone; its beginning is enough. It is looked for in all that waits or
    was refused here.
    """
    with readable_errors():
        if os.path.lexists(what):
            collected = Traces(keep_records=True)
            collected.add_file(what)
            found = collected.newest()[::-1]
        else:
            collected = _find_trace(what)
            found = collected.newest()
    if as_json:
        click.echo(f"[{', '.join(trace.to_json() for trace in found)}]")
    else:
        _print_traces(found, full)
    print_notes(collected.notes)


def _print_traces(traces: list[TraceView], full: bool) -> None:
    out = Output()
    columns = out.console.width if out.for_people else _FILE_COLUMNS
    width = max(_LEAST_VALUE, columns - _VALUE_MARGIN)
    for trace in traces:
        out.print(tree_of(trace, lambda span: _values(span, None if full else width)))
    if not traces:
        out.print("There is no trace in it.")


def _find_trace(text: str) -> Traces:
    """The one trace whose id begins like this, wherever it waits or was refused.

    Raises:
        Unreadable: There is none, there are several, or it has been delivered.
    """
    digits = text.lower().removeprefix("tr-")
    if not _TRACE_ID.fullmatch(digits):
        raise Unreadable(f"{text} is neither a file nor the id of a trace (tr- and 32 hex digits)")
    collected = Traces(keep_records=True, wanted=digits)
    delivered = {}
    for spool in all_spools():
        collected.add_spool(spool, refused=True)
        for trace in delivered_traces(spool):
            if trace["trace_id"].startswith("tr-" + digits):
                delivered[trace["trace_id"]] = trace
    here = {trace.trace_id for trace in collected.newest()}
    ids = sorted(here | delivered.keys())
    if len(ids) > 1:
        raise Unreadable(f"{text} stands for several traces: {', '.join(ids[:_NAMED_IDS])}")
    if not ids:
        raise Unreadable(f"no trace {text} waits here or was refused")
    if not here:
        (trace,) = delivered.values()
        raise Unreadable(
            f"{trace['trace_id']} ({one_line(trace['name'])}) has been delivered to "
            f"{trace['destination']}; look at it there"
        )
    return collected


def _values(span: SpanView, width: int | None) -> Iterator[Text]:
    """The inputs and outputs of a span: one line of so many columns each, or all of them for None."""
    try:
        attributes = json.loads(span.mlflow_json())["attributes"]
    except (ValueError, KeyError, RecursionError):
        yield Text("this span cannot be shown", style="red")
        return
    for label, key in _VALUES:
        text = attributes.get(key)
        if not isinstance(text, str) or (text == "null" and width is not None):
            continue
        if width is None:
            with contextlib.suppress(ValueError, RecursionError):
                text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
            text = printable(text)
        else:
            text = cut(one_line(text), width)
        yield Text.assemble((f"{label} ", "dim"), text)
