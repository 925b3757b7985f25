"""A trace's info, as MLflow's client makes it when a trace ends: environment metadata, truncated
inputs and outputs, previews, token usage, size figures."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from mlflow.entities import Trace, TraceData, TraceInfo, TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.tracing.constant import (
    MAX_CHARS_IN_TRACE_INFO_METADATA,
    TRACE_SCHEMA_VERSION,
    TRACE_SCHEMA_VERSION_KEY,
    TRUNCATION_SUFFIX,
    TraceMetadataKey,
    TraceSizeStatsKey,
)
from mlflow.tracing.utils import (
    SpanAggregationNode,
    _calculate_percentile,
    aggregate_usage_from_span_nodes,
)
from mlflow.tracing.utils.truncation import _get_truncated_preview
from mlflow.utils.git_utils import get_git_branch, get_git_commit, get_git_repo_url
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_BRANCH,
    MLFLOW_GIT_COMMIT,
    MLFLOW_GIT_REPO_URL,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from mlflow_fasttrace.sender.assemble import PHASE_OPEN, TraceBuffer

_STATES = {1: TraceState.OK, 2: TraceState.ERROR, 3: TraceState.IN_PROGRESS}


@lru_cache(maxsize=256)
def _git_metadata(folder: str) -> dict[str, str]:
    try:
        import git  # noqa: F401
    except ImportError:
        return {}
    return {
        MLFLOW_GIT_COMMIT: get_git_commit(folder) or "",
        MLFLOW_GIT_REPO_URL: get_git_repo_url(folder) or "",
        MLFLOW_GIT_BRANCH: get_git_branch(folder) or "",
    }


def _sendable(value: Any) -> Any:
    """Lone surrogates cannot travel: "?" stands for each, as in MLflow's own spans."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_sendable(key): _sendable(item) for key, item in value.items()}
    return value


def _sendable_info(info: TraceInfo) -> TraceInfo:
    for field in (
        "trace_metadata",
        "tags",
        "client_request_id",
        "request_preview",
        "response_preview",
    ):
        setattr(info, field, _sendable(getattr(info, field)))
    return info


def _truncate(value: str | None) -> str:
    if not value:
        return ""
    if len(value) > MAX_CHARS_IN_TRACE_INFO_METADATA:
        return (
            value[: MAX_CHARS_IN_TRACE_INFO_METADATA - len(TRUNCATION_SUFFIX)] + TRUNCATION_SUFFIX
        )
    return value


def _size_stats(trace: TraceBuffer, info: TraceInfo) -> None:
    sizes = sorted(trace.sizes.values())
    if not sizes:
        return
    metadata_size = len(Trace(info=info, data=TraceData(spans=[])).to_json().encode("utf-8"))
    total = sum(sizes) + metadata_size + (len(sizes) - 1) * 2
    stats = {
        TraceSizeStatsKey.TOTAL_SIZE_BYTES: total,
        TraceSizeStatsKey.NUM_SPANS: len(sizes),
        TraceSizeStatsKey.MAX_SPAN_SIZE_BYTES: sizes[-1],
        TraceSizeStatsKey.P25_SPAN_SIZE_BYTES: int(_calculate_percentile(sizes, 0.25)),
        TraceSizeStatsKey.P50_SPAN_SIZE_BYTES: int(_calculate_percentile(sizes, 0.50)),
        TraceSizeStatsKey.P75_SPAN_SIZE_BYTES: int(_calculate_percentile(sizes, 0.75)),
    }
    info.trace_metadata[TraceMetadataKey.SIZE_STATS] = json.dumps(stats)
    info.trace_metadata[TraceMetadataKey.SIZE_BYTES] = str(total)


def trace_info(trace: TraceBuffer, experiment_id: str) -> TraceInfo:
    """The info of a trace as far as it is known. Call ``trace.summarize()`` first."""
    record = trace.info
    assert record is not None
    origin = record.destination
    metadata: dict[str, Any] = {
        MLFLOW_USER: origin["user"],
        MLFLOW_SOURCE_NAME: origin["source"],
        MLFLOW_SOURCE_TYPE: "LOCAL",
        **_git_metadata(origin["cwd"]),
        TRACE_SCHEMA_VERSION_KEY: str(TRACE_SCHEMA_VERSION),
        **record.info.get("metadata", {}),
    }
    ended = record.phase != PHASE_OPEN
    info = TraceInfo(
        trace_id="tr-" + trace.trace_id.hex(),
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=record.start_ns // 1_000_000,
        execution_duration=record.duration_ns // 1_000_000 if ended else None,
        state=_STATES[record.state] if ended else TraceState.IN_PROGRESS,
        trace_metadata=metadata,
        tags=dict(record.info["tags"]),
        client_request_id=record.info.get("client_request_id"),
        request_preview=record.info.get("request_preview"),
        response_preview=record.info.get("response_preview"),
    )
    if not ended:
        return _sendable_info(info)
    if trace.root_seen:
        metadata[TraceMetadataKey.INPUTS] = _truncate(trace.root_inputs)
        metadata[TraceMetadataKey.OUTPUTS] = _truncate(trace.root_outputs)
        if info.request_preview is None:
            info.request_preview = _get_truncated_preview(trace.root_inputs, role="user")
        if info.response_preview is None:
            info.response_preview = _get_truncated_preview(trace.root_outputs, role="assistant")
    nodes = [
        SpanAggregationNode(
            span_id=span_id.hex(), parent_id=parent.hex() if parent else None, data=usage
        )
        for span_id, (parent, usage, _cost) in trace.usage.items()
    ]
    if usage := aggregate_usage_from_span_nodes(nodes):
        metadata[TraceMetadataKey.TOKEN_USAGE] = json.dumps(usage)
    _size_stats(trace, _sendable_info(info))
    return info
