"""``status.json``: its schema, and reading it. The sender writes it (``sender/status.py``, which says
what the fields mean)."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

from mlflow_fasttrace._internal.spool.private_files import open_private
from mlflow_fasttrace._internal.spool.records import TraceState

FILE_NAME = "status.json"
SCHEMA_VERSION = 1
#: The words for a server's state, by the number that stands in rings.
SERVER_STATES = ("unknown", "answers", "away")
#: The words for a trace's state, by the number that stands in records.
TRACE_STATES = {int(state): state.name for state in TraceState}
_MAX_BYTES = 1 << 20

_NUMBER = (int, float)
_NULL = type(None)
#: A type or a tuple of types; a dictionary: these keys at least; a list of one: any number of these;
#: a list that begins with None: null, or this.
_SCHEMA: dict[str, Any] = {
    "version": int,
    "pid": int,
    "sender_version": str,
    "started": _NUMBER,
    "updated": _NUMBER,
    "ended": (*_NUMBER, _NULL),
    "destination": str,
    "server": str,
    "delivered": {"traces": int, "spans": int, "bytes": int},
    "refused": int,
    "dead_letters": int,
    "kept_out": int,
    "full": bool,
    "no_room": int,
    "no_room_rings": {},
    "last_error": [None, {"text": str, "time": _NUMBER}],
    "recent": [
        {
            "trace_id": str,
            "name": str,
            "start_ns": int,
            "duration_ns": (int, _NULL),
            "state": str,
            "spans": int,
            "delivered": _NUMBER,
            "to": str,
        }
    ],
}


def read_status(folder: str) -> dict[str, Any] | None:
    """What the last sender of a spool wrote about itself.

    Returns:
        The file's content, every field of its type; None where there is no such file, or where it
        makes no sense (``status_exists`` tells these apart).
    """
    try:
        fd = open_private(os.path.join(folder, FILE_NAME), os.O_RDONLY)
        with open(fd, encoding="utf-8") as file:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
                return None
            found = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not _fits(found, _SCHEMA) or not _fits(list(found["no_room_rings"].values()), [int]):
        return None
    return found


def status_exists(folder: str) -> bool:
    """Whether there is a status file, readable or not."""
    return os.path.lexists(os.path.join(folder, FILE_NAME))


def _fits(value: Any, schema: Any) -> bool:
    if isinstance(schema, dict):
        return isinstance(value, dict) and all(
            key in value and _fits(value[key], part) for key, part in schema.items()
        )
    if isinstance(schema, list) and schema[0] is None:
        return value is None or _fits(value, schema[1])
    if isinstance(schema, list):
        return isinstance(value, list) and all(_fits(item, schema[0]) for item in value)
    return isinstance(value, schema)
