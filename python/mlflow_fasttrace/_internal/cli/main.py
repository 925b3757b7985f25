"""The command ``mlflow-fasttrace``: what is recorded here, what waits, and sending it; programs that
run on the core, and what is active."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from mlflow_fasttrace._internal.base.version import VERSION
from mlflow_fasttrace._internal.config import otlp
from mlflow_fasttrace._internal.config.uris import (
    absolute_uri,
    without_credentials,
    without_secrets,
)
from mlflow_fasttrace._internal.spool.folder import Spool, state_root

try:
    from mlflow_fasttrace._internal.spool import overview
    from mlflow_fasttrace._internal.spool.overview import SpoolView
    from mlflow_fasttrace._internal.spool.reading import Unreadable, span_json
    from mlflow_fasttrace._internal.spool.status_file import SERVER_STATES, read_status
    from mlflow_fasttrace._internal.spool.traces import SpanView, Traces, TraceView
except ImportError as error:  # without the C core: run and doctor do
    _missing: ImportError | None = error
else:
    _missing = None

# Exit codes, besides 0 and click's 2 for a wrong command line.
FAILED = 1
ATTENTION = 3

_UNBROKEN = 100_000  # columns: what is not a terminal breaks no lines
_SHOWN_LETTERS = 10
_LINE_SECONDS = 2.0  # between lines of progress where there is no terminal
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_STYLES = {"OK": "green", "ERROR": "red", "IN_PROGRESS": "yellow", "UNSET": "dim"}


# ---- words ----


def _clean(text: object) -> str:
    """Text of a trace or a file, for a terminal: nothing in it acts."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], str(text))


def _line(text: object) -> str:
    return " ".join(_clean(text).split())


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:,.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def _duration(nanoseconds: int | None) -> str:
    if nanoseconds is None:
        return "-"
    seconds = max(0, nanoseconds) / 1e9
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 120 else _ago(seconds)


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _when(timestamp: float) -> str:
    try:
        return datetime.fromtimestamp(timestamp).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "an unknown time"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class _Output:
    """Standard output; lines are only broken for a terminal."""

    def __init__(self, stderr: bool = False):
        # No markup and no highlighting: what is printed comes from traces and files.
        self.console = Console(markup=False, highlight=False, emoji=False, stderr=stderr)
        self.for_people = self.console.is_terminal
        if not self.for_people:
            self.console.width = _UNBROKEN

    def print(self, what: Any, style: str | None = None) -> None:
        self.console.print(what, style=style)

    def rows(self, rows: list[tuple[str, str, str]]) -> None:
        """Labels, texts and their styles."""
        if not self.for_people:
            for label, text, style in rows:
                self.print(Text(f"  {label:<12}{text}", style=style))
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim")
        grid.add_column(overflow="fold")
        for label, text, style in rows:
            grid.add_row(f"  {label}", Text(text, style=style))
        self.print(grid)


def _json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def _unreadable() -> type[Exception]:
    return ValueError if _missing is not None else Unreadable


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except _unreadable() as reason:
        raise click.ClickException(_clean(without_secrets(str(reason)))) from None
    except OSError as error:
        text = f"{error.filename or ''}: {error.strerror or error}".removeprefix(": ")
        raise click.ClickException(_clean(without_secrets(text))) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="mlflow-fasttrace")
@click.pass_context
def main(context: click.Context) -> None:
    """Runs programs on mlflow-fasttrace, and shows what it has recorded on this machine and whether
    that arrives.

    Everything is read from this user's spools: MLFLOW_FASTTRACE_SPOOL_DIR, or the default folder.
    """
    if _missing is not None and context.invoked_subcommand not in ("run", "doctor"):
        raise click.ClickException(f"the C core cannot be loaded: {_missing}")


# ---- run ----


