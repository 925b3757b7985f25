"""Changes to traces through MLflow's client: those of a trace that another program has in flight wait for it."""

from __future__ import annotations

from typing import Any

from mlflow.entities import Assessment
from mlflow.tracing.client import TracingClient

from mlflow_fasttrace._internal.base.patching import original
from mlflow_fasttrace._internal.recording import changes

#: The methods of MLflow's client that lead to the functions below.
_log_assessment: Any = TracingClient.log_assessment
_set_trace_tag: Any = TracingClient.set_trace_tag


def log_assessment(self: TracingClient, trace_id: str, assessment: Assessment) -> Assessment:
    """``TracingClient.log_assessment``."""
    return changes.log_assessment(
        trace_id,
        assessment,
        lambda: original(_log_assessment)(self, trace_id, assessment),
        self.tracking_uri,
    )


def set_trace_tag(self: TracingClient, trace_id: str, key: str, value: str) -> None:
    """``TracingClient.set_trace_tag``."""
    changes.set_trace_tag(
        trace_id,
        key,
        value,
        lambda: original(_set_trace_tag)(self, trace_id, key, value),
        self.tracking_uri,
    )
