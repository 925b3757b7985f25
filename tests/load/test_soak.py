"""All kinds of load and of faults at once: `make soak` in little."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
from support.servers import MlflowServer
from support.soak import FAULTS, Traces, soak


@pytest.mark.long
def test_all_arrives_once_of_mixed_load_with_faults():
    """Threads, tasks, generators and bursts; senders, programs and the server are killed. Nothing is left behind, and
    programs and senders stay small."""
    figures = soak(20.0)
    assert figures["traces"] > 100
    assert all(figures[f"faults: {fault}"] >= 1 for fault in FAULTS), figures


def test_a_soak_sees_what_is_lost_or_twice(tmp_path):
    traces = Traces(tmp_path, MlflowServer(tmp_path, port=1))
    (tmp_path / "0-tasks.noted").write_text("tr-a 2 1.5\ntr-b 3 2.5\n")
    assert not traces.look(), "there is no database yet"
    with contextlib.closing(
        sqlite3.connect(tmp_path / "server.db", isolation_level=None)
    ) as database:
        database.execute("CREATE TABLE trace_info (request_id, status, total_tokens)")
        database.execute("CREATE TABLE spans (trace_id)")

        def arrives(trace_id: str, spans: int, *tokens: int) -> None:
            database.executemany("INSERT INTO spans VALUES (?)", [(trace_id,)] * spans)
            rows = [(trace_id, "OK", number) for number in tokens]
            database.executemany("INSERT INTO trace_info VALUES (?, ?, ?)", rows)

        arrives("tr-a", 2, 11)
        arrives("tr-b", 2)
        arrives("tr-of-a-killed-program", 7)
        assert not traces.look()
        assert list(traces.waiting) == ["tr-b"]
        assert traces.wrong() == [("tr-b", 0, 0)], "it has not ended"
        arrives("tr-b", 1, 11)
        assert traces.look()
        assert traces.wrong() == []
        assert len(traces.lags) == 2
        (tmp_path / "1-tasks.noted").write_text("tr-c 1 3.5\n")
        assert not traces.look()
        arrives("tr-c", 2, 11)
        assert not traces.look()
        assert traces.wrong() == [("tr-c", 2, 11)], "a span is there twice"
        database.execute("UPDATE trace_info SET total_tokens = 22 WHERE request_id = 'tr-a'")
        assert ("tr-a", 2, 22) in traces.wrong(), "its tokens were added twice"
