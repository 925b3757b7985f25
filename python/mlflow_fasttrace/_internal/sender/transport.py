"""What connections to servers and to collectors have in common: an answer is bounded in time and in size,
head and body, whoever sends it."""

from __future__ import annotations

import gzip
import http.client
import io
import socket
import time
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import requests
import urllib3

#: What a request carries; pieces where it is large.
Body = bytes | list[bytes]

#: Redirects that are followed one after another.
REDIRECTS = 10

ANSWER_BYTES = 8 << 20  # that are read of one
_ANSWER_SECONDS = 60.0  # of a connection without a time limit
_LARGE_ANSWER_SECONDS = 600.0  # of one that is not ours, such as a storage's, from which files come
_PART_BYTES = 64 << 10
_SMALL_PART_BYTES = 1 << 10
_GZIP = 31  # zlib's way to ask for gzip's format


class _UntilDeadline(io.RawIOBase):
    """What arrives at a socket until a moment.

    Args:
        connection: The socket.
        arriving: Reads it, unbuffered.
        deadline: Of ``time.monotonic()``.
        arrived: What was read before.
    """

    def __init__(
        self, connection: socket.socket, arriving: io.RawIOBase, deadline: float, arrived: bytes
    ):
        self._connection = connection
        self._arriving = arriving
        self._deadline = deadline
        self._arrived = arrived

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._arrived:
            size = min(len(buffer), len(self._arrived))
            buffer[:size], self._arrived = self._arrived[:size], self._arrived[size:]
            return size
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        usual = self._connection.gettimeout()
        self._connection.settimeout(left)
        try:
            return self._arriving.readinto(buffer)
        finally:
            self._connection.settimeout(usual)

    def close(self) -> None:
        self._arriving.close()
        super().close()


class BoundedResponse(http.client.HTTPResponse):
    """An answer that has arrived within the connection's time limit. Each part that came would begin that
    anew: a server could say "100 Continue" for ever.

    Args:
        arrived: What was read of it before.
        deadline: Of ``time.monotonic()``; None: what the connection allows from now on.
    """

    seconds = _ANSWER_SECONDS  # where there is no limit

    def __init__(
        self,
        sock: socket.socket,
        *args: Any,
        arrived: bytes = b"",
        deadline: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(sock, *args, **kwargs)
        if deadline is None:
            deadline = time.monotonic() + (sock.gettimeout() or self.seconds)
        self.fp.close()
        arriving: Any = sock.makefile("rb", buffering=0)
        self.fp = io.BufferedReader(_UntilDeadline(sock, arriving, deadline, arrived))


class _BoundedResponseOfOthers(BoundedResponse):
    """An answer to a request that is not ours, which may be a file."""

    seconds = _LARGE_ANSWER_SECONDS


def size_of(body: Body) -> int:
    """The bytes of a body."""
    return sum(map(len, body)) if isinstance(body, list) else len(body)


def compressed(body: Body) -> Body:
    """A body compressed by gzip. Pieces are used up: the list is empty then, so that they and what is made
    of them are not there at the same time."""
    if not isinstance(body, list):
        return gzip.compress(body, compresslevel=1)
    compressor = zlib.compressobj(level=1, wbits=_GZIP)
    pieces = []
    body.reverse()
    while body:
        if piece := compressor.compress(body.pop()):
            pieces.append(piece)
    return [*pieces, compressor.flush()]


def bound_answers(pool: urllib3.HTTPConnectionPool) -> urllib3.HTTPConnectionPool:
    """Has the connections of a pool bound the time of an answer as a whole."""
    usual: Any = pool.ConnectionCls
    if getattr(usual, "response_class", None) is not BoundedResponse:
        bounded: Any = type(usual.__name__, (usual,), {"response_class": BoundedResponse})
        pool.ConnectionCls = bounded
    return pool


def bound_every_answer() -> None:
    """The same for all connections of this process, those of MLflow's own code and its clients of storages
    included. For a process that is the sender's alone."""
    connection: Any = urllib3.connection.HTTPConnection
    connection.response_class = _BoundedResponseOfOthers


def read_parts(parts: Iterable[bytes], seconds: float) -> bytes:
    """The whole body of an answer.

    Args:
        parts: It, as it arrives.
        seconds: In which it has to.

    Raises:
        OSError: it is too long, or takes too long.
    """
    deadline = time.monotonic() + seconds
    content = bytearray()
    for part in parts:
        content += part
        if len(content) > ANSWER_BYTES or time.monotonic() > deadline:
            raise OSError("its answer has no end")
    return bytes(content)


def read_answer(response: urllib3.BaseHTTPResponse, seconds: float) -> bytes:
    """The whole body of an answer, whose connection is free for the next request then.

    Raises:
        OSError: it is too long, or takes too long.
    """
    try:
        if hasattr(response, "read1"):
            parts = iter(lambda: response.read1(_PART_BYTES), b"")
        else:  # urllib3 1.26, which waits until a part is whole
            parts = response.stream(_SMALL_PART_BYTES)
        content = read_parts(parts, seconds)
    except BaseException:
        response.close()
        raise
    response.release_conn()
    return content


class PartialSuccess(NamedTuple):
    """What an OTLP answer says of spans that the receiver left out. It must not get them again."""

    rejected: int
    message: str


def partial_success(body: bytes) -> PartialSuccess | None:
    """Reads the answer to an OTLP request, as protobuf.

    Args:
        body: Empty where all spans were taken.

    Returns:
        None where it is no such answer.
    """
    if not body:
        return PartialSuccess(0, "")
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        found = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return None
    return PartialSuccess(found.rejected_spans, found.error_message)


def retry_after(text: str | None) -> float | None:
    """Reads a Retry-After header.

    Args:
        text: Seconds, or a date.

    Returns:
        Seconds from now; None where it asks for nothing that makes sense.
    """
    if not text:
        return None
    try:
        return max(0.0, urllib3.Retry().parse_retry_after(text))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


class NetworkSettings(NamedTuple):
    """How a host is reached.

    ``verify``: whether certificates are checked, or the file or folder of those that are trusted.
    ``cert``: the client's own, if any. ``proxies``: URIs by scheme.
    """

    verify: bool | str
    cert: str | tuple[str, str] | None
    proxies: dict[str, str]


def network_settings(
    session: requests.Session, url: str, verify: bool | str | None, cert: str | None = None
) -> NetworkSettings:
    """Finds proxies and certificates in the environment, as requests does.

    Args:
        session: Where nothing is set that this would override.
        url: Of the host.
        verify: Certificates that are trusted, where something said so.
        cert: The client's certificate.
    """
    found = session.merge_environment_settings(url, {}, None, verify, cert)
    return NetworkSettings(found["verify"], found["cert"], dict(found["proxies"]))
