"""What MLflow's lists show of a trace's inputs and outputs: the text of the last chat message of the role that
matters, in the formats of OpenAI's APIs, and else the beginning of the JSON."""

from __future__ import annotations

import json
from typing import Any

_PREVIEW_CHARACTERS = 1000  # that the server keeps

#: Where the messages of a request or an answer are, by the format.
_LISTS = ("messages", "choices", "input", "output")


def preview_of(text: str | tuple[str, str | None] | None, role: str) -> str | None:
    """The preview of inputs or outputs.

    Args:
        text: Their JSON; of large ones its beginning, and that of the message that says most, which the core
            has found by the rules of this module (``ext/value/messages.c``).
        role: Of the messages that say most: ``user``, or ``assistant``.
    """
    if text is None:
        return None
    if isinstance(text, tuple):
        beginning, message = text
        shown = message or beginning
    else:
        shown = _text_of_messages(text, role) or text
    if len(shown) > _PREVIEW_CHARACTERS:
        return shown[: _PREVIEW_CHARACTERS - 3] + "..."
    return shown


def _text_of_messages(text: str, role: str) -> str | None:
    try:
        messages = _messages_in(json.loads(text))
    except (ValueError, RecursionError):  # no JSON, or what this Python cannot read of it
        return None
    if not messages:
        return None
    message = next((m for m in reversed(messages) if m.get("role") == role), messages[-1])
    return _text_of(message.get("content"))


def _messages_in(value: Any) -> list[dict[str, Any]] | None:
    """The messages of a value; None where it has no place for any."""
    while isinstance(value, dict):
        for key in _LISTS:
            found = value.get(key)
            if not isinstance(found, list) or not found:
                continue
            if key != "choices":
                return [item for item in found if _is_message(item)]
            first = found[0].get("message") if isinstance(found[0], dict) else None
            if isinstance(first, dict) and _is_message(first):
                return [first]
        if "request" not in value:
            return None
        value = value["request"]  # of a ResponsesAgent
    return None


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and "content" in value


def _text_of(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            return part
        if isinstance(part, dict) and part.get("type") in ("text", "output_text"):
            text = part.get("text")
            return text if isinstance(text, str) else None
    return None
