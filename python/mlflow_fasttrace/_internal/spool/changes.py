"""Changes to traces that are not at their server yet: an assessment, or a tag, that another program has for a
trace which is in flight. Each waits in a file of the spool until the sender finds the trace there."""

from __future__ import annotations

import itertools
import json
from typing import Any, NamedTuple

from mlflow_fasttrace._internal.base import clock
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.spool.private_files import open_private

_MOST_BYTES = 16 << 20  # of a file
_NAME_CHARACTERS = 100  # that log lines show

_numbers = itertools.count()


class Change(NamedTuple):
    """What is to be done to a trace: either of the two is given.

    ``assessment``: as ``Assessment.to_dictionary()`` has it, with an id. ``tag``: key and value.
    """

    trace_id: str  # as MLflow writes it
    assessment: dict[str, Any] | None = None
    tag: tuple[str, str] | None = None

    @property
    def what(self) -> str:
        """What it is, in words."""
        if self.assessment is not None:
            return f"the assessment {_quoted(self.assessment.get('assessment_name'))}"
        return f"the tag {_quoted(self.tag[0])}" if self.tag is not None else "nothing"


def _quoted(name: object) -> str:
    return repr(str(name)[:_NAME_CHARACTERS])


def write_change(folder: str, change: Change) -> None:
    """Puts a change into a spool's folder, whole or not at all.

    Raises:
        OSError: it cannot be written.
        TypeError, ValueError: the assessment is no JSON, or too large.
    """
    name = f"change-{clock.time_ns():020d}-{os.getpid()}-{next(_numbers)}.json"
    path = os.path.join(folder, name)
    text = json.dumps(change._asdict()).encode()
    if len(text) > _MOST_BYTES:
        raise ValueError(f"it has {len(text)} bytes")
    fresh = path + ".new"
    descriptor = open_private(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        try:
            while text:
                text = text[os.write(descriptor, text) :]
        finally:
            os.close(descriptor)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise


def read_change(path: str) -> Change:
    """The change in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no change.
    """
    with open(path, encoding="utf-8", opener=open_private) as file:
        content = json.loads(file.read(_MOST_BYTES))
    if not isinstance(content, dict) or not isinstance(content.get("trace_id"), str):
        raise ValueError("it names no trace")
    assessment, tag = content.get("assessment"), content.get("tag")
    if isinstance(assessment, dict):
        return Change(content["trace_id"], assessment=assessment)
    if isinstance(tag, list) and [type(part) for part in tag] == [str, str]:
        return Change(content["trace_id"], tag=(tag[0], tag[1]))
    raise ValueError("it holds neither an assessment nor a tag")
