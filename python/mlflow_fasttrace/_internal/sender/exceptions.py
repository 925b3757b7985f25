"""The ways in which a destination can say no.

DeliveryError
  Unavailable        it can take nothing now: everything is kept, and it is asked again later
    Forbidden        it cannot take this experiment, or this trace, now: others it may take
  TransientError     it is there and could not do this, perhaps because of what was sent: what
                     it could not take waits by itself (verdicts.py)
  Rejected           it will never take this: a dead letter, and the rest goes on
    InAnotherExperiment   it will where the trace is
  TooLarge           it takes less at a time: the request is made smaller
  Unsupported        it takes no spans by OTLP: they go to it as files
  Inexact            OTLP would change values of these spans: the destination has not been asked
"""

from __future__ import annotations


class DeliveryError(Exception):
    """Something could not be delivered."""


class Unavailable(DeliveryError):
    """The destination cannot take anything now.

    Args:
        reason: What is wrong.
        retry_after: Seconds until the destination wants to be asked again, where it said so.
        kind: Reasons of one kind, which differ in their words only, are logged once. Whoever raises
            this has to name one: reasons without would pass for one another.
        unanswered: The destination was asked and did not answer, perhaps because of the size of the
            request.
        unauthenticated: The destination does not let this sender in: other credentials may help.
    """

    def __init__(
        self,
        reason: str,
        retry_after: float | None = None,
        *,
        kind: object,
        unanswered: bool = False,
        unauthenticated: bool = False,
    ):
        super().__init__(reason)
        self.retry_after = retry_after
        self.kind = kind
        self.unanswered = unanswered
        self.unauthenticated = unauthenticated


class Forbidden(Unavailable):
    """The destination cannot take this experiment, or this trace in this way, now; others it may."""


class TransientError(DeliveryError):
    """The destination is there and could not do this, perhaps because of what was sent."""


class Rejected(DeliveryError):
    """The destination will never take this."""


class InAnotherExperiment(Rejected):
    """The destination has the trace in another experiment: MLflow from 3.18 on keeps a trace where it was first
    heard of, which is not where a service that continues it sends its own traces."""

    #: What MLflow's message says.
    WORDS = "already exists in another experiment"


class TooLarge(DeliveryError):
    """The destination takes less at a time."""


class Unsupported(DeliveryError):
    """The destination takes no spans by OTLP."""


class Inexact(DeliveryError):
    """OTLP would turn values of some spans into texts, where JSON would not.

    Args:
        indexes: Which of the records that were to be sent hold such values.
    """

    def __init__(self, indexes: list[int]):
        super().__init__(indexes)
        self.indexes = indexes
