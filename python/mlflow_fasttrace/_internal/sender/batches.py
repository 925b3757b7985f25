"""Batches: so many whole traces as one request should carry."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_fasttrace._internal.sender.assemble import TraceBuffer

_BATCH_SPANS = 2000
_BATCH_BYTES = 4 << 20
_BATCH_TRACES = 100
_FIRST_SHARE = 1 / 8  # of a batch to a server of which nobody knows yet how slow it is
_LEAST_SHARE = 1 / 128
#: Of a batch that is too large: a program that waits sees how far delivery is behind each.
_SLOW_SECONDS = 4.0
_LEAST_BYTES = 16 << 10


class BatchSize:
    """How large a batch is, as far as the server has shown what it can take."""

    def __init__(self) -> None:
        self._bytes = _BATCH_BYTES
        self._share = _FIRST_SHARE  # of the usual size, where the server is slow

    def took(self, seconds: float) -> None:
        """The server took a batch, in so many seconds. However slow it is, batches do not stay smaller than the
        first: several requests at once are what a slow server takes the most by."""
        if seconds < _SLOW_SECONDS / 2 or self._share < _FIRST_SHARE:
            self._share = min(self._share * 2, 1.0)
        elif seconds > _SLOW_SECONDS:
            self._share = max(self._share / 2, _FIRST_SHARE)

    def was_not_answered(self) -> None:
        """The server did not answer, perhaps because of the size."""
        self._share = max(self._share / 2, _LEAST_SHARE)

    def was_too_large(self, size: int) -> None:
        """The server refused this many bytes at a time."""
        self._bytes = max(min(self._bytes, size // 2), _LEAST_BYTES)

    def split(self, traces: list[TraceBuffer]) -> Iterator[list[TraceBuffer]]:
        """The traces in batches, in their order; each as large as is right when it is asked for."""
        batch: list[TraceBuffer] = []
        spans = size = 0
        for trace in traces:
            trace_size = trace.size()
            if batch and (
                len(batch) >= _BATCH_TRACES * self._share
                or spans + len(trace.spans) > _BATCH_SPANS * self._share
                or size + trace_size > min(int(_BATCH_BYTES * self._share), self._bytes)
            ):
                yield batch
                batch, spans, size = [], 0, 0
            batch.append(trace)
            spans += len(trace.spans)
            size += trace_size
        if batch:
            yield batch


def by_experiment(
    traces: list[TraceBuffer],
) -> list[tuple[dict[str, str], list[TraceBuffer]]]:
    """The traces of each experiment, and how their records name it."""
    groups: dict[tuple, tuple[dict[str, str], list[TraceBuffer]]] = {}
    for trace in traces:
        named = trace.experiment
        groups.setdefault(tuple(named.items()), (named, []))[1].append(trace)
    return list(groups.values())
