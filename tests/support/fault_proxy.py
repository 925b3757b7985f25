"""A loopback proxy that stands before a server and does what is asked of it: other answers, half
answers, no answers."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

#: The paths that spans and a trace's info are posted to.
SPANS, INFO = "/v1/traces", "/api/3.0/mlflow/traces"
HTML, JSON = {"Content-Type": "text/html"}, {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """An answer in the place of the server's own."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}
    forward: bool = False  # the server gets the request all the same
    drop: bool = False  # the connection is closed without a word
    cut: bool = False  # half of the body, then the connection is closed
    silent: bool = False  # no answer until the proxy is closed
    endless: bool = False  # the body again and again, until the proxy is closed


def server_tls(certificate: tuple[str, str], client_authority: str | None = None) -> ssl.SSLContext:
    """The TLS settings of a server.

    Args:
        certificate: The path of its certificate, and that of the key.
        client_authority: The path of an authority's certificate; clients must show one that it signed.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    if client_authority is not None:
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_verify_locations(client_authority)
    return tls


class FaultProxy:
    """Forwards every request to ``uri``, unless ``fault(request)`` gives another answer to it."""

    def __init__(
        self,
        uri: str,
        fault: Callable[[Request], Reply | None] = lambda request: None,
        certificate: tuple[str, str] | None = None,
        port: int = 0,
        client_authority: str | None = None,
    ):
        self.fault = fault
        self.requests: list[Request] = []
        self._target = uri.removeprefix("http://")
        self._closed = threading.Event()
        self._connections: set[socket.socket] = set()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each answer waits 40 ms for its second half

            def handle_any(self) -> None:
                try:
                    proxy._handle(self)
                except OSError:  # the client has gone, or the proxy is being closed
                    self.close_connection = True

            def setup(self) -> None:
                super().setup()
                proxy._connections.add(self.connection)

            def finish(self) -> None:
                proxy._connections.discard(self.connection)
                super().finish()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *arguments) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        if certificate is not None:
            tls = server_tls(certificate, client_authority)
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self.uri = f"https://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *exception) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        size = int(handler.headers.get("Content-Length") or 0)
        request = Request(
            handler.command, handler.path, dict(handler.headers), handler.rfile.read(size)
        )
        self.requests.append(request)
        reply = self.fault(request)
        if reply is None or reply.forward:
            status, headers, body = self._forward(request)
        if reply is not None:
            if reply.silent:
                self._closed.wait()
            if reply.drop or reply.silent:
                handler.close_connection = True
                handler.connection.close()
                return
            status, headers, body = reply.status, reply.headers, reply.body
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if reply is not None and reply.endless:
            self._repeat(handler, body)
            return
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if reply is not None and reply.cut:
            handler.wfile.write(body[: len(body) // 2])
            handler.close_connection = True
            return
        handler.wfile.write(body)

    def _repeat(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.end_headers()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            while not self._closed.wait(0.02):
                handler.wfile.write(body)

    def _forward(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self._target, timeout=600)
        try:
            path = request.path
            if path.startswith("http://"):  # as to a proxy
                path = "/" + path.split("/", 3)[3]
            headers = {k: v for k, v in request.headers.items() if k.lower() != "host"}
            connection.request(request.method, path, request.body, headers)
            answer = connection.getresponse()
            kind = {"Content-Type": answer.headers.get("Content-Type", "")}
            return answer.status, kind, answer.read()
        except OSError:
            return 502, {}, b"no server"
        finally:
            connection.close()


class Times:
    """A fault for the first requests to a path; without one to those of spans and infos."""

    def __init__(self, times: int, reply: Reply, path: str | None = None):
        self.left, self.reply = times, reply
        self._paths = (SPANS, INFO) if path is None else (path,)
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply | None:
        with self._lock:
            if self.left and request.path in self._paths:
                self.left -= 1
                return self.reply
        return None


class TooLarge:
    """A fault for requests with spans that are larger than so many bytes."""

    def __init__(self, limit: int):
        self.limit = limit

    def __call__(self, request: Request) -> Reply | None:
        large = request.path == SPANS and len(request.body) > self.limit
        return Reply(413, b"<html>Too large</html>", HTML) if large else None
