"""How long tests wait: as long as it takes on a busy machine, and not for ever."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest
from support import waiting
from support.servers import MlflowServer


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when they are told to, or when somebody sleeps."""
    clock = SimpleNamespace(now=100.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    return clock


@pytest.mark.parametrize("slowness", [1.0, 8.0])
def test_a_wait_lasts_as_much_longer_as_the_machine_is_busy(clock, monkeypatch, slowness):
    monkeypatch.setattr(waiting, "_slowness", lambda: slowness)
    with pytest.raises(AssertionError, match="the event did not hold within 10 quiet seconds"):
        waiting.wait_until(lambda: False, 10, "the event")
    assert clock.now - 100 == pytest.approx(20 * slowness, rel=0.02)


def test_a_wait_ends_with_its_event(clock):
    assert waiting.wait_until(lambda: clock.now > 103 and "there") == "there"
    assert clock.now < 104


def test_processes_that_want_to_run_make_a_machine_busy(monkeypatch, tmp_path):
    monkeypatch.setattr(waiting, "_PROCESSORS", 2)
    monkeypatch.setattr(waiting, "_LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.0, 0.0))
    monkeypatch.setattr(os, "nice", lambda _more: 0)
    assert waiting._slowness() == 1, "a system without /proc/loadavg"
    (tmp_path / "loadavg").write_text("0.50 0.00 0.00 12/345 6789\n")
    assert waiting._slowness() == 6, "there was no time yet for them to show in the average"
    monkeypatch.setattr(os, "nice", lambda _more: 10)
    assert waiting._slowness() == pytest.approx(56, rel=0.01), "they go before"


def test_a_server_that_ends_is_not_waited_for(tmp_path, monkeypatch):
    server = MlflowServer(tmp_path)
    monkeypatch.setattr(MlflowServer, "python", tmp_path / "python")
    (tmp_path / "python").write_text(f"#!{sys.executable}\nprint('no such store')\n")
    (tmp_path / "python").chmod(0o700)
    with pytest.raises(AssertionError, match="no such store"):
        server.start()
    assert server.process is None
