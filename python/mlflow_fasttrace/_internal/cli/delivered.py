"""The traces that the senders of this user's spools delivered last, as their status files say."""

from __future__ import annotations

from typing import Any

from mlflow_fasttrace._internal.config.uris import without_secrets
from mlflow_fasttrace._internal.spool.folder import Spool
from mlflow_fasttrace._internal.spool.status_file import read_status


def delivered_traces(spool: Spool) -> list[dict[str, Any]]:
    """Traces that were delivered from a spool, oldest first, as ``traces --json`` prints them."""
    status = read_status(spool.folder)
    if status is None:
        return []
    return [
        {
            **{key: trace[key] for key in trace if key != "to"},
            "where": "delivered",
            "destination": without_secrets(trace["to"]),
        }
        for trace in status["recent"]
    ]
