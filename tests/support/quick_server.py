"""A server that takes everything at once, and keeps nothing of it but what is asked for."""

from __future__ import annotations

import json
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PART = 1 << 20


class QuickServer:
    """Answers as an MLflow server does; the bodies of spans are counted and dropped.

    Args:
        host: Where it listens. A sender compresses requests to any but 127.0.0.1.
        limit: Requests with spans that are larger are refused (413), in bytes.
    """

    def __init__(self, host: str = "127.0.0.1", limit: int | None = None):
        self.sizes: list[int] = []  # of the bodies that held spans, decompressed
        self.infos: list[dict] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._answer(200, {"experiment": {"experiment_id": "0", "name": "Default"}})

            def do_POST(self) -> None:
                if self.path != "/v1/traces":
                    body = json.loads(self._plain(keep=True)[1])
                    server.infos.append(body)
                    self._answer(200, body)
                    return
                size = self._plain()[0]
                too_large = limit is not None and size > limit
                if not too_large:
                    server.sizes.append(size)
                self._answer(413 if too_large else 200, {})

            def _plain(self, *, keep: bool = False) -> tuple[int, bytes]:
                left, size, kept = int(self.headers["Content-Length"]), 0, b""
                packed = self.headers.get("Content-Encoding") == "gzip"
                unpack = zlib.decompressobj(31).decompress if packed else bytes
                while left:
                    part = self.rfile.read(min(left, _PART))
                    left -= len(part)
                    plain = unpack(part)
                    size += len(plain)
                    kept += plain if keep else b""
                return size, kept

            def _answer(self, status: int, content: dict) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments) -> None:
                pass

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://{host}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> QuickServer:
        return self

    def __exit__(self, *exception) -> None:
        self._server.shutdown()
        self._server.server_close()
