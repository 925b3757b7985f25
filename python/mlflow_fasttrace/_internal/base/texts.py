"""Text of others in log lines and in a terminal."""

from __future__ import annotations

import re

#: Control characters but tab and newline, marks that turn the direction of text, lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """Text that controls nothing: control characters are written out."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], str(text))


def one_line(text: object) -> str:
    """The same on one line."""
    return " ".join(printable(text).split())
