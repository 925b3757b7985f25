"""All kinds of load and of faults at once: `make soak` in little."""

from __future__ import annotations

import pytest
from support.soak import FAULTS, soak


@pytest.mark.long
def test_all_arrives_once_of_mixed_load_with_faults():
    """Threads, tasks, generators and bursts; senders, programs and the server are killed. Nothing is left behind, and
    programs and senders stay small."""
    figures = soak(20.0)
    assert figures["traces"] > 100
    assert all(figures[f"faults: {fault}"] >= 1 for fault in FAULTS), figures
