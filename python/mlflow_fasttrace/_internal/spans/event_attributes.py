"""The attributes of events. MLflow's spans hold OpenTelemetry's events, which keep values by rules of their own, not
by those for inputs and attributes of spans.

The C core calls ``recorded`` by name (``SPANS_EVENT_ATTRIBUTES`` in ``ext/base/python_side.h``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from mlflow_fasttrace._internal.base.interruptions import let_pass


def with_tuples(value: Any) -> Any:
    """An event's attributes with tuples for lists: OpenTelemetry's events hold no list."""
    if isinstance(value, list):
        return tuple(map(with_tuples, value))
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    return value


def recorded(attributes: Any) -> dict[str, Any]:
    """An event's attributes as OpenTelemetry records them: containers as such, the text of anything else. A key
    that OpenTelemetry leaves out, because it is empty or no string, is kept as its text. Attributes that cannot be
    read are none: the event is recorded without them.

    Raises:
        MemoryError: the event is left out.
    """
    found = _recorded_value(attributes, []) if isinstance(attributes, Mapping) else None
    return found if isinstance(found, dict) else {}


#: In levels, of which the attributes themselves are the first; beyond, a text stands for what is below.
_DEEPEST = 201


def _recorded_value(value: Any, around: list[int]) -> Any:
    """A value as it is recorded.

    Args:
        value: The value.
        around: The ids of the containers that it is in. One of them again is a cycle, for which its text stands.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if len(around) >= _DEEPEST or id(value) in around:
        return _text_of(value)
    within = [*around, id(value)]
    try:
        if isinstance(value, Sequence) and not isinstance(value, bytes):
            return [_recorded_value(item, within) for item in islice(value, len(value))]
        if isinstance(value, Mapping):
            return {_text_of(key): _recorded_value(item, within) for key, item in value.items()}
    except MemoryError:
        raise
    except Exception as error:
        let_pass(error)
    return _text_of(value)


def _text_of(value: Any) -> str:
    for text in str, repr:
        try:
            return text(value)
        except MemoryError:
            raise
        except Exception as error:
            let_pass(error)
    return object.__repr__(value)
