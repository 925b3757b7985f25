"""Changes to traces through MLflow's client: those of a trace that another program has in flight wait for it."""

from __future__ import annotations

from typing import Any

from mlflow.entities import Assessment
from mlflow.tracing.client import TracingClient

from mlflow_fasttrace._internal.base.patching import original
from mlflow_fasttrace._internal.recording import changes
from mlflow_fasttrace.fluent import IMMUTABLE_TAGS

#: The methods of MLflow's client that lead to the functions below.
_log_assessment: Any = TracingClient.log_assessment
_set_trace_tag: Any = TracingClient.set_trace_tag


def log_assessment(self: TracingClient, trace_id: str, assessment: Assessment) -> Assessment:
    """``TracingClient.log_assessment``."""

    def attempt() -> Assessment:
        if changes.is_inherited(trace_id):  # what is in memory of it goes nowhere
            return self.store.create_assessment(assessment)
        return original(_log_assessment)(self, trace_id, assessment)

    assessment.trace_id = trace_id
    return changes.log_assessment(trace_id, assessment, attempt, self.tracking_uri)


def set_trace_tag(self: TracingClient, trace_id: str, key: str, value: str) -> None:
    """``TracingClient.set_trace_tag``."""

    def attempt() -> None:
        if changes.is_inherited(trace_id):
            self.store.set_trace_tag(trace_id, key, str(value))
        else:
            original(_set_trace_tag)(self, trace_id, key, value)

    if key in IMMUTABLE_TAGS:
        original(_set_trace_tag)(self, trace_id, key, value)  # says so
        return
    changes.set_trace_tag(trace_id, key, value, attempt, self.tracking_uri)