@main.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
)
@click.argument("command", metavar="[--] SCRIPT.py|-m MODULE|COMMAND [ARGUMENT]...", nargs=-1)
@click.pass_context
def run(context: click.Context, command: tuple[str, ...]) -> None:
    """Runs a program with MLflow on the core, unchanged, and its child processes too.

    What it imports as `mlflow` records as mlflow-fasttrace does. SCRIPT.py and -m MODULE are run by
    this Python; another command (gunicorn, pytest) is run as it is. MLFLOW_FASTTRACE_DISABLE=1 leaves
    everything to MLflow itself.
    """
    if not command or command[0] in ("-h", "--help"):
        click.echo(context.get_help())
        context.exit(0 if command else 2)
    environment = {**os.environ, "MLFLOW_FASTTRACE": "1"}
    here = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bootstrap")
    path = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    environment["PYTHONPATH"] = os.pathsep.join([here, *(f for f in path if f != here)])
    arguments = list(command)
    if _is_command(arguments[0]):
        executable = shutil.which(arguments[0])
    else:
        executable = sys.executable
        arguments.insert(0, sys.executable)
    sys.stdout.flush()
    try:
        os.execvpe(executable, arguments, environment)
    except OSError as error:
        raise click.ClickException(f"{executable} cannot be run: {error.strerror}") from None


def _is_command(word: str) -> bool:
    """Whether it is run as it is: neither an option of Python nor a Python file or folder."""
    if word.startswith("-") or word.endswith((".py", ".pyz")) or os.path.isdir(word):
        return False
    return shutil.which(word) is not None


# ---- doctor ----


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def doctor(as_json: bool) -> None:
    """What is active, which versions, where traces go and wait, what runs on MLflow itself and why.

    Exit code 3 when something needs attention.
    """
    from mlflow_fasttrace._internal.cli import doctor

    logging.getLogger("mlflow_fasttrace").setLevel(logging.CRITICAL)  # it is in the report
    found = []
    with _readable_errors():
        for finding in doctor.findings():
            found.append(finding._replace(text=_clean(without_secrets(finding.text))))
    if as_json:
        _json({"version": 1, "findings": [finding._asdict() for finding in found]})
    else:
        out = _Output()
        styles = {doctor.GOOD: "", doctor.NOTED: "yellow", doctor.BAD: "red"}
        for section in dict.fromkeys(finding.section for finding in found):
            out.print(Text(section, style="bold"))
            rows = [f for f in found if f.section == section]
            width = max(len(finding.label) for finding in rows) + 2
            for finding in rows:
                mark = {doctor.GOOD: " ", doctor.NOTED: "·", doctor.BAD: "!"}[finding.rating]
                line = f"{mark} {_line(finding.label):<{width}}{_line(finding.text)}"
                out.print(Text(line, style=styles[finding.rating]))
    if any(finding.rating == doctor.BAD for finding in found):
        sys.exit(ATTENTION)


# ---- status ----


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def status(as_json: bool) -> None:
    """What is recorded, delivered, waiting and refused, for every destination.

    Exit code 3 when something needs attention: traces that a server refused, damaged files, or
    records that wait and no sender is running for them.
    """
    with _readable_errors():
        root = os.path.abspath(state_root())
        views = [overview.look_at(spool) for spool in overview.all_spools()]
        views = [view for view in views if not view.is_empty()]
    if as_json:
        _json({"version": 1, "root": root, "spools": [view.to_dict() for view in views]})
    else:
        out = _Output()
        for view in views:
            _print_spool(out, view)
        if not views:
            out.print(f"Nothing has been recorded yet below {_clean(root)}.")
    if any(view.needs_attention() for view in views):
        sys.exit(ATTENTION)


