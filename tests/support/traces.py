"""Traces as MLflow's client reads them back from a server, and what of them must be equal."""

from __future__ import annotations

import json
import re
from typing import Any


def client(uri: str):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def experiment_id(uri: str, name: str) -> str | None:
    found = client(uri).get_experiment_by_name(name)
    return found.experiment_id if found else None


def traces_of(uri: str, experiment: str) -> list[Any]:
    """All traces of an experiment, oldest first, with their spans."""
    found = experiment_id(uri, experiment)
    if found is None:
        return []
    result, token = [], None
    while True:
        page = client(uri).search_traces(
            locations=[found], max_results=500, page_token=token, order_by=["timestamp_ms ASC"]
        )
        result += page
        token = page.token
        if not token:
            return sorted(result, key=start_of)


def names_of(trace: Any) -> list[tuple[str, str]]:
    """The names of a trace's spans, each behind its parent's; a root's is behind ""."""
    of_id = {span.span_id: span.name for span in trace.data.spans}
    return sorted((of_id.get(span.parent_id, ""), span.name) for span in trace.data.spans)


def start_of(trace: Any) -> int:
    return min((span.start_time_ns for span in trace.data.spans), default=0)


_FRAME = re.compile(r'^  File "(?P<path>[^"]+)", line \d+, in .*\n(?:    .*\n)*', re.M)


def user_frames(stack_trace: str) -> str:
    """A stack trace without the tracing library's own frames; without a heading when there are no
    others."""
    left = _FRAME.sub(
        lambda m: (
            "" if "/mlflow/" in m["path"] or "/mlflow_fasttrace/" in m["path"] else m.group(0)
        ),
        stack_trace + "\n",
    )
    return left if "\n  File " in left else left.removeprefix(_HEADING)


_HEADING = "Traceback (most recent call last):\n"


_CUT_ID = re.compile(r"tr-[0-9a-f]*\.\.\.$")
_ATTACHMENT = re.compile("mlflow-attachment://[-0-9a-f]{36}")
_ISSUE = re.compile("iss-[0-9a-f]{32}")
_ADDRESS = re.compile(r"0x[0-9a-f]+")


def plain(value: Any, ids: dict[str, str]) -> Any:
    """A value without addresses, and with ids named by their place."""
    if isinstance(value, dict):
        return {key: plain(item, ids) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, ids) for item in value]
    if isinstance(value, str):
        for found, name in ids.items():
            value = value.replace(found, name)
        value = _ATTACHMENT.sub("mlflow-attachment://<id>", value)
        value = _CUT_ID.sub("tr-<cut>...", value)
        value = _ISSUE.sub("iss-<id>", value)
        return _ADDRESS.sub("0x0", value)
    if isinstance(value, float) and value != value:
        return "NaN"
    return value


def described(trace: Any) -> dict[str, Any]:
    """All of a trace that must be equal under MLflow and under the core.

    Spans stand in the order of their start under their parent; ids are replaced by that place,
    times are left out, and of size figures only those that do not depend on times are kept.
    """
    spans = sorted(trace.data.spans, key=lambda span: (span.start_time_ns, span.span_id))
    children: dict[str | None, list[Any]] = {}
    for span in spans:
        children.setdefault(span.parent_id, []).append(span)
    place = f"/{trace.info.experiment_id}/traces/"
    ids = {
        place: "/<experiment>/traces/",
        trace.info.trace_id: "<trace>",
        trace.info.trace_id.removeprefix("tr-"): "<trace hex>",
    }

    def name_ids(parent: str | None, place: str) -> None:
        for i, span in enumerate(children.get(parent, [])):
            ids[span.span_id] = f"<span {place}{i}>"
            name_ids(span.span_id, f"{place}{i}.")

    name_ids(None, "")  # before values are read: a parent's may hold a child's id

    def tree(span: Any) -> dict[str, Any]:
        attributes = dict(sorted(span.attributes.items()))
        for key in ("mlflow.spanStartTimeNs", "mlflow.experimentId"):
            if key in attributes:
                attributes[key] = type(attributes[key]).__name__
        return {
            "name": span.name,
            "type": span.span_type,
            "inputs": plain(span.inputs, ids),
            "outputs": plain(span.outputs, ids),
            "attributes": plain(attributes, ids),
            "status": (span.status.status_code.value, span.status.description),
            "events": [
                {
                    "name": event.name,
                    "attributes": {
                        key: plain(
                            user_frames(value) if key == "exception.stacktrace" else value, ids
                        )
                        for key, value in event.attributes.items()
                    },
                }
                for event in span.events
            ],
            "kind": span._span.kind.name,
            "links": [plain(link.to_dict(), ids) for link in getattr(span, "links", ())],
            "children": [tree(child) for child in children.get(span.span_id, [])],
        }

    info = trace.info
    metadata = dict(info.trace_metadata)
    metadata.pop("mlflow.trace.sizeBytes", None)
    tags = plain(dict(info.tags), ids)
    for values in (metadata, tags):
        name_made_anew(values, "mlflow.sourceRun", "mlflow.modelId", "mlflow.eval.requestId")
    if (cost := metadata.get("mlflow.trace.cost")) is not None:
        # The server adds in the order in which spans arrive, and the last digit depends on that.
        metadata["mlflow.trace.cost"] = {k: round(v, 12) for k, v in json.loads(cost).items()}
    sizes = metadata.pop("mlflow.trace.sizeStats", None)
    return {
        "roots": [tree(root) for root in children.get(None, [])],
        "state": info.state.value,
        "tags": tags,
        "metadata": plain(metadata, ids),
        "has_sizes": sizes is not None,
        "request_preview": plain(info.request_preview, ids),
        "response_preview": plain(info.response_preview, ids),
        "client_request_id": info.client_request_id,
        "assessments": sorted(
            (plain(of_assessment(assessed), ids) for assessed in info.assessments), key=repr
        ),
    }


def of_assessment(assessed: Any) -> dict[str, Any]:
    """All of an assessment but what is made anew each time."""
    fields = assessed.to_dictionary()
    for made_anew in ("assessment_id", "create_time", "last_update_time"):
        fields.pop(made_anew, None)
    name_made_anew(fields.get("metadata", {}), "mlflow.assessment.sourceRunId")
    return fields


def name_made_anew(values: dict[str, Any], *keys: str) -> None:
    """Puts their names in the place of values that each run makes anew."""
    for key in keys:
        if key in values:
            values[key] = f"<{key}>"


def in_any_order(description: Any) -> Any:
    """Descriptions of traces, their spans in an order that does not depend on when they began."""
    if isinstance(description, dict):
        return {
            key: sorted(map(in_any_order, item), key=repr)
            if key == "children"
            else in_any_order(item)
            for key, item in description.items()
        }
    if isinstance(description, list):
        return [in_any_order(item) for item in description]
    return description
