"""``mlflow-fasttrace status``: what was recorded for every destination, and where it is."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

import click
from rich.live import Live
from rich.text import Text

from mlflow_fasttrace._internal.base.texts import one_line, printable
from mlflow_fasttrace._internal.cli.output import (
    ATTENTION,
    Output,
    Reader,
    Row,
    age,
    count,
    ends_by_signals,
    moment,
    print_json,
    print_json_line,
    readable_errors,
    size,
    spans_of_traces,
)
from mlflow_fasttrace._internal.config.uris import without_secrets
from mlflow_fasttrace._internal.spool.folder import spools_root
from mlflow_fasttrace._internal.spool.overview import Program, SpoolView, all_spools, look_at
from mlflow_fasttrace._internal.spool.status_file import SERVER_STATES

_WATCH_SECONDS = 1.0  # between two looks
_READER_SECONDS = 0.1  # between two looks whether anybody reads
_SHOWN_LETTERS = 10
_SERVER_STYLES = {"away": "yellow", "answers": "green"}


@click.command(epilog="Example: mlflow-fasttrace status --watch")
@click.option("-w", "--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option(
    "--json", "as_json", is_flag=True, help="For machines; with --watch an object a line."
)
def status(watch: bool, as_json: bool) -> None:
    """What is recorded, delivered, waiting and refused, for every destination.

    Exit code 3 when something needs attention: traces that a server refused, damaged files, or
    records that wait and no sender is running for them. With --watch it is that of the last look.
    """
    with readable_errors():
        views = _watched(as_json) if watch else _shown_once(as_json)
    if any(view.needs_attention() for view in views):
        sys.exit(ATTENTION)


def _look() -> list[SpoolView]:
    return [view for view in map(look_at, all_spools()) if not view.is_empty()]


def _shown_once(as_json: bool) -> list[SpoolView]:
    views = _look()
    if as_json:
        print_json(_facts(views))
    else:
        _print(Output(), views)
    return views


def _watched(as_json: bool) -> list[SpoolView]:
    """Show the status until Ctrl-C.

    Returns:
        What was seen last.
    """
    out = Output()
    redraws = out.for_people and not as_json and not out.console.is_dumb_terminal
    views = _look()
    with ends_by_signals(), contextlib.suppress(KeyboardInterrupt):
        if redraws:
            canvas = Output()  # a console of its own: the other one shows what is live
            with Live(console=out.console, auto_refresh=False, screen=True) as live:
                while True:
                    live.update(_picture(canvas, views), refresh=True)
                    time.sleep(_WATCH_SECONDS)
                    views = _look()
        nobody = Reader()
        shown = None
        while True:
            facts = _facts(views)
            if as_json:
                print_json_line(facts)
            elif facts["spools"] != shown:
                out.line(moment(time.time()), "dim")
                _print(out, views)
                shown = facts["spools"]
            _wait(nobody)
            views = _look()
    if redraws:
        _print(out, views)
    return views


def _wait(reader: Reader) -> None:
    """Wait for the time of the next look, or end where nobody reads any more."""
    until = time.monotonic() + _WATCH_SECONDS
    while (left := until - time.monotonic()) > 0:
        reader.end_if_gone()
        time.sleep(min(left, _READER_SECONDS))


def _picture(out: Output, views: list[SpoolView]) -> Text:
    """The status as it fits on the terminal."""
    with out.console.capture() as captured:
        out.line(f"{moment(time.time())}, until Ctrl-C", "dim")
        _print(out, views)
    lines = captured.get().splitlines()
    room = max(1, out.console.size.height)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"… {count(len(lines) - room + 1, 'line')} below"]
    return Text.from_ansi("\n".join(lines))


def _facts(views: list[SpoolView]) -> dict[str, Any]:
    root = os.path.abspath(spools_root())
    return {"version": 1, "root": root, "spools": [view.to_dict() for view in views]}


def _print(out: Output, views: list[SpoolView]) -> None:
    for view in views:
        _print_spool(out, view)
    if not views:
        root = printable(os.path.abspath(spools_root()))
        out.line(f"Nothing has been recorded yet below {root}.")


def _print_spool(out: Output, view: SpoolView) -> None:
    out.line(one_line(view.destination or "destination unknown"), "bold")
    facts = view.to_dict()
    rows: list[Row] = [
        ("spool", view.folder, ""),
        *_delivery_rows(view, facts),
        *_loss_rows(view, facts),
        *_note_rows(view),
        *(row for program in view.programs for row in _program_rows(program)),
    ]
    out.rows([(label, one_line(text), style) for label, text, style in rows])


def _delivery_rows(view: SpoolView, facts: dict[str, Any]) -> list[Row]:
    """The sender, its server, and how far delivery is."""
    waiting = view.waiting
    counted = "" if waiting.all_counted else " at least"
    server = view.server if view.server in SERVER_STATES else SERVER_STATES[0]
    seen = f" (as of {moment(view.status['updated'])})" if view.status else ""
    delivered = f"{spans_of_traces(view.delivered)}, {size(view.delivered['bytes'])}"
    rows: list[Row] = [
        _sender_row(facts["sender"], bool(waiting)),
        ("server", server + seen, _SERVER_STYLES.get(server, "")),
        ("recorded", spans_of_traces(facts["recorded"]) + counted, ""),
        ("delivered", delivered, ""),
    ]
    if not waiting:
        return [*rows, ("waiting", "nothing", "")]
    lag = facts["waiting"]["lag_seconds"]
    text = (
        f"{spans_of_traces(facts['waiting'])}{counted}: {size(waiting.ring_bytes)} in rings, "
        f"{size(waiting.segment_bytes)} in {count(waiting.segments, 'segment')}"
    )
    return [
        *rows,
        ("waiting", text + (f"; the oldest for {age(lag)}" if lag is not None else ""), ""),
    ]


def _sender_row(sender: dict[str, Any], something_waits: bool) -> Row:
    if sender["running"]:
        since = f", since {moment(sender['since'])}" if sender["since"] else ""
        version = f", version {sender['version']}" if sender["version"] else ""
        return "sender", f"running, pid {sender['pid'] or 'unknown'}{since}{version}", ""
    if something_waits:
        return "sender", "not running; `mlflow-fasttrace send` delivers what waits", "yellow"
    return "sender", "not running, nothing to do", ""


def _loss_rows(view: SpoolView, facts: dict[str, Any]) -> list[Row]:
    """The traces that did not arrive and will not by themselves, and why."""
    rows: list[Row] = []
    if facts["full"]:
        rows.append(("full", "the spool has reached its bound: new traces are refused", "red"))
    if facts["no_room"]:
        no_room = f"for {count(facts['no_room'], 'trace')} since the spool exists"
        rows.append(("no room", no_room, "red"))
    if facts["kept_out"]:
        rows.append(
            ("sampled out", f"{count(facts['kept_out'], 'trace')} since the spool exists", "")
        )
    if facts["refused"]:
        rows.append(("refused", f"{count(facts['refused'], 'trace')} since the spool exists", ""))
    for letter in view.dead_letters[:_SHOWN_LETTERS]:
        id = f"span {letter.span_id} of {letter.trace_id}" if letter.span_id else letter.trace_id
        rows.append(("dead letter", f"{id}, {moment(letter.time)}: {letter.reason}", "red"))
    if (more := len(view.dead_letters) - _SHOWN_LETTERS) > 0:
        rows.append(("", f"and {more:,} more dead letters", "red"))
    return [*rows, *(("damaged", text, "red") for text in view.damaged)]


def _note_rows(view: SpoolView) -> list[Row]:
    rows: list[Row] = []
    if error := view.last_error:
        text = f"{moment(error['time'])}: {without_secrets(error['text'])}"
        rows.append(("last error", text, ""))
    return [*rows, *(("note", note, "yellow") for note in view.notes)]


def _program_rows(program: Program) -> list[Row]:
    if program.pid is None:
        return [("ring", program.error or "", "red")]
    state = "alive" if program.alive else "gone"
    parts = [
        f"pid {program.pid}, {state}: {size(program.recorded_bytes)} recorded",
        f"{count(program.waiting_spans, 'span')} waiting in its ring",
    ]
    if program.spilled_records:
        parts.append(f"{program.spilled_records:,} records spilled to segments")
    if program.no_room:
        parts.append(f"{count(program.no_room, 'trace')} without room")
    rows: list[Row] = [("program", ", ".join(parts), "")]
    if program.error:
        rows.append(("ring", f"{program.ring} is {program.error}", "red"))
    return rows
