"""A small request over a connection that is open already. urllib3 connects, with its proxies and certificates;
between two requests its connection is borrowed, and an answer of the usual form is read without http.client's
and email's parsers, which take more time than everything else that a sender does for a trace."""

from __future__ import annotations

import contextlib
import functools
import queue
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3._collections import HTTPHeaderDict  # not at the top before urllib3 2
from urllib3.util.connection import is_connection_dropped

from mlflow_fasttrace._internal.sender.answers import Answer
from mlflow_fasttrace._internal.sender.transport import (
    ANSWER_BYTES,
    BoundedResponse,
    read_answer,
)

#: Of a body: so much is written at once, whether or not the other side reads.
MOST_BYTES = 64 << 10

_PART_BYTES = 8 << 10
_LEAST_SECONDS = 0.05
_END_OF_HEAD = b"\r\n\r\n"
# A line can be matched in one way only: another would be tried for each line of a head that is unusual.
_FIELD = rb"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n]*)"
_FIELDS = re.compile(_FIELD)
_USUAL = re.compile(rb"HTTP/1\.1 ([2-5]\d\d)(?: [^\r\n]*)?(?:" + _FIELD + rb")*")
_LENGTH = re.compile(rb"(?i)\r\nContent-Length:([^\r\n]*)")
#: What ends an answer in another way, or says that it is not as it was.
_UNUSUAL = re.compile(
    rb"(?i)\r\n(?:Transfer-Encoding:|Content-Encoding:|Connection:(?![ \t]*keep-alive[ \t]*(?:\r|$)))"
)
_WITHOUT_BODY = (b"204", b"304")


