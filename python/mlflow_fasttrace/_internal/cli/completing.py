"""What the shell offers behind a word that was begun: traces, spools, names. Whatever goes wrong, it
offers nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from click.shell_completion import CompletionItem

from mlflow_fasttrace._internal.base.texts import one_line

if TYPE_CHECKING:
    import click

    from mlflow_fasttrace._internal.spool.traces import Traces

_READ_BYTES = 8 << 20  # of segments, a spool: the shell waits
_MOST = 100  # traces that are offered


def trace_ids(context: click.Context, parameter: click.Parameter, word: str) -> list[Any]:
    """Ids of traces that are known here, the newest first, and files."""
    found = []
    for trace_id, name in _known():
        if trace_id.startswith(word):
            found.append(CompletionItem(trace_id, help=one_line(name)))
        if len(found) == _MOST:
            break
    if not word or not found:
        found.append(CompletionItem(word, type="file"))
    return found


def spools(context: click.Context, parameter: click.Parameter, word: str) -> list[Any]:
    """Names of this user's spools, and folders."""
    found = []
    with contextlib.suppress(Exception):
        from mlflow_fasttrace._internal.spool.overview import all_spools, look_at

        for spool in all_spools():
            if spool.name.startswith(word):
                view = look_at(spool, _READ_BYTES)
                if not view.is_empty():
                    found.append(CompletionItem(spool.name, help=one_line(view.destination or "")))
    return found or [CompletionItem(word, type="dir")]


def names(context: click.Context, parameter: click.Parameter, word: str) -> list[Any]:
    """Names of traces that are known here."""
    return _beginning(word, (name for _trace_id, name in _known()))


def experiments(context: click.Context, parameter: click.Parameter, word: str) -> list[Any]:
    """Names and ids of experiments that traces which wait here go to."""
    traces = _waiting()
    if traces is None:
        return []
    values = (value for trace in traces.newest() for value in trace.experiment.values())
    return _beginning(word, (str(value) for value in values))


def _beginning(word: str, texts: Iterator[str]) -> list[Any]:
    found = dict.fromkeys(text for text in texts if text and text.startswith(word))
    return [CompletionItem(text) for text in found if text == one_line(text)]


def _known() -> Iterator[tuple[str, str]]:
    """Ids and names of the traces that are known here, the newest first."""
    if (traces := _waiting()) is not None:
        for trace in traces.newest():
            yield trace.trace_id, trace.name
    with contextlib.suppress(Exception):
        from mlflow_fasttrace._internal.cli.delivered import delivered_traces
        from mlflow_fasttrace._internal.spool.overview import all_spools

        for spool in all_spools():
            for entry in reversed(delivered_traces(spool)):
                yield entry["trace_id"], entry["name"]


def _waiting() -> Traces | None:
    with contextlib.suppress(Exception):
        from mlflow_fasttrace._internal.spool.overview import all_spools
        from mlflow_fasttrace._internal.spool.traces import Traces

        found = Traces()
        for spool in all_spools():
            found.add_spool(spool, refused=True, budget=_READ_BYTES)
        return found
    return None