def _print_spool(out: _Output, view: SpoolView) -> None:
    facts = view.to_dict()
    out.print(Text(_line(view.destination or "destination unknown"), style="bold"))
    rows: list[tuple[str, str, str]] = []

    def row(label: str, text: str, style: str = "") -> None:
        rows.append((label, _line(text), style))

    row("spool", view.folder)
    sender = facts["sender"]
    if sender["running"]:
        since = f", since {_when(sender['since'])}" if sender["since"] else ""
        version = f", version {sender['version']}" if sender["version"] else ""
        row("sender", f"running, pid {sender['pid'] or 'unknown'}{since}{version}")
    elif view.waiting:
        row("sender", "not running; `mlflow-fasttrace send` delivers what waits", "yellow")
    else:
        row("sender", "not running, nothing to do")
    server = view.server if view.server in SERVER_STATES else "unknown"
    seen = f" (as of {_when(view.status['updated'])})" if view.status else ""
    row("server", server + seen, {"away": "yellow", "answers": "green"}.get(server, ""))
    counted = "" if view.waiting.all_counted else " at least"
    recorded = facts["recorded"]
    row("recorded", f"{_amount(recorded)}{counted}")
    row("delivered", f"{_amount(view.delivered)}, {_size(view.delivered['bytes'])}")
    waiting = view.waiting
    if waiting:
        lag = facts["waiting"]["lag_seconds"]
        row(
            "waiting",
            f"{_amount(facts['waiting'])}{counted}: {_size(waiting.ring_bytes)} in rings, "
            f"{_size(waiting.segment_bytes)} in {_count(waiting.segments, 'segment')}"
            + (f"; the oldest for {_ago(lag)}" if lag is not None else ""),
        )
    else:
        row("waiting", "nothing")
    if facts["full"]:
        row("full", "the spool has reached its bound: new traces are refused", "red")
    if facts["no_room"]:
        row("no room", f"for {_count(facts['no_room'], 'trace')} since the spool exists", "red")
    if facts["kept_out"]:
        row("sampled out", f"{_count(facts['kept_out'], 'trace')} since the spool exists")
    if facts["refused"]:
        row("refused", f"{_count(facts['refused'], 'trace')} since the spool exists")
    for letter in view.dead_letters[:_SHOWN_LETTERS]:
        what = f"span {letter.span_id} of {letter.trace_id}" if letter.span_id else letter.trace_id
        row("dead letter", f"{what}, {_when(letter.time)}: {letter.reason}", "red")
    if len(view.dead_letters) > _SHOWN_LETTERS:
        row("", f"and {len(view.dead_letters) - _SHOWN_LETTERS:,} more dead letters", "red")
    for text in view.damaged:
        row("damaged", text, "red")
    if error := view.last_error:
        row("last error", f"{_when(error['time'])}: {without_secrets(error['text'])}")
    for note in view.notes:
        row("note", note, "yellow")
    for agent in view.agents:
        state = "alive" if agent.alive else "gone"
        if agent.pid is None:
            row("ring", agent.error or "", "red")
            continue
        parts = [
            f"pid {agent.pid}, {state}: {_size(agent.recorded_bytes)} recorded",
            f"{_count(agent.waiting_spans, 'span')} waiting in its ring",
        ]
        if agent.spilled_records:
            parts.append(f"{agent.spilled_records:,} records spilled to segments")
        if agent.no_room:
            parts.append(f"{_count(agent.no_room, 'trace')} without room")
        row("agent", ", ".join(parts))
        if agent.error:
            row("ring", f"{agent.ring} is {agent.error}", "red")
    out.rows(rows)


def _amount(counts: dict[str, Any]) -> str:
    return f"{_count(counts['spans'], 'span')} of {_count(counts['traces'], 'trace')}"


# ---- traces ----


