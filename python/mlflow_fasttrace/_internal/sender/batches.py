"""Batches: so many whole traces as one request should carry."""

from __future__ import annotations

from mlflow_fasttrace._internal.sender.assemble import TraceBuffer

_BATCH_SPANS = 2000
_BATCH_BYTES = 4 << 20
_BATCH_TRACES = 100
_LEAST_SHARE = 1 / 128
_LEAST_BYTES = 16 << 10


class BatchSize:
    """How large a batch is, as far as the server has shown what it can take."""

    def __init__(self) -> None:
        self._bytes = _BATCH_BYTES
        self._share = 1.0  # of the usual size, where the server is slow

    def was_taken(self) -> None:
        """The server took a request: batches of a slow server grow again."""
        self._share = min(self._share * 2, 1.0)

    def was_not_answered(self) -> None:
        """The server did not answer, perhaps because of the size."""
        self._share = max(self._share / 2, _LEAST_SHARE)

    def was_too_large(self, size: int) -> None:
        """The server refused this many bytes at a time."""
        self._bytes = max(min(self._bytes, size // 2), _LEAST_BYTES)

    def split(self, traces: list[TraceBuffer]) -> list[list[TraceBuffer]]:
        """The traces in batches, in their order."""
        max_traces, max_spans = _BATCH_TRACES * self._share, _BATCH_SPANS * self._share
        max_bytes = min(int(_BATCH_BYTES * self._share), self._bytes)
        batches: list[list[TraceBuffer]] = []
        spans = size = 0
        for trace in traces:
            trace_size = trace.size()
            if (
                not batches
                or len(batches[-1]) >= max_traces
                or spans + len(trace.spans) > max_spans
                or size + trace_size > max_bytes
            ):
                batches.append([])
                spans = size = 0
            batches[-1].append(trace)
            spans += len(trace.spans)
            size += trace_size
        return batches


def by_experiment(
    traces: list[TraceBuffer],
) -> list[tuple[dict[str, str], list[TraceBuffer]]]:
    """The traces of each experiment, and how their records name it."""
    groups: dict[tuple, tuple[dict[str, str], list[TraceBuffer]]] = {}
    for trace in traces:
        named = trace.destination["experiment"]
        groups.setdefault(tuple(named.items()), (named, []))[1].append(trace)
    return list(groups.values())
