"""A trace's info, as MLflow's client makes it when a trace ends: environment metadata, truncated
inputs and outputs, previews, token usage, size figures."""

from __future__ import annotations

import functools
import json
import uuid
from datetime import datetime, timezone
from typing import Any

from mlflow_fasttrace._internal.sender.assemble import TraceBuffer
from mlflow_fasttrace._internal.sender.commits import git_metadata
from mlflow_fasttrace._internal.sender.figures import size_stats, token_usage
from mlflow_fasttrace._internal.sender.previews import preview_of
from mlflow_fasttrace._internal.spool.records import PHASE_OPEN, TraceState

#: The namespace of the ids of assessments.
_ASSESSMENTS = uuid.UUID("5d0ea9cb-5e9c-4a5b-9f2b-1f2e6f0d7a61")

#: Tags that the server sets on every new trace. A trace that brings such a tag (of another trace that
#: it was copied from, say) would be refused.
_SERVER_TAGS = frozenset(
    {
        "mlflow.artifactLocation",
        "mlflow.trace.archivalFailure",
        "mlflow.trace.archiveLocation",
        "mlflow.trace.spansLocation",
    }
)

_SCHEMA_VERSION = "3"

# What the server keeps, in characters.
_METADATA_CHARACTERS = 250
_TAG_KEY_CHARACTERS = 250
_TAG_CHARACTERS = 4096

#: An info as ``TraceInfo.to_dict()`` has it. It is made without a TraceInfo, whose way through
#: protobuf costs more than everything else that the sender does for a trace.
InfoDict = dict[str, Any]


def _sendable(value: Any) -> Any:
    """A value with "?" for each lone surrogate, which cannot travel, as in MLflow's own spans."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_sendable(key): _sendable(item) for key, item in value.items()}
    return value


def _shortened(value: str | tuple[str, str | None] | None) -> str:
    if isinstance(value, tuple):
        value = value[0]
    if value and len(value) > _METADATA_CHARACTERS:
        return value[: _METADATA_CHARACTERS - 3] + "..."
    return value or ""


def _metadata(values: dict[str, Any] | None) -> dict[str, str]:
    """Metadata as texts, as long as the server keeps them."""
    most = _METADATA_CHARACTERS
    found = (values or {}).items()
    return {_sendable(key)[:most]: str(_sendable(value))[:most] for key, value in found}


@functools.lru_cache(maxsize=16)
def _of_program(user: str, source: str, folder: str) -> dict[str, str]:
    """Metadata on the program that recorded a trace."""
    return _metadata(
        {
            "mlflow.user": user,
            "mlflow.source.name": source,
            "mlflow.source.type": "LOCAL",
            **git_metadata(folder),
            "mlflow.trace_schema.version": _SCHEMA_VERSION,
        }
    )


def _tags(values: dict[str, Any]) -> dict[str, str]:
    """Tags as texts, as long as the server keeps them."""
    return {
        _sendable(key)[:_TAG_KEY_CHARACTERS]: str(_sendable(value))[:_TAG_CHARACTERS]
        for key, value in values.items()
    }


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


@functools.lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")


def _timestamp(milliseconds: int) -> str:
    """A time as protobuf prints it (RFC 3339)."""
    seconds, rest = divmod(milliseconds, 1000)
    text = _second(seconds)
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
    metadata = {
        **_metadata(given.get("inherited")),
        **_of_program(origin["user"], origin["source"], origin["cwd"]),
        **_metadata(given.get("metadata")),
    }
    request, response = given.get("request_preview"), given.get("response_preview")
    if ended and trace.root_seen:
        metadata["mlflow.traceInputs"] = _sendable(_shortened(trace.root_inputs))
        metadata["mlflow.traceOutputs"] = _sendable(_shortened(trace.root_outputs))
        if request is None:
            request = preview_of(trace.root_inputs, "user")
        if response is None:
            response = preview_of(trace.root_outputs, "assistant")
    if ended:
        metadata.update(_metadata(token_usage(trace)))
    info: InfoDict = {
        "trace_id": trace.mlflow_id,
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": experiment_id},
        },
        "request_time": _timestamp(record.start_ns // 1_000_000),
        "state": TraceState(record.state).name if ended else "IN_PROGRESS",
        "trace_metadata": metadata,
        "tags": _tags({k: v for k, v in given["tags"].items() if k not in _SERVER_TAGS}),
    }
    if (own_id := given.get("client_request_id")) is not None:
        info["client_request_id"] = _sendable(own_id)
    for field, value in (("request_preview", request), ("response_preview", response)):
        if value is not None:
            info[field] = _sendable(value).replace("\0", "\ufffd")  # PostgreSQL stores no NUL
    if given.get("assessments"):
        info["assessments"] = given["assessments"]
    if ended:
        info["execution_duration_ms"] = record.duration_ns // 1_000_000
    if ended and trace.all_spans_were_seen():
        metadata.update(size_stats(trace, info))
    if given.get("assessments"):  # behind the sizes, which are MLflow's: without ids
        info["assessments"] = _with_ids(trace, given["assessments"])
    return info


def start_trace_body(info: InfoDict) -> bytes:
    """The body of a StartTraceV3 request."""
    wire = dict(info)
    if (milliseconds := wire.pop("execution_duration_ms", None)) is not None:
        wire["execution_duration"] = _duration(milliseconds)
    return json.dumps({"trace": {"trace_info": wire}}).encode()