@main.command()
@click.option("-n", "count", default=10, show_default=True, type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def traces(count: int, as_json: bool) -> None:
    """The last traces that are known here: those that wait, and those just delivered."""
    collected = Traces()
    delivered: list[dict[str, Any]] = []
    with _readable_errors():
        for spool in overview.all_spools():
            collected.add_spool(spool, refused=True, budget=overview.COUNTED_BYTES)
            delivered += _recent(spool)
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
    shown = [entry for _, entry in entries[:count]]
    if as_json:
        _json([t.to_dict() if isinstance(t, TraceView) else t for t in shown])
    else:
        out = _Output()
        for trace in reversed(shown):  # the newest where the eye is
            if isinstance(trace, TraceView):
                out.print(_tree(trace))
            else:
                out.print(_delivered_line(trace))
        if not shown:
            out.print("No traces are known here.")
    _print_notes(collected.notes)


def _recent(spool: Spool) -> list[dict[str, Any]]:
    status = read_status(spool.state)
    if status is None:
        return []
    return [
        {
            **{key: trace[key] for key in trace if key != "to"},
            "where": "delivered",
            "destination": without_secrets(trace["to"]),
        }
        for trace in status["recent"]
    ]


def _heading(
    trace_id: str, name: str, duration_ns: int | None, state: str, spans: int, where: str
) -> Text:
    return Text.assemble(
        (_line(name) or "(unnamed)", "bold"),
        f"  {_duration(duration_ns)}  ",
        (_line(state), _STYLES.get(state, "")),
        f"  {_count(spans, 'span')}  ",
        (f"{_line(trace_id)}  {_line(where)}", "dim"),
    )


def _delivered_line(trace: dict[str, Any]) -> Text:
    where = f"delivered to {trace['destination']}"
    return _heading(
        trace["trace_id"],
        trace["name"],
        trace["duration_ns"],
        trace["state"],
        trace["spans"],
        where,
    )


def _tree(trace: TraceView, details: Callable[[SpanView], list[Any]] | None = None) -> Tree:
    tree = Tree(
        _heading(
            trace.trace_id,
            trace.name,
            trace.duration_ns,
            trace.state,
            len(trace.spans),
            trace.source,
        )
    )
    children = trace.children()
    pending = [(tree, span) for span in reversed(children.get(None, []))]
    while pending:  # not recursive: traces may be deep
        parent, span = pending.pop()
        label = Text.assemble(
            _line(span.name),
            (f"  {_line(span.type)}", "cyan"),
            f"  {_duration(span.end_ns - span.start_ns)}  ",
            (span.status, _STYLES[span.status]),
        )
        if span.message:
            label.append(f"  {_cut(_line(span.message), 200)}", style="red")
        branch = parent.add(label)
        for detail in details(span) if details else ():
            branch.add(detail)
        pending += [(branch, child) for child in reversed(children.get(span.span_id, []))]
    if trace.missing:
        tree.add(Text(f"{_count(trace.missing, 'span')} of it not here", style="dim"))
    return tree


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(1, width - 1)] + "…"


def _print_notes(notes: list[str]) -> None:
    out = _Output(stderr=True)
    for note in notes:
        out.print(Text(_line(without_secrets(note)), style="yellow"))


# ---- show ----


@main.command()
@click.argument("what", metavar="FILE|TRACE")
@click.option("--full", is_flag=True, help="Whole inputs and outputs.")
@click.option("--json", "as_json", is_flag=True, help="As MLflow's span dictionaries.")
def show(what: str, full: bool, as_json: bool) -> None:
    """The traces of a ring, segment, refused or damaged file, or one trace by its id.

    TRACE is tr-... or the id alone; its beginning is enough. It is looked for in all that waits or
    was refused here.
    """
    with _readable_errors():
        if os.path.lexists(what):
            collected = Traces(keep_records=True)
            collected.add_file(what)
            found = list(reversed(collected.newest()))
        else:
            collected, found = _find_trace(what)
    if as_json:
        click.echo(f"[{', '.join(trace.to_json() for trace in found)}]")
    else:
        out = _Output()
        width = out.console.width if out.for_people else 160

        def details(span: SpanView) -> list[Any]:
            return list(_values(span, full, width))

        for trace in found:
            out.print(_tree(trace, details))
        if not found:
            out.print("There is no trace in it.")
    _print_notes(collected.notes)


