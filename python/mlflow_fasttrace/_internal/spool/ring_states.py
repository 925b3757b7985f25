"""What the header of a ring says of the server that its records go to."""

from __future__ import annotations

from enum import IntEnum


class ServerState(IntEnum):
    """Written by the sender, read by the program; the numbers are part of the ring's format."""

    UNKNOWN = 0  # nothing has been sent to it yet
    ANSWERS = 1
    UNAVAILABLE = 2
    FORBIDS = 3  # unavailable, and other credentials of the program may change that
