"""What the header of a ring says of the server that its records go to."""

from __future__ import annotations

import enum


class ServerState(enum.IntEnum):
    """The sender writes it, the program that records reads it. The numbers are stored."""

    UNKNOWN = 0
    ANSWERS = 1
    UNAVAILABLE = 2
    FORBIDS = 3  # 401 or 403: other credentials are needed
