"""Tail sampling: which finished traces are delivered.

``MLFLOW_FASTTRACE_KEEP`` lists rules with commas between them; a trace that any of them takes is
sampled, the others are dropped when they are complete:

    error          a span of it ended with an error
    slow>2s        it took longer (ms, s or m)
    5%             that share of all traces, decided by the trace's id

The rules are a program's, and travel with each of its traces.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple

from mlflow_fasttrace._internal.sender.assemble import TraceBuffer
from mlflow_fasttrace._internal.spool.records import SpanStatus, status_of

logger = logging.getLogger("mlflow_fasttrace.sender")

_SLOW = re.compile(r"slow\s*>\s*(\d+(?:\.\d+)?)\s*(ms|s|m)")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_NANOSECONDS = {"ms": 1e6, "s": 1e9, "m": 60e9}


class Decision(Enum):
    SAMPLED = auto()
    DROPPED = auto()
    WAITS = auto()  # for its end


class Rules(NamedTuple):
    """What a program asked for. A trace is sampled where one of the rules takes it."""

    error: bool = False
    slower_than_ns: float | None = None
    share: float = 0.0

    def take(self, trace: TraceBuffer) -> bool:
        """Whether a rule takes a trace, as far as that is known."""
        info = trace.info
        if info is None:
            return True
        if int.from_bytes(trace.trace_id[8:], "big") < self.share * 2**64:
            return True
        if self.slower_than_ns is not None and (info.duration_ns or 0) > self.slower_than_ns:
            return True
        return self.error and any(
            status_of(entry.record) == SpanStatus.ERROR for entry in trace.spans
        )


@lru_cache(maxsize=64)
def parse(text: str) -> Rules | None:
    """The rules, or None where a word of them is none: then everything is sampled.

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


def decide(trace: TraceBuffer, must_decide: Callable[[], bool]) -> Decision:
    """What the rules of the trace's program say. A decision stands, also for spans that come later.

    Args:
        trace: One that is ready to be sent.
        must_decide: Whether a trace that is not complete waits no longer.
    """
    if trace.sampled_in is None:
        rules = _rules_of(trace)
        if rules is None:
            return Decision.SAMPLED
        complete = trace.complete()
        if not complete and not must_decide():
            return Decision.WAITS
        # The rules may not have seen the half of a trace that will never be complete.
        trace.sampled_in = not complete or rules.take(trace)
    return Decision.SAMPLED if trace.sampled_in else Decision.DROPPED


def _rules_of(trace: TraceBuffer) -> Rules | None:
    text = trace.destination.get("keep")
    return parse(text) if isinstance(text, str) else None
