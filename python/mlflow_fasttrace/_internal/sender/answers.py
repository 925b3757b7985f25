"""What an answer of a tracking server means: which statuses say that the server is unavailable, that a
request was too large (413), or that a trace is wrong. What follows is decided by who has asked:
``span_requests.py`` (smaller requests, files, dead letters) and ``info_requests.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from mlflow_fasttrace._internal.base.texts import one_line
from mlflow_fasttrace._internal.config.uris import without_credentials
from mlflow_fasttrace._internal.sender.exceptions import (
    Forbidden,
    InAnotherExperiment,
    Rejected,
    TooLarge,
    TransientError,
    Unavailable,
)
from mlflow_fasttrace._internal.sender.transport import PartialSuccess, partial_success, retry_after

_SIGN_IN_HINT = (
    "(set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; nothing "
    "is lost meanwhile)"
)

_UNAVAILABLE_STATUS = frozenset({401, 407, 408, 425, 429, 502, 503, 504})


class Answer(NamedTuple):
    """A whole answer of the server, or of whatever stands before it."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body; None where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def error_code(self) -> str | None:
        """MLflow's code of what is wrong."""
        content = self.json()
        return content.get("error_code") if isinstance(content, dict) else None

    def partial_success(self) -> PartialSuccess | None:
        """What an OTLP answer says of spans that were left out; None: it is no such answer."""
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
        if kind == "application/x-protobuf":
            return partial_success(self.body)
        content = self.json() if kind == "application/json" else None
        if not isinstance(content, dict) or content.keys() - {"partialSuccess"}:
            return None
        partial = content.get("partialSuccess") or {}
        if not isinstance(partial, dict):
            return None
        rejected = int(partial.get("rejectedSpans") or 0)
        return PartialSuccess(rejected, str(partial.get("errorMessage")))

    def is_of_mlflow(self) -> bool:
        """Whether MLflow wrote the answer, and nothing that stands in its place or in between."""
        content = self.json()
        return isinstance(content, dict) and ("error_code" in content or "detail" in content)

    def retry_after(self) -> float | None:
        """Seconds until the server wants to be asked again."""
        return retry_after(self.headers.get("Retry-After"))


def reason_of(answer: Answer, place: str) -> str:
    """One line on an answer that is no success.

    Args:
        place: The URI that answered, without credentials.
    """
    text = one_line(answer.body[:300].decode("utf-8", "replace"))
    if 300 <= answer.status < 400:
        text = f"go to {one_line(without_credentials(answer.headers.get('Location', '')))}"
    reason = f"{place} answered {answer.status}: {text}"
    return f"{reason} {_SIGN_IN_HINT}" if answer.status in (401, 403) else reason


def check(answer: Answer, place: str) -> None:
    """Checks that a request succeeded.

    Args:
        place: The URI that answered, without credentials.

    Raises:
        Unavailable: Nothing can be delivered now; redirects that are not followed are among it.
        Forbidden: The server does not let the sender in, or not to this experiment.
        TooLarge: 413; the caller makes smaller requests of the same spans.
        Rejected: The server says that the content is wrong; or, as ``InAnotherExperiment``, the place.
        TransientError: Whose fault it is shows when other traces are taken, or are not.
    """
    status = answer.status
    if status == 200:
        return
    reason = reason_of(answer, place)
    if status in _UNAVAILABLE_STATUS or status < 400:
        raise Unavailable(reason, answer.retry_after(), kind=status, unauthenticated=status == 401)
    if status == 403:
        # A gateway, too, answers 403 to a signature that has expired.
        raise Forbidden(reason, kind=status, unauthenticated=True)
    if status == 413:
        raise TooLarge(reason)
    # A trace is wrong where MLflow itself says so. Whether it is to blame for a page that something
    # else wrote, for an experiment that is not there or for a failure shows when others are taken.
    known = answer.is_of_mlflow() and status < 500 and status != 404
    if known and InAnotherExperiment.WORDS in reason:
        raise InAnotherExperiment(reason)
    raise (Rejected if known else TransientError)(reason)
