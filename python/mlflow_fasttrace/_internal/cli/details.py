"""All that is known of one trace, as ``show`` prints it: the errors, what the trace says of itself, and
what each span does."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from rich.text import Text

from mlflow_fasttrace._internal.base.texts import one_line, printable
from mlflow_fasttrace._internal.cli.output import (
    Row,
    cut,
    moment,
    money,
    offset,
    size,
)
from mlflow_fasttrace._internal.cli.servers import link_to
from mlflow_fasttrace._internal.config.uris import without_secrets
from mlflow_fasttrace._internal.spool.traces import Figures, SpanView, TraceView, texts_in

_LEAST_VALUE = 20  # columns
_VALUES = (("inputs", "mlflow.spanInputs"), ("outputs", "mlflow.spanOutputs"))
#: Attributes that stand elsewhere in what is shown.
_KNOWN = {"mlflow.spanInputs", "mlflow.spanOutputs", "mlflow.spanType", "mlflow.traceRequestId"}
#: Metadata with a row of their own, by their label.
_NAMED = {"session": "mlflow.trace.session", "user": "mlflow.trace.user"}
_EXCEPTION = "exception"
_STACK = "exception.stacktrace"
_ATTACHMENT = re.compile(r"mlflow-attachment://([0-9A-Za-z-]+)(?:\?([^\s\"'\\]*))?")


class Details:
    """What is known of a trace's spans.

    Args:
        trace: A trace whose spans have their records, or their texts.
        full: Whether values are written out, on as many lines as they take.
        for_people: Whether lines are made to fit a terminal; otherwise nothing is cut.
    """

    def __init__(self, trace: TraceView, *, full: bool, for_people: bool):
        self._trace = trace
        self._full = full
        self._for_people = for_people
        self._cuts = for_people and not full
        self._stacks = _first_stacks(trace)

    def errors(self) -> Iterator[Text]:
        """The stack traces of the spans that errors began in."""
        for span_id, stack in self._stacks.items():
            span = self._trace.spans[span_id]
            yield Text(f"error in {one_line(span.name)}", style="bold red")
            yield Text(printable(stack).rstrip(), style="red", overflow="fold")

    def rows(self) -> list[Row]:
        """What the trace says of itself."""
        trace = self._trace
        metadata, tags = trace.metadata(), trace.tags()
        name, experiment_id = trace.experiment.get("name"), trace.experiment.get("id")
        named = {key: metadata.pop(key, None) for key in _NAMED.values()}
        usage, cost = trace.usage(), trace.cost()
        link = None
        if trace.source == "delivered" and trace.destination:
            link = link_to(trace.destination, experiment_id, trace.trace_id)
        found: list[tuple[str, str | None]] = [
            ("trace", trace.trace_id),
            ("began", moment(trace.begun_ns() / 1e9) if trace.begun_ns() else None),
            ("goes to" if link is None else "is at", trace.destination),
            ("experiment", name or experiment_id),
            ("MLflow", link),
            *((label, named[key]) for label, key in _NAMED.items()),
            ("request id", trace.info.get("client_request_id")),
            ("tokens", _in_words(usage, lambda number: f"{int(number):,}", "_tokens")),
            ("cost", _in_words(cost, money, "_cost")),
            *(("tag", f"{key} = {text}") for key, text in tags.items()),
            *(("metadata", f"{key} = {text}") for key, text in metadata.items()),
            *(("assessment", text) for text in _assessments(trace)),
        ]
        return [
            (label, one_line(text if text is link else without_secrets(str(text))), "")
            for label, text in found
            if text
        ]

    def of_span(self, span: SpanView, columns: int) -> Iterator[Text]:
        """The lines below a span.

        Args:
            span: The span.
            columns: There are for a line.
        """
        try:
            found = json.loads(span.mlflow_json())
            attributes = texts_in(found["attributes"])
            events, links = list(found.get("events") or ()), list(found.get("links") or ())
        except (ValueError, KeyError, TypeError, RecursionError):
            yield Text("this span cannot be shown", style="red")
            return
        if span.message and self._for_people:  # otherwise it stands in the span's line
            yield Text(printable(span.message), style="red")
        began = offset(span.start_ns - self._trace.begun_ns())
        yield _fact("span", f"{span.span_id.hex()}, began {began}")
        for label, key in _VALUES:
            text = attributes.get(key)
            if text is not None and (text != "null" or self._full):
                yield self._line(label, text, columns)
        yield from self._attachments(attributes)
        for key, text in attributes.items():
            if key not in _KNOWN:
                yield self._line(key, text, columns)
        for event in events:
            yield from self._event(span, event, columns)
        for link in links:
            yield self._line("link", json.dumps(link, ensure_ascii=False), columns)

    def _line(self, label: str, text: str, columns: int) -> Text:
        """A value behind its label."""
        label = one_line(label)
        if self._full:
            with contextlib.suppress(ValueError, RecursionError):
                text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
            shown = printable(text)
        else:
            shown = one_line(text)
            if self._cuts:
                shown = cut(shown, max(_LEAST_VALUE, columns - len(label) - 1))
        return Text.assemble((f"{label} ", "dim"), shown)

    def _attachments(self, attributes: dict[str, str]) -> Iterator[Text]:
        """The files that stand for contents of inputs and outputs."""
        ids: dict[str, str] = {}
        for text in attributes.values():
            for match in _ATTACHMENT.finditer(text):
                ids.setdefault(match[1], match[2] or "")
        for attachment_id, query in ids.items():
            said = parse_qs(query)
            kind, bytes_said = (said.get(key, [""])[0] for key in ("content_type", "size"))
            known = self._trace.attachments.get(attachment_id)
            if known is None and bytes_said.isdecimal():
                known = int(bytes_said)
            parts = [attachment_id, kind, "" if known is None else size(known)]
            yield _fact("attachment", "  ".join(filter(None, parts)))

    def _event(self, span: SpanView, event: Any, columns: int) -> Iterator[Text]:
        if not isinstance(event, dict):
            return
        attributes = texts_in(event.get("attributes"))
        stack = attributes.pop(_STACK, None)
        at = event.get("time_unix_nano")
        when = f" {offset(at - span.start_ns)}" if isinstance(at, int) else ""
        yield _fact("event", f"{event.get('name')}{when}")
        for key, text in attributes.items():
            yield self._line(f"  {key}", text, columns)
        if stack is not None and span.status != "ERROR":  # those of errors stand above the tree
            yield Text(printable(stack).rstrip(), style="dim")


def _fact(label: str, text: str) -> Text:
    """Something behind its label that is never cut."""
    return Text.assemble((f"{label} ", "dim"), one_line(text))


def _first_stacks(trace: TraceView) -> dict[bytes, str]:
    """The stack traces of spans with an error, by their ids, the earliest end first. Where an error has gone
    through several spans, only the innermost one counts."""
    stacks: dict[bytes, str] = {}
    passed_on: set[tuple[bytes, str]] = set()  # parents, and what reached them
    for span in sorted(trace.spans.values(), key=lambda span: (span.end_ns, -span.start_ns)):
        if span.status != "ERROR":
            continue
        if (span.span_id, span.message) not in passed_on:
            stacks[span.span_id] = _stack_of(span) or span.message or "no stack trace is known"
        if span.parent_id is not None:
            passed_on.add((span.parent_id, span.message))
    return stacks


def _stack_of(span: SpanView) -> str | None:
    """The stack trace of the exception that a span has recorded last."""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError, AttributeError):
        for event in reversed(json.loads(span.mlflow_json())["events"]):
            if event["name"] == _EXCEPTION and (stack := event["attributes"].get(_STACK)):
                return str(stack)
    return None


def _in_words(figures: Figures | None, word: Any, ending: str) -> str | None:
    """Figures by what they count."""
    if figures is None:
        return None
    return ", ".join(
        f"{key.removesuffix(ending).replace('_', ' ')} {word(number)}"
        for key, number in figures.items()
    )


def _assessments(trace: TraceView) -> Iterator[str]:
    found = trace.info.get("assessments")
    for assessment in found if isinstance(found, list) else ():
        if not isinstance(assessment, dict):
            continue
        name = assessment.get("assessment_name") or assessment.get("name")
        value = assessment.get("feedback") or assessment.get("expectation")
        rationale = assessment.get("rationale")
        text = f"{name} = {json.dumps(value, ensure_ascii=False, default=str)}"
        yield f"{text}: {rationale}" if rationale else text