def _find_trace(what: str) -> tuple[Traces, list[TraceView]]:
    digits = what.lower().removeprefix("tr-")
    if not re.fullmatch("[0-9a-f]{1,32}", digits):
        raise Unreadable(f"{what} is neither a file nor the id of a trace (tr- and 32 hex digits)")
    collected = Traces(keep_records=True, wanted=digits)
    spools = overview.all_spools()
    for spool in spools:
        collected.add_spool(spool, refused=True)
    found = collected.newest()
    ids = {trace.trace_id for trace in found}
    delivered = {}
    for spool in spools:
        for trace in _recent(spool):
            if trace["trace_id"].startswith("tr-" + digits):
                delivered[trace["trace_id"]] = trace
    if len(ids | set(delivered)) > 1:
        some = ", ".join(sorted(ids | set(delivered))[:5])
        raise Unreadable(f"{what} stands for several traces: {some}")
    if not found and delivered:
        (trace,) = delivered.values()
        raise Unreadable(
            f"{trace['trace_id']} ({_line(trace['name'])}) has been delivered to "
            f"{trace['destination']}; look at it there"
        )
    if not found:
        raise Unreadable(f"no trace {what} waits here or was refused")
    return collected, found


def _values(span: SpanView, full: bool, width: int) -> Iterator[Text]:
    try:
        attributes = json.loads(span_json(span.record))["attributes"]
    except (ValueError, KeyError, RecursionError):
        yield Text("this span cannot be shown", style="red")
        return
    for label, key in (("inputs", "mlflow.spanInputs"), ("outputs", "mlflow.spanOutputs")):
        text = attributes.get(key)
        if not isinstance(text, str) or (text == "null" and not full):
            continue
        if full:
            with contextlib.suppress(ValueError, RecursionError):
                text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
            text = _clean(text)
        else:
            text = _cut(_line(text), max(20, width - 40))
        yield Text.assemble((f"{label} ", "dim"), text)


# ---- send ----


@main.command()
@click.argument("spools", metavar="[SPOOL]...", nargs=-1)
@click.option("--to", metavar="URI", help="Another tracking URI than the traces name.")
@click.option("--timeout", type=click.FloatRange(0), help="Seconds after which to give up.")
@click.option("--retry-refused", is_flag=True, help="Put refused traces back in line first.")
def send(spools: tuple[str, ...], to: str | None, timeout: float | None, retry_refused: bool):
    """Delivers what waits, in the foreground, with the credentials of this environment.

    SPOOL is a folder or the beginning of a name that `status` shows; all spools by default. Where a
    sender is already running, this waits for it and shows how far it is. Without --timeout it gives
    up on a server that has not answered for 20 seconds. What is not delivered stays where it is.

    Exit code 1 when something still waits, 3 when all is delivered or refused.
    """
    from mlflow_fasttrace._internal.sender import foreground

    out = _Output()
    deadline = None if timeout is None else time.monotonic() + timeout
    failed = refused = False
    with _readable_errors():
        chosen = overview.spools_named(spools)
        if retry_refused:
            count = sum(foreground.retry_refused(spool) for spool in chosen)
            out.print(f"{_count(count, 'refused trace')} back in line")
        waiting = [spool for spool in chosen if overview.something_waits(spool)]
    if not waiting:
        out.print("Nothing waits.")
        return
    _be_a_sender(out)
    for spool in waiting:
        view = overview.look_at(spool, counted_bytes=1 << 62)
        try:
            outcome = _send_one(out, spool, view, to, deadline)
        except KeyboardInterrupt:
            out.print("\nStopped. What is not delivered stays where it is.", "yellow")
            sys.exit(130)
        except OSError as error:
            failed = True
            out.print(f"{view.folder} cannot be used: {error.strerror or error}", "red")
            continue
        failed |= not outcome.complete
        refused |= outcome.progress.refused > 0
    if failed or refused:
        sys.exit(FAILED if failed else ATTENTION)


