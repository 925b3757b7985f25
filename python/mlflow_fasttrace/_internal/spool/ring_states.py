"""The states of a server, as a sender writes them into the rings that it reads."""

from __future__ import annotations

from enum import IntEnum


class ServerState(IntEnum):
    """The numbers are part of the ring's format (docs/spool-format.md)."""

    UNKNOWN = 0  # nothing has been sent to it yet
    ANSWERS = 1
    UNAVAILABLE = 2
    FORBIDS = 3  # unavailable, and other credentials of the program may change that