class OpenConnections:
    """The open connections of a pool, as far as they are borrowed from it.

    Args:
        pool: Its connections make answers that are bounded (`transport.bound_answers`).
        seconds: In which an answer has to arrive.
    """

    def __init__(self, pool: urllib3.HTTPConnectionPool, seconds: float):
        self._pool = pool
        self._seconds = seconds
        self._borrowed: list[Any] = []  # that no request is under way on; threads share it
        self._head: tuple[tuple[str, str, dict[str, str]], str] | None = None

    def begin(
        self, method: str, place: str, body: bytes, headers: dict[str, str]
    ) -> Callable[[], Answer] | None:
        """Makes a request over one of them.

        Args:
            place: What the request names, a path or behind a proxy a URL.
            body: Of at most `MOST_BYTES`.
            headers: All but ``Host`` and ``Content-Length``. They can be put into a request.

        Returns:
            What waits for the answer, in any order, and once. It raises OSError, http.client.HTTPException or
            urllib3.exceptions.HTTPError where there is none. None where no connection is open: nothing was sent.

        Raises:
            OSError: the same, known already.
        """
        connection = self._one()
        if connection is None:
            return None
        is_under_way = False
        try:
            request = f"{self._head_of(method, place, headers)}{len(body)}\r\n\r\n"
            sock = connection.sock
            sock.settimeout(self._seconds)
            deadline = time.monotonic() + self._seconds
            try:
                sock.sendall(request.encode("latin-1") + body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # a server may refuse what it has not read to its end
            is_under_way = True
        finally:
            if not is_under_way:
                self._close(connection)
        return functools.partial(self._wait, connection, method, deadline)

    def _wait(self, connection: Any, method: str, deadline: float) -> Answer:
        is_left_open = False
        try:
            # One that has arrived meanwhile is read, however late that is, if it is short.
            connection.sock.settimeout(max(deadline - time.monotonic(), _LEAST_SECONDS))
            answer, is_left_open = _answer(connection.sock, method, deadline, self._seconds)
            return answer
        finally:
            if is_left_open:
                self._borrowed.append(connection)
            else:
                self._close(connection)

    def _close(self, connection: Any) -> None:
        connection.close()
        self._give_back(connection)

    def give_back(self) -> None:
        """Gives the pool what is borrowed, for a request that it makes itself."""
        with contextlib.suppress(IndexError):  # no more
            while True:
                self._give_back(self._borrowed.pop())

    def _one(self) -> Any:
        """A connection that is open, for this thread alone; None where there is none."""
        pool = self._pool.pool
        try:
            connection = self._borrowed.pop()
        except IndexError:
            try:
                connection = pool.get(block=False) if pool is not None else None
            except queue.Empty:  # as many requests are under way as are allowed
                return None
        if connection is not None and connection.sock is not None:
            if not is_connection_dropped(connection):
                return connection
            connection.close()
        self._give_back(connection)
        return None

    def _give_back(self, connection: Any) -> None:
        pool = self._pool.pool
        try:
            if pool is not None:
                pool.put(connection, block=False)
                return
        except queue.Full:
            pass
        if connection is not None:
            connection.close()

    def _head_of(self, method: str, place: str, headers: dict[str, str]) -> str:
        """The head of a request up to the number of its bytes. Most are those of the one before."""
        key = method, place, headers
        known = self._head
        if known is None or known[0] != key:
            known = self._head = key, _head(self._pool, method, place, headers)
        return known[1]


def _head(
    pool: urllib3.HTTPConnectionPool, method: str, place: str, headers: dict[str, str]
) -> str:
    lines = [f"{method} {place} HTTP/1.1"]
    if not any(name.lower() == "host" for name in headers):
        lines.append(f"Host: {_host(pool, place)}")
    if place.startswith("http"):  # not through a tunnel: the proxy reads it
        headers = {**headers, **(pool.proxy_headers or {})}
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Content-Length: "])


def _host(pool: urllib3.HTTPConnectionPool, place: str) -> str:
    if place.startswith("http"):
        return urlsplit(place).netloc.rpartition("@")[2]
    host = pool.host.strip("[]")
    if pool.proxy is None:
        host = host.rstrip(".")  # with which urllib3 looks a name up, and without which it says it
    if ":" in host:
        host = f"[{host.partition('%')[0]}]"  # without the zone, which means something here only
    usual = urllib3.connection.port_by_scheme[pool.scheme]
    return host if pool.port in (None, usual) else f"{host}:{pool.port}"


def _answer(sock: Any, method: str, deadline: float, seconds: float) -> tuple[Answer, bool]:
    """The answer, and whether the connection can be used again."""
    arrived: bytes = sock.recv(_PART_BYTES)
    end = arrived.find(_END_OF_HEAD)
    if (head := _usual_head(arrived[:end]) if end >= 0 else None) is None:
        return _unusual_answer(sock, method, arrived, deadline, seconds)
    status, headers, length = head
    body = arrived[end + len(_END_OF_HEAD) :]
    if len(body) < length:
        body = _rest(sock, body, length, deadline)
    # What TLS has decrypted already would be taken for the next answer, as would what was read.
    more = len(body) > length or getattr(sock, "pending", int)() > 0
    return Answer(status, headers, body[:length]), not more


class _Headers(Mapping[str, str]):
    """The headers of an answer, looked into when one is asked for.

    Args:
        head: The head as it came, without its end.
    """

    def __init__(self, head: bytes):
        self._head = head

    @functools.cached_property
    def _fields(self) -> HTTPHeaderDict:
        found = HTTPHeaderDict()
        for name, value in _FIELDS.findall(self._head):
            found.add(name.decode("latin-1"), value.strip(b" \t").decode("latin-1"))
        return found

    def __getitem__(self, name: str) -> str:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def _usual_head(head: bytes) -> tuple[int, Mapping[str, str], int] | None:
    """The status, the headers, and the length of the body; None where they are to be read by all of HTTP's rules."""
    usual = _USUAL.fullmatch(head)
    lengths = _LENGTH.findall(head)
    if (
        usual is None
        or usual[1] in _WITHOUT_BODY
        or len(lengths) != 1
        or not (length := lengths[0].strip(b" \t")).isdigit()
        or len(length) > len(str(ANSWER_BYTES))
        or int(length) > ANSWER_BYTES
        or _UNUSUAL.search(head) is not None
    ):
        return None
    return int(usual[1]), _Headers(head), int(length)


def _rest(sock: Any, arrived: bytes, length: int, deadline: float) -> bytes:
    body = bytearray(arrived)
    while len(body) < length:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        sock.settimeout(left)
        part = sock.recv(_PART_BYTES)
        if not part:
            raise ConnectionError("the answer ends before its end")
        body += part
    return bytes(body)


def _unusual_answer(
    sock: Any, method: str, arrived: bytes, deadline: float, seconds: float
) -> tuple[Answer, bool]:
    """The same, read by http.client and urllib3."""
    raw = BoundedResponse(sock, method=method, arrived=arrived, deadline=deadline)
    raw.begin()
    response = urllib3.HTTPResponse(
        body=raw,
        headers=HTTPHeaderDict(raw.headers.items()),
        status=raw.status,
        version=raw.version,
        reason=raw.reason,
        preload_content=False,
        original_response=raw,
        enforce_content_length=True,
        request_method=method,
    )
    content = read_answer(response, seconds)
    return Answer(raw.status, response.headers, content), raw.isclosed() and not raw.will_close
