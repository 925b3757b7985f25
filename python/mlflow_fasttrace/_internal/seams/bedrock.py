"""What MLflow's integration of Amazon Bedrock loses: a stream of events that is left early, or breaks off, keeps
its span open. Here it ends with what came: where the program leaves the loop over it, or closes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from mlflow_fasttrace._internal.base import log
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.patching import replace_attribute, when_loaded

_STREAM = "mlflow.bedrock.stream"


def complete_when_loaded() -> None:
    """Put the methods below around the integration's as soon as it is loaded."""
    when_loaded(_STREAM, _complete)


def _complete() -> None:
    wrapper = getattr(sys.modules[_STREAM], "BaseEventStreamWrapper", None)
    iterate = vars(wrapper).get("__iter__") if wrapper is not None else None
    if iterate is None:
        return

    def __iter__(self: Any) -> Iterator[Any]:
        try:
            yield from iterate(self)
        except BaseException as error:
            _end(self, error if isinstance(error, Exception) else None)
            raise

    def close(self: Any) -> None:
        try:
            self.__getattr__("close")()  # the stream's, as before
        finally:
            _end(self)

    replace_attribute(wrapper, "__iter__", __iter__)
    replace_attribute(wrapper, "close", close)


def _end(stream: Any, error: Exception | None = None) -> None:
    """End the span of a stream, where it is open.

    Args:
        stream: MLflow's wrapper of it.
        error: What it broke off with.
    """
    try:
        if stream._span.end_time_ns is None:
            if error is not None:
                stream._span.record_exception(error)
            stream._close()
    except Exception as failed:
        let_pass(failed)
        log.warn(f"A stream of Amazon Bedrock keeps its span open: {failed}")
