"""``mlflow-fasttrace show``: the traces of a file, or one trace, with all that is known of them."""

from __future__ import annotations

import os
import re
from typing import Any

import click

from mlflow_fasttrace._internal.base.texts import one_line
from mlflow_fasttrace._internal.cli import completing
from mlflow_fasttrace._internal.cli.delivered import delivered_traces
from mlflow_fasttrace._internal.cli.details import Details
from mlflow_fasttrace._internal.cli.output import Output, echo, print_notes, readable_errors
from mlflow_fasttrace._internal.cli.servers import Servers, Unanswered, can_be_asked
from mlflow_fasttrace._internal.cli.trees import TraceTree, heading_of
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.config.uris import absolute_uri, without_credentials
from mlflow_fasttrace._internal.spool.files import Unreadable
from mlflow_fasttrace._internal.spool.overview import all_spools, look_at
from mlflow_fasttrace._internal.spool.traces import Traces, TraceView

_TRACE_ID = re.compile("[0-9a-f]{1,32}")  # or its beginning
_WHOLE_ID = 32  # hex digits
_NAMED_IDS = 5  # of several that fit


@click.command(
    epilog="Example: mlflow-fasttrace show tr-1f3c    (or: mlflow-fasttrace show --last)"
)
@click.argument("what", metavar="FILE|TRACE", required=False, shell_complete=completing.trace_ids)
@click.option("--last", is_flag=True, help="The trace that did something last.")
@click.option("--full", is_flag=True, help="Whole values, written out.")
@click.option("--json", "as_json", is_flag=True, help="As MLflow's span dictionaries.")
def show(what: str | None, last: bool, full: bool, as_json: bool) -> None:
    """One trace by its id, or the traces of a ring, segment, refused or damaged file, with all that is
    known of them: of an error the stack trace first.

    TRACE is tr-... or the id alone; its beginning is enough. It is looked for in all that waits or
    was refused here, and where it has been delivered, it is read from the server.
    """
    if last == (what is not None):
        raise click.UsageError("Give a trace, a file, or --last.")
    with readable_errors():
        found, notes = _found(what)
    if as_json:
        echo(f"[{', '.join(trace.to_json() for trace in found)}]")
    else:
        out = Output()
        for trace in found:
            _print(out, trace, full)
        if not found:
            out.print("There is no trace in it.")
    print_notes(notes)


def _print(out: Output, trace: TraceView, full: bool) -> None:
    details = Details(trace, full=full, for_people=out.for_people)
    head = heading_of(trace)
    out.print(head)
    for text in details.errors():
        out.print(text)
    out.rows(details.rows())
    tree = TraceTree(trace, None, for_people=out.for_people, fold=False, details=details.of_span)
    out.print(tree)


def _found(what: str | None) -> tuple[list[TraceView], list[str]]:
    """The traces that are asked for, and what could not be read.

    Raises:
        Unreadable: There is none.
    """
    if what is None:
        return _last()
    if os.path.lexists(what):
        collected = Traces(keep_records=True)
        collected.add_file(what)
        return collected.newest()[::-1], collected.notes
    return _with_id(what)


def _last() -> tuple[list[TraceView], list[str]]:
    """The trace that did something last.

    Raises:
        Unreadable: There is none, or no server gives it.
    """
    collected, delivered = _known("")
    here = collected.newest()[:1]
    entry = max(delivered.values(), key=_last_of, default=None)
    if entry is not None and not (here and here[0].last_ns >= _last_of(entry)):
        return [_from_server(entry)], collected.notes
    if not here:
        raise Unreadable("no traces are known here")
    return here, collected.notes


def _last_of(entry: dict[str, Any]) -> int:
    return int(entry["start_ns"] + (entry["duration_ns"] or 0))


def _with_id(text: str) -> tuple[list[TraceView], list[str]]:
    """The one trace whose id begins like this, wherever it waits, was refused or was delivered.

    Raises:
        Unreadable: There is none, or there are several, or no server gives it.
    """
    digits = text.lower().removeprefix("tr-")
    if not _TRACE_ID.fullmatch(digits):
        raise Unreadable(f"{text} is neither a file nor the id of a trace (tr- and 32 hex digits)")
    collected, delivered = _known(digits)
    here = {trace.trace_id for trace in collected.newest()}
    ids = sorted(here | delivered.keys())
    if len(ids) > 1:
        raise Unreadable(f"{text} stands for several traces: {', '.join(ids[:_NAMED_IDS])}")
    if here:
        return collected.newest(), collected.notes
    if ids:
        return [_from_server(delivered[ids[0]])], collected.notes
    if len(digits) == _WHOLE_ID and (trace := _on_some_server(f"tr-{digits}")) is not None:
        return [trace], collected.notes
    raise Unreadable(
        f"no trace {text} waits here or was refused, and none that was delivered is known"
    )


def _known(digits: str) -> tuple[Traces, dict[str, dict[str, Any]]]:
    """The traces whose ids begin like this: those that lie here, and those that were delivered, by id."""
    collected = Traces(keep_records=True, wanted=digits)
    delivered = {}
    for spool in all_spools():
        collected.add_spool(spool, refused=True)
        for trace in delivered_traces(spool):
            if trace["trace_id"].startswith("tr-" + digits):
                delivered[trace["trace_id"]] = trace
    return collected, delivered


def _from_server(entry: dict[str, Any]) -> TraceView:
    """A trace of ``delivered_traces()`` as the server has it.

    Raises:
        Unreadable: The server does not give it.
    """
    told = f"{entry['trace_id']} ({one_line(entry['name'])}) has been delivered to"
    try:
        trace = Servers().trace(entry["destination"], entry["trace_id"])
    except Unanswered as reason:
        raise Unreadable(f"{told} {entry['destination']}, but {reason}") from None
    if trace is None:
        raise Unreadable(f"{told} {entry['destination']}, which does not have it any more")
    return trace


def _on_some_server(trace_id: str) -> TraceView | None:
    """A trace that one of the servers has which are known here; None where none has it."""
    given = environment.tracking_uri()
    destinations = [without_credentials(absolute_uri(given))] if given else []
    for spool in all_spools():
        destination = look_at(spool, counted_bytes=0).destination
        if destination is not None:
            destinations.append(destination)
    servers = Servers()
    for destination in dict.fromkeys(filter(can_be_asked, destinations)):
        try:
            if (trace := servers.trace(destination, trace_id)) is not None:
                return trace
        except Unanswered:
            continue
    return None
