"""What a program of this folder has recorded, read from its own ring: it runs without a sender."""

from __future__ import annotations

import glob
import os

from mlflow_fasttrace import _core

SPAN = 1  # the kind of a span's record


def span_records() -> list[bytes]:
    """The records of the spans that have ended, oldest first."""
    _core.end_abandoned()
    (ring,) = glob.glob(f"/dev/shm/mlflow-fasttrace-*/*/{os.getpid()}-*.ring")
    return [record for _, kind, _, record in _core.RingReader(ring).drain(1 << 30) if kind == SPAN]
