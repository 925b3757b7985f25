"""A trace's info, as MLflow's client makes it when a trace ends: environment metadata, truncated
inputs and outputs, previews, token usage, size figures."""

from __future__ import annotations

import json
import logging
import uuid
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

from mlflow.entities import TraceInfo
from mlflow.entities.trace_info_v2 import _truncate_request_metadata, _truncate_tags
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
    IMMUTABLE_TAGS,
    MLFLOW_GIT_BRANCH,
    MLFLOW_GIT_COMMIT,
    MLFLOW_GIT_REPO_URL,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from mlflow_fasttrace._internal.sender.assemble import TraceBuffer
from mlflow_fasttrace._internal.spool.records import PHASE_OPEN, TraceState

logger = logging.getLogger("mlflow_fasttrace.sender")

#: The namespace of the ids of assessments.
_ASSESSMENTS = uuid.UUID("5d0ea9cb-5e9c-4a5b-9f2b-1f2e6f0d7a61")

#: Tags that the server sets on every new trace. A trace that brings such a tag (of another trace that
#: it was copied from, say) would be refused.
_SERVER_TAGS = frozenset(IMMUTABLE_TAGS - {MLFLOW_USER})

#: An info as ``TraceInfo.to_dict()`` has it. It is made without a TraceInfo, whose way through
#: protobuf costs more than everything else that the sender does for a trace.
InfoDict = dict[str, Any]


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
    """A value with "?" for each lone surrogate, which cannot travel, as in MLflow's own spans."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_sendable(key): _sendable(item) for key, item in value.items()}
    return value


def _truncate(value: str | None) -> str:
    if not value:
        return ""
    if len(value) > MAX_CHARS_IN_TRACE_INFO_METADATA:
        return (
            value[: MAX_CHARS_IN_TRACE_INFO_METADATA - len(TRUNCATION_SUFFIX)] + TRUNCATION_SUFFIX
        )
    return value


def _size_stats(trace: TraceBuffer, info: InfoDict) -> dict[str, str]:
    sizes: list[float] = sorted(trace.sizes.values())
    if not sizes:
        return {}
    # The JSON of the trace without its spans, as MLflow's client measures it.
    metadata_size = len(json.dumps({"info": info, "data": {"spans": []}}))
    total = int(sum(sizes)) + metadata_size + (len(sizes) - 1) * 2
    stats = {
        TraceSizeStatsKey.TOTAL_SIZE_BYTES: total,
        TraceSizeStatsKey.NUM_SPANS: len(sizes),
        TraceSizeStatsKey.MAX_SPAN_SIZE_BYTES: int(sizes[-1]),
        TraceSizeStatsKey.P25_SPAN_SIZE_BYTES: int(_calculate_percentile(sizes, 0.25)),
        TraceSizeStatsKey.P50_SPAN_SIZE_BYTES: int(_calculate_percentile(sizes, 0.50)),
        TraceSizeStatsKey.P75_SPAN_SIZE_BYTES: int(_calculate_percentile(sizes, 0.75)),
    }
    return {
        TraceMetadataKey.SIZE_STATS: json.dumps(stats),
        TraceMetadataKey.SIZE_BYTES: str(total),
    }


def _token_usage(trace: TraceBuffer) -> dict[str, str]:
    """What the spans say that they used, in all; nothing where an earlier sender has delivered some of them."""
    usages = [usage for _parent, usage, _cost in trace.usage.values()]
    if not trace.all_spans_were_seen() or all(usage is None for usage in usages):
        return {}
    nodes = [
        SpanAggregationNode(
            span_id=span_id.hex(), parent_id=parent.hex() if parent else None, data=usage
        )
        for span_id, (parent, usage, _cost) in trace.usage.items()
    ]
    try:
        usage = aggregate_usage_from_span_nodes(nodes)
    except MemoryError:
        raise
    except Exception as error:  # a program may set anything as its usage
        logger.warning("the token usage of %s cannot be summed up: %s", trace.mlflow_id, error)
        return {}
    return {TraceMetadataKey.TOKEN_USAGE: json.dumps(usage)} if usage else {}


def _with_ids(trace: TraceBuffer, assessments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Assessments with the ids that they will have: the server, which makes ids for those that have none,
    would have them twice where an info comes again."""
    return [
        {
            **assessment,
            "assessment_id": assessment.get("assessment_id")
            or f"a-{uuid.uuid5(_ASSESSMENTS, f'{trace.mlflow_id} {number}').hex}",
        }
        for number, assessment in enumerate(assessments)
    ]


