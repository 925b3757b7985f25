"""Records: their kinds, the places and the numbers of their fields.

This is the only module on the Python side that knows them; ``ext/`` has them in ``record.h``, and
``docs/spool-format.md`` describes them. A record is one msgpack array, and the fields of the named
tuples below stand in the order of that array.

``SpanRecord.of(record)`` and its like decode a whole record. Where a single field is wanted of each of
many records, the functions on bytes are quicker: what they read stands at a fixed place.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

from mlflow_fasttrace import _core


class Kind(IntEnum):
    """The first field of every record."""

    SPAN = 1
    TRACE = 2
    ATTACHMENT = 3


class Phase(IntEnum):
    """How far a trace is, in the low bits of the third field of its record."""

    OPEN = 0  # its first span has ended
    ROOT_ENDED = 1  # other spans are open
    COMPLETE = 2  # all spans have ended


class TraceState(IntEnum):
    """The state that MLflow shows of a trace."""

    OK = 1
    ERROR = 2
    IN_PROGRESS = 3


class SpanStatus(IntEnum):
    """The status of a span, as OpenTelemetry numbers it."""

    UNSET = 0
    OK = 1
    ERROR = 2


# The members under names of their own, for the sender's loops: before Python 3.12 the look-up of
# ``Kind.SPAN`` takes several times as long as the comparison with it.
SPAN, TRACE, ATTACHMENT = Kind
PHASE_OPEN, PHASE_ROOT_ENDED, PHASE_COMPLETE = Phase

PHASE_OFFSET = 21  # of the phase in a trace record, in bytes
PHASE_MASK = 0x0F  # the bits of that byte that hold a Phase
INFO_SENT = 0x80  # the bit that a sender sets: the server has acknowledged this info

_SPAN_ID_OFFSET, _SPAN_ID_SIZE = 22, 8  # in a span record, in bytes
_PARENT_ID_OFFSET = 30  # in a span record, in bytes: an id, or nil
_NIL = 0xC0  # of msgpack


class SpanRecord(NamedTuple):
    """The fields of an ended span."""

    kind: int
    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    name: str
    start_ns: int
    end_ns: int
    status: int  # a SpanStatus
    status_message: str
    attributes: dict[str, Any]
    events: list[list[Any]]  # [name, ns, attributes] each
    links: list[list[Any]]  # [trace id, span id, attributes] each
    otel_kind: int = 0  # OpenTelemetry's SpanKind; left out where it is that of most spans

    @classmethod
    def of(cls, record: bytes) -> SpanRecord:
        """Decode a record.

        Raises:
            ValueError: The bytes are no record of a span.
        """
        most = len(cls._fields)
        return cls(*_fields(record, Kind.SPAN, most - 1, most))


class TraceRecord(NamedTuple):
    """The fields of a trace record, as they stand there; ``TraceInfoRecord`` has them checked."""

    kind: int
    trace_id: bytes
    phase_and_flags: int
    spans: int  # recorded so far
    start_ns: int
    duration_ns: int | None
    state: int  # a TraceState
    destination: dict[str, Any]
    info: dict[str, Any]

    @classmethod
    def of(cls, record: bytes) -> TraceRecord:
        """Decode a record.

        Raises:
            ValueError: The bytes are no record of a trace.
        """
        return cls._make(_fields(record, Kind.TRACE, len(cls._fields)))

    @property
    def phase(self) -> int:
        """A ``Phase``, or a number that no program writes."""
        return self.phase_and_flags & PHASE_MASK


class AttachmentRecord(NamedTuple):
    """The fields of a record of binary content."""

    kind: int
    trace_id: bytes
    attachment_id: str
    content: bytes

    @classmethod
    def of(cls, record: bytes) -> AttachmentRecord:
        """Decode a record.

        Raises:
            ValueError: The bytes are no record of an attachment.
        """
        return cls._make(_fields(record, Kind.ATTACHMENT, len(cls._fields)))


def _fields(record: bytes, kind: Kind, *counts: int) -> list[Any]:
    # A MemoryError says nothing of the record, so it stays one.
    try:
        fields = _core.decode(record)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the record cannot be decoded: {error}") from error
    if not isinstance(fields, list) or len(fields) not in counts or fields[0] != kind:
        raise ValueError(f"the record is not of the kind {kind.name}")
    return fields


class TraceInfoRecord:
    """A decoded trace record, with all that the sender relies on checked.

    Raises:
        ValueError, TypeError, OverflowError: The record holds what no program writes.
    """

    __slots__ = (
        "destination",
        "duration_ns",
        "info",
        "phase",
        "remote",
        "spans",
        "start_ns",
        "state",
    )

    def __init__(self, record: bytes):
        (
            _kind,
            _trace_id,
            phase_and_flags,
            self.spans,
            self.start_ns,
            self.duration_ns,
            self.state,
            self.destination,
            self.info,
        ) = _core.decode(record)  # not TraceRecord.of(), which takes as long again
        self.phase = phase_and_flags & PHASE_MASK
        self.remote = bool(self.info.get("remote"))
        self._check()

    def _check(self) -> None:
        """Look into the maps, of which the core has checked only that they are maps."""
        experiment = self.destination.get("experiment")
        if not (
            isinstance(experiment, dict)
            and experiment.keys() in ({"id"}, {"name"})
            and all(isinstance(value, str) for value in experiment.values())
        ):
            raise ValueError("it names no experiment")
        if not isinstance(self.destination.get("resource", {}), dict):
            raise ValueError("its resource is no map")
        tags = self.info.get("tags")
        if not isinstance(tags, dict):
            raise ValueError("it has no tags")
        if self.state not in _TRACE_STATES:
            raise ValueError(f"{self.state} is no state of a trace")
        if self.phase not in _PHASES:
            raise ValueError(f"{self.phase} is no phase of a trace")
        if self.phase != PHASE_OPEN and self.duration_ns is None:
            raise ValueError("it has ended and no duration")

    @property
    def rank(self) -> tuple[bool, int, int]:
        """The record with the higher rank counts, of two records of one trace. A process that carries
        another's trace on knows nothing of it as a whole, so its records rank below."""
        return not self.remote, self.phase, self.spans


_PHASES = tuple(Phase)
_TRACE_STATES = tuple(TraceState)

#: The span id in a span record. A C function, so that the sender's loop makes no Python call for it.
span_id_of: Callable[[bytes], bytes] = operator.itemgetter(
    slice(_SPAN_ID_OFFSET, _SPAN_ID_OFFSET + _SPAN_ID_SIZE)
)


def is_root(record: bytes) -> bool:
    """Whether the span of a record has no parent."""
    return record[_PARENT_ID_OFFSET] == _NIL


def start_of_span(record: bytes) -> int:
    """When the span of a record started (ns)."""
    return _core.span_head(record)[0]


def status_of(record: bytes) -> int:
    """The ``SpanStatus`` of a record's span."""
    return _core.span_head(record)[1]


def info_was_sent(record: bytes) -> bool:
    """Whether a trace record says that the server has acknowledged its info."""
    return bool(record[PHASE_OFFSET] & INFO_SENT)


def with_info_sent(record: bytes) -> bytes:
    """A copy of a trace record that says that the server has acknowledged its info."""
    changed = bytearray(record)
    changed[PHASE_OFFSET] |= INFO_SENT
    return bytes(changed)
