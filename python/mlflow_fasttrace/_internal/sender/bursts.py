"""Bursts: programs that record faster than any server takes it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from mlflow_fasttrace._internal.sender.sources import RingSource

_BURST_BYTES_PER_SECOND = 8 << 20  # of one program
BURST_SECONDS = 1.0  # for which delivery waits at most
_POLL_SECONDS = 0.02
_LOOK_SECONDS = 0.003


class Bursts:
    """Watches how fast programs record.

    Args:
        rings: By their paths; the intake's own, which change.
    """

    def __init__(self, rings: Mapping[str, RingSource]):
        self._rings = rings
        self._looked_at = 0.0
        self._since: float | None = None

    def let_pass(self) -> None:
        """Waits while a program bursts: delivery would take the processors from it. The wait ends
        after ``BURST_SECONDS``, or when a flush waits for delivery."""
        while self.under_way():
            time.sleep(_POLL_SECONDS)

    def under_way(self) -> bool:
        """Whether delivery has to wait now."""
        now = time.monotonic()
        elapsed = now - self._looked_at
        if elapsed < _LOOK_SECONDS:
            return False
        self._looked_at = now
        grown = max((ring.grown() for ring in self._rings.values()), default=0)
        if grown < _BURST_BYTES_PER_SECOND * elapsed:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        waited_for = any(ring.is_waited_for() for ring in self._rings.values())
        return not waited_for and now - self._since < BURST_SECONDS