def _preview(text: str | None, role: str) -> str | None:
    try:
        return _get_truncated_preview(text, role=role)
    except MemoryError:
        raise
    except Exception:  # JSON that this Python cannot read: an integer of too many digits, say
        return _truncate(text)


def _timestamp(milliseconds: int) -> str:
    """A time as protobuf prints it (RFC 3339)."""
    seconds, rest = divmod(milliseconds, 1000)
    text = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"


def _duration(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds}.{rest:03d}s" if rest else f"{seconds}s"


def trace_info(trace: TraceBuffer, experiment_id: str) -> InfoDict:
    """The info of a trace as far as it is known.

    Args:
        trace: One with a trace record, and whose spans are summarized.
        experiment_id: The id of its experiment at the destination.
    """
    record = trace.info
    assert record is not None
    origin, given = record.destination, record.info
    ended = record.phase != PHASE_OPEN
    metadata: dict[str, Any] = {
        **given.get("inherited", {}),
        MLFLOW_USER: origin["user"],
        MLFLOW_SOURCE_NAME: origin["source"],
        MLFLOW_SOURCE_TYPE: "LOCAL",
        **_git_metadata(origin["cwd"]),
        TRACE_SCHEMA_VERSION_KEY: str(TRACE_SCHEMA_VERSION),
        **given.get("metadata", {}),
    }
    request, response = given.get("request_preview"), given.get("response_preview")
    if ended and trace.root_seen:
        metadata[TraceMetadataKey.INPUTS] = _truncate(trace.root_inputs)
        metadata[TraceMetadataKey.OUTPUTS] = _truncate(trace.root_outputs)
        if request is None:
            request = _preview(trace.root_inputs, "user")
        if response is None:
            response = _preview(trace.root_outputs, "assistant")
    if ended:
        metadata.update(_token_usage(trace))
    info: InfoDict = {
        "trace_id": trace.mlflow_id,
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": experiment_id},
        },
        "request_time": _timestamp(record.start_ns // 1_000_000),
        "state": TraceState(record.state).name if ended else "IN_PROGRESS",
        "trace_metadata": _truncate_request_metadata(_sendable(metadata)),
        "tags": _truncate_tags(
            _sendable({k: v for k, v in given["tags"].items() if k not in _SERVER_TAGS})
        ),
    }
    for field, value in (
        ("client_request_id", given.get("client_request_id")),
        ("request_preview", request),
        ("response_preview", response),
    ):
        if value is not None:
            info[field] = _sendable(value)
    if given.get("assessments"):
        info["assessments"] = given["assessments"]
    if ended:
        info["execution_duration_ms"] = record.duration_ns // 1_000_000
    if ended and trace.all_spans_were_seen():
        info["trace_metadata"].update(_truncate_request_metadata(_size_stats(trace, info)))
    if given.get("assessments"):  # behind the sizes, which are MLflow's: without ids
        info["assessments"] = _with_ids(trace, given["assessments"])
    return info


def start_trace_body(info: InfoDict) -> bytes:
    """The body of a StartTraceV3 request."""
    wire = dict(info)
    if (milliseconds := wire.pop("execution_duration_ms", None)) is not None:
        wire["execution_duration"] = _duration(milliseconds)
    return json.dumps({"trace": {"trace_info": wire}}).encode()


def info_entity(info: InfoDict) -> TraceInfo:
    """An info as MLflow's entity, for its stores."""
    return TraceInfo.from_dict(info)
