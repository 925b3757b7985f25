"""Rings and segments read from outside, which changes nothing in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from mlflow_fasttrace import _core

READ_BYTES = 4 << 20


class Unreadable(Exception):
    """A file that is not what its name says; the message is one line for the user."""


def open_ring(path: str) -> _core.RingReader:
    try:
        return _core.RingReader(path)
    except OSError as error:
        raise Unreadable(_why(path, error, "a ring")) from None


def _why(path: str, error: OSError, kind: str) -> str:
    if os.path.islink(path):
        return f"{path} is a symbolic link; give the file itself"
    if os.path.isdir(path):
        return f"{path} is a folder"
    if os.path.exists(path) and not os.path.isfile(path):
        return f"{path} is not a file"
    if error.errno == 22:  # EINVAL: what the core says of a wrong header
        return f"{path} is not {kind}, or its header is damaged"
    return f"{path} cannot be read: {error.strerror or error}"


def ring_items(path: str) -> tuple[list[tuple[int, bytes, bytes]], str | None]:
    """The (kind, trace id, record) that a ring holds undelivered, and what is wrong with it.

    A sender may be giving space back and the agent writing over it meanwhile: what lies before the
    tail afterwards may be torn, was taken care of by the sender, and is left out.

    Raises:
        Unreadable: the file is no ring.
    """
    for _attempt in range(5):
        reader = open_ring(path)
        try:
            began = reader.cursor
            head = reader.head  # what the agent adds meanwhile is left for another look
            items = []
            while reader.cursor < head and (batch := reader.drain(READ_BYTES)):
                items += batch
            tail = reader.tail
            if reader.damaged and tail != began:
                continue  # not damage: we were overtaken
            starts = [began, *(item[0] for item in items)]
            whole = [item[1:] for start, item in zip(starts, items, strict=False) if start >= tail]
            note = None
            if reader.damaged:
                left = max(0, reader.head - reader.cursor)
                note = f"damaged behind {len(items):,} records: {left:,} bytes cannot be read"
            return whole, note
        finally:
            reader.close()
    return [], None


def segment_items(path: str, limit: int = 1 << 62) -> Iterator[list[tuple[int, bytes, bytes]]]:
    """What a segment holds, in portions of some MB.

    Raises:
        Unreadable: it is no segment, or damaged from here on.
        FileNotFoundError: a sender has delivered it.
    """
    try:
        reader = _core.SegmentReader(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(_why(path, error, "a segment")) from None
    records = 0
    try:
        while reader.offset < limit and (batch := reader.read(READ_BYTES)):
            records += len(batch)
            yield [item[1:] for item in batch]
        if reader.damaged or (reader.rest and reader.offset < limit):
            if not reader.offset:
                raise Unreadable(f"{path} is not a segment, or its header is damaged")
            raise Unreadable(
                f"{path} is damaged behind {records:,} records: "
                f"{reader.rest:,} bytes cannot be read"
            )
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}") from None


def file_items(path: str) -> tuple[list[tuple[int, bytes, bytes]], list[str]]:
    """All that a ring or segment file holds, whatever its name, and what is wrong with it.

    Raises:
        Unreadable: it is neither.
    """
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(path, flags)
        try:
            magic = os.pread(fd, 8, 0)
        finally:
            os.close(fd)
    except OSError as error:
        raise Unreadable(_why(path, error, "a ring or segment")) from None
    if magic == b"MFTRING1":
        items, note = ring_items(path)
        return items, [f"{path} is {note}"] if note else []
    if magic != b"MFTSEG1\0":
        raise Unreadable(f"{path} is neither a ring nor a segment, or its header is damaged")
    items, notes = [], []
    try:
        for batch in segment_items(path):
            items += batch
    except Unreadable as reason:
        notes.append(str(reason))
    except FileNotFoundError:
        raise Unreadable(f"{path} has just been delivered") from None
    return items, notes


def decoded(record: bytes) -> list[Any] | None:
    """A record's fields; None where it is none after all."""
    try:
        fields = _core.decode(record)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError):
        return None
    return fields if isinstance(fields, list) else None


def span_json(record: bytes) -> str:
    """MLflow's dictionary of a span, as JSON.

    Raises:
        ValueError: the record is damaged.
    """
    return _core.span_json(record)
