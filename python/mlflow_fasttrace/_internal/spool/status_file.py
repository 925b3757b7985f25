"""``status.json``: its schema, and reading it. The sender writes it (sender/status.py)."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

FILE_NAME = "status.json"
SCHEMA_VERSION = 1
SERVER_STATES = ("unknown", "answers", "away")
TRACE_STATES = {1: "OK", 2: "ERROR", 3: "IN_PROGRESS"}
_MAX_FILE = 1 << 20


def read_status(folder: str) -> dict[str, Any] | None:
    """What the last sender of a spool wrote, every field of its type; None where there is none, or
    none that makes sense."""
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(os.path.join(folder, FILE_NAME), flags)
        with open(fd, encoding="utf-8") as file:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
                return None
            found = json.loads(file.read(_MAX_FILE))
    except (OSError, ValueError, RecursionError):
        return None
    if not _fits(found, _SCHEMA) or not _fits(list(found["no_room_rings"].values()), [int]):
        return None
    return found


_NUMBER = (int, float)
_NULL = type(None)
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