def _be_a_sender(out: _Output) -> None:
    """As in the background: never traced; its log lines go to the terminal, without secrets."""
    os.environ["MLFLOW_FASTTRACE_DISABLE"] = "1"
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # the sender tries again by itself

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = without_secrets(record.getMessage())
            out.print(Text(_line(text), style="yellow"))

    logger = logging.getLogger("mlflow_fasttrace.sender")
    logger.handlers = [Lines(logging.WARNING)]
    logger.propagate = False
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _send_one(out: _Output, spool: Spool, view: SpoolView, to: str | None, deadline: float | None):
    from mlflow_fasttrace._internal.sender import foreground

    if view.destination is None and to is None:
        reason = "no record in it says where it goes; say it with --to"
        return _report(out, view, None, foreground.Outcome(foreground.Progress(), False, reason))
    uri = absolute_uri(to) if to else _with_credentials(view.destination)
    elsewhere = without_credentials(uri) != view.destination
    workspace = os.environ.get("MLFLOW_WORKSPACE") if to else view.workspace
    # MLflow's code that uploads attachments, and that makes headers, asks the environment.
    with (
        _environment(MLFLOW_TRACKING_URI=uri, MLFLOW_WORKSPACE=workspace),
        _progress(out, view, without_credentials(uri)) as report,
    ):
        outcome = foreground.deliver(
            spool,
            uri,
            report,
            deadline=deadline,
            instead_of=(view.destination or "") if elsewhere else None,
        )
    return _report(out, view, uri, outcome)


@contextlib.contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    _set_environment(values)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _with_credentials(destination: str) -> str:
    """A record's destination, with the user and password of the environment's URI if that is the
    same one."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    uris = [absolute_uri(given) if given else None, otlp.collector_uri()]
    same = (uri for uri in uris if uri and without_credentials(uri) == destination)
    return next(same, destination)


def _report(out: _Output, view: SpoolView, uri: str | None, outcome: Any) -> Any:
    done = outcome.progress
    where = _line(without_credentials(uri) if uri else view.destination or view.folder)
    text = f"{where}: {_amount({'spans': done.spans, 'traces': done.traces})} delivered"
    if done.refused:
        text += f", {_count(done.refused, 'trace')} refused (`mlflow-fasttrace status` says why)"
    if outcome.running:
        text += f"; {_count(outcome.running, 'trace')} will be sent when finished"
    out.print(Text(text, style="green" if outcome.complete and not done.refused else "yellow"))
    if not outcome.complete:
        reason = _line(without_secrets(outcome.reason)).rstrip(".")
        out.print(
            Text(
                f"{view.folder} still holds what is not delivered: {reason}. Nothing is lost; "
                "see that the server answers, set its credentials in the environment or in "
                "--to, and run this again.",
                style="red",
            )
        )
    return outcome


@contextlib.contextmanager
def _progress(out: _Output, view: SpoolView, uri: str) -> Iterator[Callable[[Any], None]]:
    total, size = view.waiting.spans, view.waiting.record_bytes
    where = _line(uri)
    last = 0.0

    def words(done: Any) -> str:
        spans, count = f"{done.spans:,}/{max(total, done.spans):,} spans", max(size, done.bytes)
        return f"{spans}, {_size(done.bytes)} of {_size(count)}"

    if not out.for_people:
        shown = ""

        def line(done: Any) -> None:
            nonlocal last, shown
            if time.monotonic() - last >= _LINE_SECONDS and (text := words(done)) != shown:
                last, shown = time.monotonic(), text
                out.print(f"{where}: {text}")

        yield line
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=out.console, transient=True) as bar:
        task = bar.add_task(_cut(where, 40), total=max(total, 1), words="")

        def update(done: Any) -> None:
            nonlocal last
            if time.monotonic() - last >= 0.05:
                last = time.monotonic()
                most = max(total, done.spans, 1)
                bar.update(task, completed=done.spans, total=most, words=words(done))

        yield update
