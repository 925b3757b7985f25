"""A sender that finds no memory: nothing is set aside for that, nothing counts as delivered."""

from __future__ import annotations

import pytest
from support.processes import run_module


def test_all_arrives_though_any_allocation_of_the_sender_fails(tmp_path):
    """Nothing becomes a dead letter, and nothing is acknowledged that the destination did not get."""
    pytest.importorskip("_testcapi")
    result = run_module("programs.sender_short_of_memory", str(tmp_path))
    assert "infos 2639 spans 5275 recorded 2639" in result.stdout
    for fate in (
        "waits: there is no memory to send it",
        "records are left where they are until there is memory for them",
        "the sender begins again with what is not delivered",
    ):
        assert fate in result.stdout, fate
