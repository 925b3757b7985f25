"""Digests that names of files are made of. The module of Python that has the function is imported by itself:
``hashlib`` loads OpenSSL, which takes longer than all else that a spool's name needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import blake2b
else:
    try:
        from _blake2 import blake2b
    except ImportError:  # another Python's
        from hashlib import blake2b


def digest(text: str, size: int, person: bytes = b"") -> str:
    """The hexadecimal digits of a text's digest by BLAKE2b; also of one that is no Unicode, as a file's name.

    Args:
        size: Of the digest, in bytes.
        person: What else goes in, 16 bytes at most.
    """
    encoded = text.encode("utf-8", "surrogatepass")
    return blake2b(encoded, digest_size=size, person=person).hexdigest()
