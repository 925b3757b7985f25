"""Traces as ``traces`` and ``show`` print them: a heading, and the spans below it as a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rich.text import Text
from rich.tree import Tree

from mlflow_fasttrace._internal.base.texts import one_line
from mlflow_fasttrace._internal.cli.output import count, cut, duration
from mlflow_fasttrace._internal.spool.traces import SpanView, TraceView

_STYLES = {"OK": "green", "ERROR": "red", "IN_PROGRESS": "yellow", "UNSET": "dim"}
_MESSAGE_WIDTH = 200


def delivered_line(trace: dict[str, Any]) -> Text:
    """A trace of ``delivered_traces()``."""
    return _heading(
        trace["trace_id"],
        trace["name"],
        trace["duration_ns"],
        trace["state"],
        trace["spans"],
        f"delivered to {trace['destination']}",
    )


def tree_of(trace: TraceView, details: Callable[[SpanView], Iterable[Text]] | None = None) -> Tree:
    """A trace that lies here.

    Args:
        trace: The trace.
        details: Gives the lines below a span.
    """
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
        branch = parent.add(_label(span))
        for detail in details(span) if details else ():
            branch.add(detail)
        pending += [(branch, child) for child in reversed(children.get(span.span_id, []))]
    if trace.missing:
        tree.add(Text(f"{count(trace.missing, 'span')} of it not here", style="dim"))
    return tree


def _heading(
    trace_id: str, name: str, duration_ns: int | None, state: str, spans: int, where: str
) -> Text:
    return Text.assemble(
        (one_line(name) or "(unnamed)", "bold"),
        f"  {duration(duration_ns)}  ",
        (one_line(state), _STYLES.get(state, "")),
        f"  {count(spans, 'span')}  ",
        (f"{one_line(trace_id)}  {one_line(where)}", "dim"),
    )


def _label(span: SpanView) -> Text:
    label = Text.assemble(
        one_line(span.name),
        (f"  {one_line(span.type)}", "cyan"),
        f"  {duration(span.end_ns - span.start_ns)}  ",
        (span.status, _STYLES[span.status]),
    )
    if span.message:
        label.append(f"  {cut(one_line(span.message), _MESSAGE_WIDTH)}", style="red")
    return label
