"""Servers that do not come to an end."""

from __future__ import annotations

import contextlib
import socket
import threading

#: By what a server says: the beginning, and what it repeats then.
UNENDING = {
    "goes on and on": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a head that drips": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "a body that drips": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
    "a body without an end": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
}
_SLOWLY = ("a head that drips", "a body that drips")


class Talker:
    """Answers each connection on loopback with one of ``UNENDING``."""

    def __init__(self, kind: str):
        self.asked = threading.Event()
        self._first, self._again = UNENDING[kind]
        self._pause = 0.05 if kind in _SLOWLY else 0.0
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Talker:
        self._threads[0].start()
        return self

    def __exit__(self, *exception) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(30)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._ended.is_set():
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._talk, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(1.0)
            connection.recv(65536)
            self.asked.set()
            connection.sendall(self._first)
            while not self._ended.wait(self._pause):
                connection.sendall(self._again)
