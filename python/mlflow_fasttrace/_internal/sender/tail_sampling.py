"""Tail sampling: which finished traces are kept.

``MLFLOW_FASTTRACE_KEEP`` lists rules with commas between them; a trace that any of them takes is
kept, the others are dropped when they are complete:

    error          a span of it ended with an error
    slow>2s        it took longer (ms, s or m)
    5%             that share of all traces, decided by the trace's id

The rules are an agent's, and travel with each of its traces.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import NamedTuple

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.sender.assemble import TraceBuffer

logger = logging.getLogger("mlflow_fasttrace.sender")

_STATUS_FIELD, _STATUS_ERROR = 7, 2  # of a span record, see docs/spool-format.md
_SLOW = re.compile(r"slow\s*>\s*(\d+(?:\.\d+)?)\s*(ms|s|m)")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_NANOSECONDS = {"ms": 1e6, "s": 1e9, "m": 60e9}


class Rules(NamedTuple):
    error: bool = False
    slower_than_ns: float | None = None
    share: float = 0.0

    def keep(self, trace: TraceBuffer) -> bool:
        """Whether a trace, as far as it is known, is kept."""
        info = trace.info
        if info is None:
            return True
        if int.from_bytes(trace.trace_id[8:], "big") < self.share * 2**64:
            return True
        if self.slower_than_ns is not None and (info.duration_ns or 0) > self.slower_than_ns:
            return True
        return self.error and any(
            _core.decode(entry.record)[_STATUS_FIELD] == _STATUS_ERROR for entry in trace.spans
        )


@lru_cache(maxsize=64)
def parse(text: str) -> Rules | None:
    """The rules, or None where a word of them is none: then everything is kept.

    Args:
        text: The value of ``MLFLOW_FASTTRACE_KEEP``.
    """
    rules = Rules()
    for word in filter(None, (word.strip().lower() for word in text.split(","))):
        if word == "error":
            rules = rules._replace(error=True)
        elif match := _SLOW.fullmatch(word):
            limit = float(match[1]) * _NANOSECONDS[match[2]]
            known = rules.slower_than_ns
            rules = rules._replace(slower_than_ns=limit if known is None else min(known, limit))
        elif match := _SHARE.fullmatch(word):
            rules = rules._replace(share=max(rules.share, min(float(match[1]) / 100, 1.0)))
        else:
            logger.error(
                "MLFLOW_FASTTRACE_KEEP: %r is none of error, slow>2s, 5%%; all traces are kept",
                word,
            )
            return None
    return rules


def rules_of(trace: TraceBuffer) -> Rules | None:
    """What the trace's agent asked for; None: all traces are kept."""
    text = trace.info.destination.get("keep") if trace.info is not None else None
    return parse(text) if isinstance(text, str) else None
