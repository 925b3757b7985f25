"""What a record holds: kinds, fields and their places. ext/record/record.h has the same for C."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from mlflow_fasttrace import _core


class Kind(IntEnum):
    SPAN = 1
    TRACE = 2
    ATTACHMENT = 3


class Phase(IntEnum):
    """How far a trace had come when its record was written."""

    OPEN = 0
    ROOT_ENDED = 1
    COMPLETE = 2


class TraceState(IntEnum):
    OK = 1
    ERROR = 2
    IN_PROGRESS = 3


SPAN, TRACE, ATTACHMENT = Kind.SPAN, Kind.TRACE, Kind.ATTACHMENT
PHASE_OFFSET = 21  # of a trace record, see ext/record.h
INFO_SENT = 0x80
PHASE_OPEN, PHASE_ROOT_ENDED, PHASE_COMPLETE = Phase.OPEN, Phase.ROOT_ENDED, Phase.COMPLETE
PHASE_MASK = 0x0F

#: The status code of a span that ended with an error.
STATUS_ERROR = 2

_SPAN_ID = slice(22, 30)  # of a span record
_PARENT_OFFSET, _NIL = 30, 0xC0  # of a span record


class TraceInfoRecord:
    """A decoded trace record.

    Raises:
        ValueError: it holds what no agent writes.
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
        fields = _core.decode(record)
        self.phase = fields[2] & PHASE_MASK
        self.spans = fields[3]
        self.start_ns = fields[4]
        self.duration_ns = fields[5]
        self.state = fields[6]
        self.destination: dict[str, Any] = fields[7]
        self.info: dict[str, Any] = fields[8]
        self.remote = bool(self.info.get("remote"))
        self._check()

    def _check(self) -> None:
        """What others rely on. (The core has looked at the fields, not into the maps.)"""
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
        if self.state not in (1, 2, 3):
            raise ValueError(f"{self.state} is no state of a trace")
        if self.phase not in (PHASE_OPEN, PHASE_ROOT_ENDED, PHASE_COMPLETE):
            raise ValueError(f"{self.phase} is no phase of a trace")
        if self.phase != PHASE_OPEN and self.duration_ns is None:
            raise ValueError("it has ended and no duration")

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Of two records of a trace the higher one counts. A process that carries another's trace on
        knows nothing of it as a whole."""
        return not self.remote, self.phase, self.spans


def start_of_span(record: bytes) -> int:
    """When the span of a record started (ns)."""
    return _core.decode(record)[5]


def span_id_of(record: bytes) -> bytes:
    """The id of the span that a record holds (8 bytes)."""
    return record[_SPAN_ID]


def is_root(record: bytes) -> bool:
    """Whether the span of a record has no parent."""
    return record[_PARENT_OFFSET] == _NIL


def status_of(record: bytes) -> int:
    """The status code of the span that a record holds: 0 unset, 1 OK, 2 an error."""
    return _core.decode(record)[7]


def info_was_sent(record: bytes) -> bool:
    """Whether a trace record says that the server has acknowledged the trace's info."""
    return bool(record[PHASE_OFFSET] & INFO_SENT)


def with_info_sent(record: bytes) -> bytes:
    """A trace record that says that the server has acknowledged the trace's info."""
    changed = bytearray(record)
    changed[PHASE_OFFSET] |= INFO_SENT
    return bytes(changed)
