"""``mlflow-fasttrace send``: delivers in the foreground what waits."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from mlflow_fasttrace._internal.base.texts import one_line
from mlflow_fasttrace._internal.cli import completing
from mlflow_fasttrace._internal.cli.output import (
    ATTENTION,
    FAILED,
    Output,
    count,
    cut,
    print_json,
    readable_errors,
    size,
    spans_of_traces,
)
from mlflow_fasttrace._internal.cli.servers import with_credentials
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.config.uris import (
    absolute_uri,
    without_credentials,
    without_secrets,
)
from mlflow_fasttrace._internal.sender import foreground
from mlflow_fasttrace._internal.spool.folder import Spool
from mlflow_fasttrace._internal.spool.overview import (
    SpoolView,
    look_at,
    something_waits,
    spools_named,
)

_INTERRUPTED = 130  # the exit code of a shell's command that Ctrl-C ended
_LINE_SECONDS = 2.0  # between lines of progress where there is no terminal
_REDRAW_SECONDS = 0.05  # between changes of the bar
_BAR_NAME_WIDTH = 40
_EVERYTHING = 1 << 62  # bytes

#: A function that takes how far delivery is.
_Report = Callable[[foreground.Progress], None]


@click.command(epilog="Example: mlflow-fasttrace send --to http://server:5000")
@click.argument("spools", metavar="[SPOOL]...", nargs=-1, shell_complete=completing.spools)
@click.option("--to", metavar="URI", help="Another tracking URI than the traces name.")
@click.option("--timeout", type=click.FloatRange(0), help="Seconds after which to give up.")
@click.option("--retry-refused", is_flag=True, help="Put refused traces back in line first.")
@click.option("--json", "as_json", is_flag=True, help="For machines: what came of it, at the end.")
def send(
    spools: tuple[str, ...],
    to: str | None,
    timeout: float | None,
    retry_refused: bool,
    as_json: bool,
) -> None:
    """Delivers what waits, in the foreground, with the credentials of this environment.

    SPOOL is a folder or the beginning of a name that `status` shows; all spools by default. Where a
    sender is already running, this waits for it and shows how far it is. Without --timeout it gives
    up on a server that has not answered for 20 seconds. What is not delivered stays where it is.

    Exit code 1 when something still waits, 3 when all is delivered or refused.
    """
    # What is for machines comes at the end, and is alone there.
    out = Output(stderr=as_json)
    deadline = None if timeout is None else time.monotonic() + timeout
    back_in_line = 0
    with readable_errors():
        chosen = spools_named(spools)
        if retry_refused:
            back_in_line = sum(foreground.retry_refused(spool) for spool in chosen)
            out.print(f"{count(back_in_line, 'refused trace')} back in line")
        waiting = [spool for spool in chosen if something_waits(spool)]
    found: list[dict[str, Any]] = []
    code = 0
    if waiting:
        _be_a_sender(out)
        code = _send_all(out, waiting, to, deadline, found)
    else:
        out.print("Nothing waits.")
    if as_json:
        print_json({"version": 1, "back_in_line": back_in_line, "spools": found})
    if code:
        sys.exit(code)


def _send_all(
    out: Output,
    waiting: list[Spool],
    to: str | None,
    deadline: float | None,
    found: list[dict[str, Any]],
) -> int:
    """Deliver spools, and add what came of each to ``found``.

    Returns:
        The exit code.
    """
    failed = refused = False
    for spool in waiting:
        view = look_at(spool, counted_bytes=_EVERYTHING)
        try:
            outcome, uri = _send_one(out, spool, view, to, deadline)
        except KeyboardInterrupt:
            out.print("\nStopped. What is not delivered stays where it is.", "yellow")
            return _INTERRUPTED
        except OSError as error:
            outcome = foreground.Outcome(
                foreground.Progress(), False, f"it cannot be used: {error.strerror or error}"
            )
            uri = None
            out.print(f"{view.folder} cannot be used: {error.strerror or error}", "red")
        found.append(_facts(view, uri, outcome))
        failed |= not outcome.complete
        refused |= outcome.progress.refused > 0
    return FAILED if failed else ATTENTION if refused else 0


def _facts(view: SpoolView, uri: str | None, outcome: foreground.Outcome) -> dict[str, Any]:
    """What came of a spool, as ``send --json`` prints it."""
    done = outcome.progress
    return {
        "name": view.name,
        "folder": view.folder,
        "destination": without_credentials(uri) if uri else view.destination,
        "delivered": {"traces": done.traces, "spans": done.spans, "bytes": done.bytes},
        "refused": done.refused,
        "running": outcome.running,
        "complete": outcome.complete,
        "reason": without_secrets(outcome.reason) or None,
    }


def _be_a_sender(out: Output) -> None:
    """Make this process what a sender in the background is: it is never traced, and makes each request
    once. Its log lines go to the terminal, without secrets."""
    environment.disable()
    environment.stop_retries_of_mlflow()

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            out.line(one_line(without_secrets(record.getMessage())), "yellow")

    logger = logging.getLogger("mlflow_fasttrace.sender")
    logger.handlers = [Lines(logging.WARNING)]
    logger.propagate = False
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _send_one(
    out: Output, spool: Spool, view: SpoolView, to: str | None, deadline: float | None
) -> tuple[foreground.Outcome, str | None]:
    """Deliver a spool and print what came of it.

    Returns:
        What came of it, and where it was delivered to.

    Raises:
        OSError: The spool's folder cannot be used.
    """
    if to:
        uri = absolute_uri(to)
    elif view.destination is not None:
        uri = with_credentials(view.destination)
    else:
        reason = "no record in it says where it goes; say it with --to"
        outcome = foreground.Outcome(foreground.Progress(), False, reason)
        _print_outcome(out, view, None, outcome)
        return outcome, None
    elsewhere = without_credentials(uri) != view.destination
    workspace = environment.workspace() if to else view.workspace
    # MLflow's code that uploads attachments, and that makes headers, asks the environment.
    with (
        environment.changed(MLFLOW_TRACKING_URI=uri, MLFLOW_WORKSPACE=workspace),
        _progress(out, view, without_credentials(uri)) as report,
    ):
        outcome = foreground.deliver(
            spool,
            uri,
            report,
            deadline=deadline,
            instead_of=(view.destination or "") if elsewhere else None,
        )
    _print_outcome(out, view, uri, outcome)
    return outcome, uri


def _print_outcome(
    out: Output, view: SpoolView, uri: str | None, outcome: foreground.Outcome
) -> None:
    done = outcome.progress
    where = one_line(without_credentials(uri) if uri else view.destination or view.folder)
    text = f"{where}: {spans_of_traces({'spans': done.spans, 'traces': done.traces})} delivered"
    if done.refused:
        text += f", {count(done.refused, 'trace')} refused (`mlflow-fasttrace status` says why)"
    if outcome.running:
        text += f"; {count(outcome.running, 'trace')} will be sent when finished"
    out.line(text, "green" if outcome.complete and not done.refused else "yellow")
    if not outcome.complete:
        reason = one_line(without_secrets(outcome.reason)).rstrip(".")
        out.line(
            f"{view.folder} still holds what is not delivered: {reason}. Nothing is lost; see that "
            "the server answers, set its credentials in the environment or in --to, and run this "
            "again.",
            "red",
        )


# ---- progress ----


def _progress(out: Output, view: SpoolView, uri: str) -> contextlib.AbstractContextManager[_Report]:
    """Shows how far delivery is, while the block runs that reports it."""
    return _bar(out, view, uri) if out.for_people else _lines(out, view, uri)


def _words(done: foreground.Progress, view: SpoolView) -> str:
    spans = max(view.waiting.spans, done.spans)
    record_bytes = max(view.waiting.record_bytes, done.bytes)
    return f"{done.spans:,}/{spans:,} spans, {size(done.bytes)} of {size(record_bytes)}"


@contextlib.contextmanager
def _lines(out: Output, view: SpoolView, uri: str) -> Iterator[_Report]:
    last = 0.0
    shown = ""

    def report(done: foreground.Progress) -> None:
        nonlocal last, shown
        if time.monotonic() - last >= _LINE_SECONDS and (text := _words(done, view)) != shown:
            last, shown = time.monotonic(), text
            out.print(f"{one_line(uri)}: {text}")

    yield report


@contextlib.contextmanager
def _bar(out: Output, view: SpoolView, uri: str) -> Iterator[_Report]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    last = 0.0
    total = view.waiting.spans
    with Progress(*columns, console=out.console, transient=True) as bar:
        name = cut(one_line(uri), _BAR_NAME_WIDTH)
        task = bar.add_task(name, total=max(total, 1), words="")

        def report(done: foreground.Progress) -> None:
            nonlocal last
            if time.monotonic() - last >= _REDRAW_SECONDS:
                last = time.monotonic()
                spans = max(total, done.spans, 1)
                bar.update(task, completed=done.spans, total=spans, words=_words(done, view))

        yield report
