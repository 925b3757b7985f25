"""Rings and segments read from outside, which changes nothing in them.

``ring_items``, ``segment_items`` and ``file_items`` give the records of a file; ``records.py`` decodes
them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.spool.files import Unreadable
from mlflow_fasttrace._internal.spool.private_files import open_private

READ_BYTES = 4 << 20  # of records, in one portion

_RING_MAGIC, _SEGMENT_MAGIC = b"MFTRING1", b"MFTSEG1\0"
#: Times that a ring is read anew whose sender gave space back meanwhile.
_ATTEMPTS = 5
WITHOUT_LIMIT = 1 << 62  # bytes


class Item(NamedTuple):
    """A record with what the core has read of it."""

    kind: int  # a records.Kind; 0 where the bytes are no record
    trace_id: bytes
    record: bytes


def open_ring(path: str) -> _core.RingReader:
    """A reader of a ring, which the caller closes.

    Raises:
        Unreadable: The file is no ring.
        FileNotFoundError: A sender has removed it.
    """
    try:
        return _core.RingReader(path)
    except OSError as error:
        if not os.path.lexists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
        raise Unreadable(_reason(path, error, "a ring")) from None


def _reason(path: str, error: OSError, expected: str) -> str:
    if os.path.islink(path):
        return f"{path} is a symbolic link; give the file itself"
    if os.path.isdir(path):
        return f"{path} is a folder"
    if os.path.exists(path) and not os.path.isfile(path):
        return f"{path} is not a file"
    if error.errno == errno.EINVAL:  # the core's answer to a wrong header
        return f"{path} is not {expected}, or its header is damaged"
    return f"{path} cannot be read: {error.strerror or error}"


def ring_items(path: str) -> tuple[list[Item], str | None]:
    """What a ring holds undelivered.

    A sender may be giving space back meanwhile, and the program writing over it. What lies before
    the ring's tail afterwards may be torn and was taken care of by the sender: it is left out.

    Returns:
        The records, oldest first, and what is wrong with the ring, to be read behind its path; None
        where nothing is.

    Raises:
        Unreadable: The file is no ring.
        FileNotFoundError: A sender has removed it.
    """
    for _attempt in range(_ATTEMPTS):
        reader = open_ring(path)
        try:
            if (found := _drained(reader)) is not None:
                return found
        finally:
            reader.close()
    return [], None


def _drained(reader: _core.RingReader) -> tuple[list[Item], str | None] | None:
    """As ``ring_items``; None where the program has written over what was being read."""
    began = reader.cursor
    head = reader.head  # what the program adds meanwhile is left for another look
    batches: list[tuple[int, int, bytes, bytes]] = []
    while reader.cursor < head and (batch := reader.drain(READ_BYTES)):
        batches += batch
    tail = reader.tail
    if reader.damaged and tail != began:
        return None
    items = []
    start = began
    for end, kind, trace_id, record in batches:
        if start >= tail:
            items.append(Item(kind, trace_id, record))
        start = end
    if not reader.damaged:
        return items, None
    left = max(0, reader.head - reader.cursor)
    return items, f"damaged behind {len(batches):,} records: {left:,} bytes cannot be read"


def segment_items(path: str, limit: int = WITHOUT_LIMIT) -> Iterator[list[Item]]:
    """What a segment holds, in portions of some MB.

    Args:
        path: The segment.
        limit: Bytes of the file behind which nothing more is read.

    Raises:
        Unreadable: The file is no segment, or damaged from here on.
        FileNotFoundError: A sender has delivered it.
    """
    try:
        reader = _core.SegmentReader(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(_reason(path, error, "a segment")) from None
    records = 0
    try:
        while reader.offset < limit and (batch := reader.read(READ_BYTES)):
            records += len(batch)
            yield [Item(kind, trace_id, record) for _end, kind, trace_id, record in batch]
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}") from None
    if reader.reused or (not reader.damaged and (not reader.rest or reader.offset >= limit)):
        return  # all of it is delivered, or read
    if not reader.offset:
        raise Unreadable(f"{path} is not a segment, or its header is damaged")
    raise Unreadable(
        f"{path} is damaged behind {records:,} records: {reader.rest:,} bytes cannot be read"
    )


def file_items(path: str) -> tuple[list[Item], list[str]]:
    """All that a ring or segment file holds, whatever its name.

    Returns:
        The records, oldest first, and what is wrong with the file.

    Raises:
        Unreadable: The file is neither a ring nor a segment.
    """
    magic = _first_bytes(path)
    items: list[Item] = []
    notes = []
    try:
        if magic == _RING_MAGIC:
            items, note = ring_items(path)
            return items, [f"{path} is {note}"] if note else []
        if magic != _SEGMENT_MAGIC:
            raise Unreadable(f"{path} is neither a ring nor a segment, or its header is damaged")
        try:
            for batch in segment_items(path):
                items += batch
        except Unreadable as reason:
            notes.append(str(reason))
    except FileNotFoundError:
        raise Unreadable(f"{path} has just been delivered") from None
    return items, notes


def _first_bytes(path: str) -> bytes:
    try:
        fd = open_private(path, os.O_RDONLY)
        try:
            return os.pread(fd, len(_RING_MAGIC), 0)
        finally:
            os.close(fd)
    except OSError as error:
        raise Unreadable(_reason(path, error, "a ring or segment")) from None
