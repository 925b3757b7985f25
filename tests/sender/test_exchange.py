"""Requests over connections that are open: every form of an answer is read as urllib3 reads it."""

from __future__ import annotations

import contextlib
import gzip
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import urllib3
from mlflow_fasttrace._internal.sender.access import EnvironmentAccess
from mlflow_fasttrace._internal.sender.answers import Answer
from mlflow_fasttrace._internal.sender.connection import Connection
from mlflow_fasttrace._internal.sender.exceptions import Unavailable
from mlflow_fasttrace._internal.sender.exchange import MOST_BYTES
from support.waiting import wait_until

USUAL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"
PATH = "/some/path?with=1"
HEADERS = {"Content-Type": "application/json"}


class RawServer:
    """Answers each request with bytes that are given, in their order; the last again and again."""

    def __init__(self, *answers: bytes, closes: bool = False):
        self._answers = list(answers)
        self._closes = closes
        self.requests: list[bytes] = []
        self.connections = 0
        self.closed = 0  # of them, by the server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection.makefile("rb") as file:
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    if not (line := file.readline()):
                        return
                    head += line
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                )
                self.requests.append(head + file.read(length))
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                connection.sendall(answer)
                if self._closes:
                    connection.shutdown(socket.SHUT_RDWR)
                    self.closed += 1
                    return

    def close(self) -> None:
        for one in (self._listener, *self._open):
            one.close()


@contextlib.contextmanager
def serving(*answers: bytes, closes: bool = False) -> Iterator[tuple[RawServer, Connection]]:
    server = RawServer(*answers, closes=closes)
    try:
        yield server, Connection(EnvironmentAccess(server.uri), 4)
    finally:
        server.close()


def ask(connection: Connection, body: bytes = b"{}") -> Answer:
    return connection.begin("POST", PATH, body, HEADERS)()


def head(*fields: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1")


def fields_of(answer: Answer) -> dict[str, str]:
    """The headers without the space at the ends of their lines, which means nothing."""
    return {name.lower(): " ".join(value.split()) for name, value in answer.headers.items()}


PACKED = gzip.compress(b"ok")
#: Answers, by what is special; and whether the connection is good for another request.
ANSWERS = {
    "usual": (USUAL, True),
    "names in other letters": (
        head("content-LENGTH:2", "content-type:\ttext/plain ") + b"ok",
        True,
    ),
    "kept alive, it says": (
        head("Connection: Keep-Alive", "Content-Length: 2", "Content-Type: text/plain") + b"ok",
        True,
    ),
    "closes": (
        head("Connection: close", "Content-Length: 2", "Content-Type: text/plain") + b"ok",
        False,
    ),
    "in chunks": (
        head("Transfer-Encoding: chunked", "Content-Type: text/plain")
        + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        True,
    ),
    "compressed": (
        head("Content-Encoding: gzip", f"Content-Length: {len(PACKED)}", "Content-Type: text/plain")
        + PACKED,
        True,
    ),
    "after 100 Continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + USUAL, True),
    "no reason": (
        head("Content-Length: 2", "Content-Type: text/plain", status="200") + b"ok",
        True,
    ),
    "a field in two lines": (
        head("Content-Length: 2", "X-Long: a", " b", "Content-Type: text/plain") + b"ok",
        True,
    ),
    "HTTP/1.0": (
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok",
        False,
    ),
    "more than it says": (USUAL + b"and more", False),
    "refused": (
        head("Content-Length: 2", "Content-Type: text/plain", status="503 Busy") + b"ok",
        True,
    ),
    "Latin-1": (
        head("Content-Length: 2", "Content-Type: text/plain", "X-Name: \xe9") + b"ok",
        True,
    ),
}


@pytest.mark.parametrize("form", ANSWERS)
def test_an_answer_over_an_open_connection_is_read_as_urllib3_reads_it(form):
    answer, stays_open = ANSWERS[form]
    with serving(USUAL, answer) as (server, connection):
        ask(connection)
        found = ask(connection)
        again = ask(connection)
        connections = server.connections
    with serving(answer) as (server, connection):
        first = ask(connection)  # by urllib3
    assert (found.status, found.body) == (first.status, first.body)
    assert found.headers.get("content-type") == "text/plain"
    assert fields_of(found) == fields_of(first)
    assert again.body == found.body
    if form != "more than it says":  # urllib3 would take that for the next answer
        assert (connections == 1) == stays_open


def test_an_unusual_head_of_many_lines_is_read_at_once():
    """Not by trying all ways in which its lines might be usual."""
    fields = [f"X-{n}:  with  spaces  " for n in range(60)]
    answer = head(*fields, "Content-Length: 2", "Content-Type: text/plain", " folded") + b"ok"
    with serving(USUAL, answer) as (_, connection):
        ask(connection)
        found = ask(connection)
    assert found.body == b"ok"
    assert len(found.headers) == 62


def test_a_request_over_an_open_connection_is_the_same():
    with serving(USUAL) as (server, connection):
        ask(connection, b'{"a": 1}')
        ask(connection, b'{"a": 1}')
    first, second = server.requests

    def fields(request: bytes) -> tuple[bytes, list[bytes], bytes]:
        start, _, body = request.partition(b"\r\n\r\n")
        line, *rest = start.split(b"\r\n")
        return line, sorted(field.lower() for field in rest), body

    assert fields(second) == fields(first)
    assert server.connections == 1


def test_the_dot_behind_a_name_is_never_said(monkeypatch):
    """Fully qualified names in Kubernetes have one; servers compare the header with those that they know."""
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **kwargs: look_up(host.rstrip("."), *args, **kwargs),
    )
    server = RawServer(USUAL)
    try:
        port = server.uri.rpartition(":")[2]
        connection = Connection(EnvironmentAccess(f"http://localhost.:{port}"), 4)
        ask(connection)
        ask(connection)
    finally:
        server.close()
    assert [re.findall(rb"Host: (\S+)", request) for request in server.requests] == [
        [f"localhost:{port}".encode()]
    ] * 2


