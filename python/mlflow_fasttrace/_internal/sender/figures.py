"""The figures in a trace's info: how large it is, and the tokens that it used."""

from __future__ import annotations

import json
import logging
from typing import Any

from mlflow_fasttrace._internal.sender.assemble import TraceBuffer

logger = logging.getLogger("mlflow_fasttrace.sender")

#: Counts of tokens: those that every sum has, and those that it has where a span has them.
_TOKENS = ("input_tokens", "output_tokens", "total_tokens")
_CACHED_TOKENS = (
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_input_tokens_above_1hr",
)


def size_stats(trace: TraceBuffer, info: dict[str, Any]) -> dict[str, str]:
    """Metadata on the sizes of a trace and its spans, in bytes of JSON; none where no span is known.

    Args:
        info: The trace's, without these.
    """
    sizes = sorted(size for _parent, size, _usage, _cost in trace.summaries.values())
    if not sizes:
        return {}
    # The JSON of the trace without its spans, as MLflow's client measures it.
    metadata_size = len(json.dumps({"info": info, "data": {"spans": []}}))
    total = sum(sizes) + metadata_size + (len(sizes) - 1) * 2
    quarter, half, three = (_percentile(sizes, share) for share in (0.25, 0.50, 0.75))
    # What json.dumps() makes of a dictionary of these.
    stats = (
        f'{{"total_size_bytes": {total}, "num_spans": {len(sizes)}, "max": {sizes[-1]}, '
        f'"p25": {quarter}, "p50": {half}, "p75": {three}}}'
    )
    return {"mlflow.trace.sizeStats": stats, "mlflow.trace.sizeBytes": str(total)}


def _percentile(numbers: list[int], share: float) -> int:
    """The number that a share of sorted numbers is below, between two of them where it falls there."""
    place = share * (len(numbers) - 1)
    before = int(place)
    if before + 1 >= len(numbers):
        return numbers[-1]
    weight = place - before
    return int(numbers[before] * (1 - weight) + numbers[before + 1] * weight)


def token_usage(trace: TraceBuffer) -> dict[str, str]:
    """Metadata on the tokens that the spans say that they used, in all; none where none says so, or where an
    earlier sender has delivered some of them."""
    if not trace.all_spans_were_seen():
        return {}
    counted = _highest(trace) if trace.uses_tokens() else []
    if not counted:
        return {}
    try:
        usage = {key: sum(used.get(key, 0) for used in counted) for key in _TOKENS}
        for key in _CACHED_TOKENS:
            if any(key in used for used in counted):
                usage[key] = sum(used.get(key, 0) for used in counted)
        return {"mlflow.trace.tokenUsage": json.dumps(usage)}
    except MemoryError:
        raise
    except Exception as error:  # a program may set anything as its usage
        logger.warning("the token usage of %s cannot be summed up: %s", trace.mlflow_id, error)
        return {}


def _highest(trace: TraceBuffer) -> list[Any]:
    """What the spans used that no span above them counts already."""
    beneath: dict[bytes | None, list[bytes]] = {}  # None: spans without a parent that is known
    for span_id, (parent, _size, _usage, _cost) in trace.summaries.items():
        beneath.setdefault(parent if parent in trace.summaries else None, []).append(span_id)
    found = []
    spans = beneath.get(None, [])
    while spans:
        span_id = spans.pop()
        usage = trace.summaries[span_id][2]
        if usage is not None:
            found.append(usage)
        else:
            spans += beneath.get(span_id, ())
    return found
