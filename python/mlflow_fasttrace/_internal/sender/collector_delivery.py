"""Delivery to a collector.

A collector knows spans and nothing of traces: spans go as they end, and what else MLflow knows of a
trace is not sent, but for the tags that the program set, which travel with the root.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from typing import Any

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.config import otlp
from mlflow_fasttrace._internal.sender.acknowledge import Acknowledgements
from mlflow_fasttrace._internal.sender.assemble import (
    OPEN_AFTER_SECONDS,
    ORPHAN_AFTER_SECONDS,
    Assembler,
    Disposition,
    TraceBuffer,
)
from mlflow_fasttrace._internal.sender.batches import BatchSize
from mlflow_fasttrace._internal.sender.collectors import Collector, open_collector
from mlflow_fasttrace._internal.sender.dead_letters import DeadLetters
from mlflow_fasttrace._internal.sender.exceptions import (
    DeliveryError,
    Rejected,
    TooLarge,
    TransientError,
    Unavailable,
)
from mlflow_fasttrace._internal.sender.sources import Entry
from mlflow_fasttrace._internal.sender.verdicts import Verdicts, wait_for_memory
from mlflow_fasttrace._internal.spool.records import PHASE_OPEN, SpanRecord, is_root

logger = logging.getLogger("mlflow_fasttrace.sender")

_SEND_AFTER_SECONDS = 0.2  # for which a span waits for others that share its request
_REQUEST_SPANS = 512
_REQUEST_BYTES = 1 << 20  # gRPC servers take 4 MB unless they are told otherwise
_LEAST_BYTES = 16 << 10  # that a collector is sent at a time, whatever it has refused

_TAG_PREFIX = "mlflow.traceTag."
_NO_ATTRIBUTES = _core.encode({})
_OWN_KIND = 0  # that of the record

#: A span as collector_request() takes it: record, kind, encoded attributes, name where it is another.
_Span = tuple[bytes, int, bytes, "bytes | None"]

#: A span that is to be sent, and its trace.
_Item = tuple[TraceBuffer, Entry]


class CollectorDelivery:
    """The strategy of a `Sender` for a collector.

    There is no canary: a collector would have its spans twice. Nor are there files.

    Args:
        uri: The collector's.
        assembler, acknowledgements, dead_letters: The sender's own.
    """

    def __init__(
        self,
        uri: str,
        assembler: Assembler,
        acknowledgements: Acknowledgements,
        dead_letters: DeadLetters,
    ):
        self.size = BatchSize()
        self.verdicts = Verdicts(canary_is_taken=None)
        self._uri = uri
        self._assembler = assembler
        self._acknowledgements = acknowledgements
        self._dead_letters = dead_letters
        self._collector: Collector | None = None
        self._request_bytes = _REQUEST_BYTES  # of records; less once the collector takes less

    def ready(self, assembler: Assembler, *, everything: bool) -> list[TraceBuffer]:
        """Traces with spans that have waited a moment for others."""
        now = time.monotonic()
        if not (
            everything
            or assembler.memory_bytes >= _REQUEST_BYTES
            or any(now - trace.since >= _SEND_AFTER_SECONDS for trace in assembler.open.values())
        ):
            return []
        return [trace for trace in assembler.open.values() if _is_ready(trace, now - trace.since)]

    def orphans(self, assembler: Assembler) -> list[TraceBuffer]:
        """None: spans that nothing else is known of are sent all the same."""
        return []

    def deliver(self, traces: list[TraceBuffer]) -> None:
        collector = self._open()
        groups = self._grouped(traces)
        self.verdicts.begin_batch()
        left: set[bytes] = set()  # the ids of traces with spans that stay where they are
        try:
            for (resource, genai), spans in groups.items():
                for chunk in _chunks(spans, self._request_bytes):
                    left |= self._send(collector, resource, genai, chunk)
            left |= self.verdicts.failed_traces()
            for trace in traces:
                if trace.trace_id not in left:
                    self._acknowledgements.done(trace, Disposition.DELIVERED)
            self.verdicts.judge(self._dead_letters.set_aside)
        except (Unavailable, MemoryError):
            self._assembler.drop_done()  # what was sent is not sent again
            raise
        if left:
            self._assembler.drop_done()

    def interrupted(self) -> None:
        """Changes nothing: a collector is sent one request at a time."""

    def _open(self) -> Collector:
        if self._collector is None:
            try:
                self._collector = open_collector(self._uri)
            except Unavailable:
                raise
            except Exception as error:
                raise Unavailable(
                    f"the collector cannot be reached: {error}", kind=("open", type(error))
                ) from error
        return self._collector

    def _grouped(self, traces: list[TraceBuffer]) -> dict[tuple[bytes, bool], list[_Item]]:
        """The spans, by what a request says of all of its spans: the encoded resource, and whether
        they are in the words of OpenTelemetry's conventions for generative AI."""
        groups: dict[tuple[bytes, bool], list[_Item]] = {}
        for trace in traces:
            if trace.attachments:
                logger.warning(
                    "%s: attachments do not travel to a collector; they are left out",
                    trace.mlflow_id,
                )
            origin = trace.destination
            resource = _core.encode(origin.get("resource") or otlp.resource())
            group = groups.setdefault((resource, bool(origin.get("genai"))), [])
            group += [(trace, entry) for entry in trace.spans]
        return groups

    def _send(
        self, collector: Collector, resource: bytes, genai: bool, spans: list[_Item]
    ) -> set[bytes]:
        """Sends one request; where that is refused, or is more than there is memory for, halves, down
        to the span that is to blame.

        Returns:
            The ids of traces with a span that is left: it could not be set aside, or there is no
            memory for it.
        """
        try:
            prepared = [_prepared(trace, entry.record, genai) for trace, entry in spans]
            body, damaged = _core.collector_request(prepared, resource, not genai)
            if damaged:
                raise Rejected(f"{len(damaged)} span records cannot be encoded")
            collector.send(body)
            self.verdicts.took()
        except Unavailable:
            raise
        except Exception as error:
            reason = error
            if not isinstance(
                error, (DeliveryError, MemoryError)
            ):  # nothing that the collector said
                logger.exception("%d spans cannot be sent together", len(spans))
                reason = TransientError(f"{type(error).__name__}: {error}")
            if isinstance(reason, TooLarge):
                size = sum(len(entry.record) for _trace, entry in spans)
                self._request_bytes = max(min(self._request_bytes, size // 2), _LEAST_BYTES)
            if len(spans) > 1:
                half = len(spans) // 2
                left = self._send(collector, resource, genai, spans[:half])
                return left | self._send(collector, resource, genai, spans[half:])
            trace, entry = spans[0]
            if isinstance(reason, MemoryError):
                wait_for_memory(trace)
                return {trace.trace_id}
            if isinstance(reason, TransientError):
                self.verdicts.failed(trace, reason)
                return set()
            if not self._dead_letters.set_span_aside(trace, entry, reason):
                return {trace.trace_id}
        for _trace, entry in spans:
            entry.acknowledge()
        return set()


def _in_genai_names(record: bytes) -> tuple[int, dict[str, Any], bytes]:
    """A span in the words of OpenTelemetry's conventions for generative AI, by MLflow's own
    translation.

    Returns:
        Its kind in OTLP, its attributes and its name.
    """
    from mlflow.tracing.export.genai_semconv.translator import translate_span_to_genai
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanKind

    fields = json.loads(_core.span_json(record))
    kind = SpanKind(SpanRecord.of(record).otel_kind)
    span = ReadableSpan(name=fields["name"], attributes=fields["attributes"], kind=kind)
    try:
        span = translate_span_to_genai(span)
    except MemoryError:
        raise
    except Exception as error:  # a span of odd content goes as it is, as in MLflow
        logger.warning("a span is not translated: %s: %s", type(error).__name__, error)
    attributes: dict[str, Any] = dict(span.attributes or {})
    return span.kind.value + 1, attributes, span.name.encode("utf-8", "replace")


def _prepared(trace: TraceBuffer, record: bytes, genai: bool) -> _Span:
    tags: dict[str, Any] = {}
    # Where traces go to MLflow as well, nothing of the trace travels with its root: the server has
    # it from MLflow.
    if trace.info is not None and is_root(record) and "collector" not in trace.info.destination:
        tags = {
            _TAG_PREFIX + key: value
            for key, value in trace.info.info["tags"].items()
            if not key.startswith("mlflow.")
        }
    if genai:
        kind, attributes, name = _in_genai_names(record)
        return record, kind, _core.encode({**attributes, **tags}), name
    return record, _OWN_KIND, _core.encode(tags) if tags else _NO_ATTRIBUTES, None


def _chunks(spans: Iterable[_Item], most_bytes: int) -> list[list[_Item]]:
    """The spans in requests, in their order.

    Args:
        most_bytes: Of the records in a request that holds more than one.
    """
    chunks: list[list[_Item]] = []
    size = 0
    for trace, entry in spans:
        size += len(entry.record)
        if not chunks or len(chunks[-1]) >= _REQUEST_SPANS or size > most_bytes:
            chunks.append([])
            size = len(entry.record)
        chunks[-1].append((trace, entry))
    return chunks


def _is_ready(trace: TraceBuffer, waited: float) -> bool:
    if trace.info is None:
        return waited >= ORPHAN_AFTER_SECONDS
    # The record of a root's end, which has the trace's tags, follows the root at once.
    return (
        trace.info.phase != PHASE_OPEN
        or waited >= OPEN_AFTER_SECONDS
        or not any(is_root(entry.record) for entry in trace.spans)
    )