def test_large_requests_use_the_same_connection():
    with serving(USUAL) as (server, connection):
        for size in (2, 2, MOST_BYTES + 1, 2, 2):
            ask(connection, b"x" * size)
        assert [len(request.partition(b"\r\n\r\n")[2]) for request in server.requests] == [
            2,
            2,
            MOST_BYTES + 1,
            2,
            2,
        ]
        assert server.connections == 1


def test_a_connection_that_was_closed_meanwhile_is_opened_again():
    with serving(USUAL, closes=True) as (server, connection):
        for number in range(1, 5):
            assert ask(connection).body == b"ok"
            wait_until(lambda n=number: server.closed == n, what="the connection's end")
        assert server.connections == 4


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 2", head("Content-Length: 20") + b"cut off", b"nonsense"],
    ids=["nothing", "half a status", "half a body", "nonsense"],
)
def test_an_answer_that_is_cut_off_is_none(answer):
    server = RawServer(USUAL, answer)
    try:
        connection = Connection(EnvironmentAccess(server.uri), 4)
        ask(connection)
        server._closes = True
        with pytest.raises(Unavailable) as raised:
            ask(connection)
        assert raised.value.unanswered
    finally:
        server.close()


def test_an_answer_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with serving(USUAL, head("Content-Length: 200") + b"the beginning") as (_, connection):
        ask(connection)
        with pytest.raises(Unavailable, match="time"):
            ask(connection)


def test_answers_are_read_in_any_order():
    bodies = [b"1", b"22", b"333"]
    answers = [head(f"Content-Length: {len(body)}") + body for body in bodies]
    with serving(USUAL, *answers) as (server, connection):
        ask(connection)
        first = connection.begin("POST", PATH, b"{}", HEADERS)
        wait_until(lambda: len(server.requests) == 2, what="the first request")
        second = connection.begin(
            "POST", PATH, b"{}", HEADERS
        )  # over another, which is opened for it
        assert second().body == b"22"
        third = connection.begin("POST", PATH, b"{}", HEADERS)
        assert third().body == b"333"
        assert first().body == b"1"
        assert server.connections == 2


def test_the_time_of_an_answer_begins_with_its_request(monkeypatch):
    """However many are waited for one after the other."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with serving(*[USUAL] * 4, b"") as (server, connection):
        opened = [connection.begin("POST", PATH, b"{}", HEADERS) for _ in range(4)]
        for wait in opened:
            wait()
        silent = [connection.begin("POST", PATH, b"{}", HEADERS) for _ in range(server.connections)]
        assert len(silent) > 1
        began = time.monotonic()
        for wait in silent:
            with pytest.raises(Unavailable, match="time"):
                wait()
        assert time.monotonic() - began < 2 * len(silent) - 1


def test_threads_have_connections_of_their_own():
    with serving(USUAL) as (server, connection):
        answers: list[bytes] = []

        def many() -> None:
            answers.extend(ask(connection).body for _ in range(50))

        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [b"ok"] * 200
        assert len(server.requests) == 200
        assert server.connections <= 4


def test_urllib3_is_not_asked_for_what_is_usual(monkeypatch):
    with serving(USUAL) as (_, connection):
        ask(connection)

        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("urllib3 makes the request")

        monkeypatch.setattr(urllib3.HTTPConnectionPool, "urlopen", refuse)
        assert ask(connection).body == b"ok"
