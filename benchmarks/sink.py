"""A loopback server that takes what tracers send, and counts the spans that have arrived.

It answers as the servers of all tracers of this benchmark do, as far as their clients look at the
answers. A request is answered at once and read only when somebody asks for the count, so that
counting takes no processor time from the program that is measured.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import gzip
import json
import multiprocessing
import re
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

COUNT = "/_spans"  # what `spans_at` asks


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer."""

    _fields_ = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


def zstd_plain(body: bytes) -> bytes:
    """What a zstd stream holds, by the library that the core is linked with."""
    library = ctypes.CDLL(ctypes.util.find_library("zstd") or "libzstd.so.1")
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_decompressStream.argtypes = [ctypes.c_void_p] * 3
    library.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
    stream = library.ZSTD_createDStream()
    source = ctypes.create_string_buffer(body, len(body))
    room = ctypes.create_string_buffer(1 << 17)
    reading = _Buffer(ctypes.addressof(source), len(body), 0)
    plain = b""
    try:
        while True:
            writing = _Buffer(ctypes.addressof(room), len(room), 0)
            code = library.ZSTD_decompressStream(
                stream, ctypes.byref(writing), ctypes.byref(reading)
            )
            if library.ZSTD_isError(ctypes.c_size_t(code)):
                raise ValueError("not a zstd stream")
            plain += room.raw[: writing.pos]
            if reading.pos == len(body) and writing.pos < len(room):
                return plain
    finally:
        library.ZSTD_freeDStream(stream)


def plain_body(encoding: str, body: bytes) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "deflate":
        return zlib.decompress(body)
    if encoding == "zstd":
        return zstd_plain(body)
    return body


# ---- msgpack, as far as Datadog's agents get it ----


def _children(body: bytes, at: int) -> tuple[int, int]:
    """Where a msgpack value's head ends with its bytes, and how many values follow inside of it."""
    kind = body[at]
    if kind <= 0x7F or kind >= 0xE0 or kind in (0xC0, 0xC2, 0xC3):
        return at + 1, 0
    if kind <= 0x8F:
        return at + 1, 2 * (kind & 0x0F)
    if kind <= 0x9F:
        return at + 1, kind & 0x0F
    if kind <= 0xBF:
        return at + 1 + (kind & 0x1F), 0

    def number(width: int) -> int:
        return int.from_bytes(body[at + 1 : at + 1 + width], "big")

    if kind in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB):  # bytes and texts
        width = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}[kind]
        return at + 1 + width + number(width), 0
    if kind in (0xC7, 0xC8, 0xC9):  # extensions
        width = 1 << (kind - 0xC7)
        return at + 2 + width + number(width), 0
    if kind in (0xDC, 0xDD):  # arrays
        width = 2 << (kind - 0xDC)
        return at + 1 + width, number(width)
    if kind in (0xDE, 0xDF):  # maps
        width = 2 << (kind - 0xDE)
        return at + 1 + width, 2 * number(width)
    sizes = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
    sizes |= {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
    return at + 1 + sizes[kind], 0


def _skip(body: bytes, at: int) -> int:
    left = 1
    while left:
        at, inside = _children(body, at)
        left += inside - 1
    return at


def spans_of_datadog(body: bytes, version: str) -> int:
    """The spans of traces in v0.4 (an array of traces) or v0.5 (a table of texts before it)."""
    at = 0
    if version == "v0.5":
        at, _ = _children(body, at)
        at = _skip(body, at)
    at, traces = _children(body, at)
    spans = 0
    for _ in range(traces):
        at, inside = _children(body, at)
        spans += inside
        for _ in range(inside):
            at = _skip(body, at)
    return spans


# ---- what has arrived ----


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each part of a multipart body."""
    for part in body.split(b"--" + boundary)[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        if name := re.search(rb'name="([^"]+)"', head):
            yield name[1].decode(), content.removesuffix(b"\r\n")


class Counter:
    """Counts the spans of requests; of tracers that send starts and ends apart, those that have ended."""

    def __init__(self) -> None:
        self.spans = 0
        self._seen: set[str] = set()

    def _once(self, *names: str) -> None:
        new = {name for name in names if name} - self._seen
        self._seen |= new
        self.spans += len(new)

    def add(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Counts a request.

        Args:
            headers: With names in lower case.
        """
        path = urlsplit(path).path
        for pattern, count in self.COUNTS:
            if found := re.search(pattern, path):
                plain = plain_body(headers.get("content-encoding", ""), body)
                count(self, plain, headers, *found.groups())
                return

    def _otlp(self, body: bytes, headers: dict[str, str]) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        request = ExportTraceServiceRequest.FromString(body)
        self.spans += sum(
            len(scope.spans) for each in request.resource_spans for scope in each.scope_spans
        )

    def _datadog(self, body: bytes, headers: dict[str, str], version: str) -> None:
        self.spans += spans_of_datadog(body, version)

    def _llmobs(self, body: bytes, headers: dict[str, str]) -> None:
        sent = json.loads(body)
        for event in sent if isinstance(sent, list) else [sent]:
            self.spans += len(event["spans"])

    def _langsmith_parts(self, body: bytes, headers: dict[str, str]) -> None:
        boundary = headers["content-type"].partition("boundary=")[2].strip('"').encode()
        for name, content in _parts(body, boundary):
            operation, run, *field = name.split(".")
            if field or operation not in ("post", "patch"):
                continue
            if operation == "patch" or json.loads(content).get("end_time"):
                self._once(run)

    def _langsmith_batch(self, body: bytes, headers: dict[str, str]) -> None:
        sent = json.loads(body)
        runs = [run for run in sent.get("post") or [] if run.get("end_time")]
        self._once(*(run["id"] for run in runs + (sent.get("patch") or [])))

    def _opik(self, body: bytes, headers: dict[str, str]) -> None:
        spans = json.loads(body)["spans"]
        self._once(*(span["id"] for span in spans if span.get("end_time")))

    def _weave(self, body: bytes, headers: dict[str, str]) -> None:
        for item in json.loads(body)["batch"]:
            call = item.get("req", item)
            for key in ("end", "start", "complete"):
                call = call.get(key) or call
            if call.get("ended_at"):
                self._once(call["id"])

    COUNTS: list[tuple[str, Callable[..., None]]] = [
        (r"/v1/traces$", _otlp),
        (r"/(v0\.[45])/traces$", _datadog),
        (r"/api/v2/llmobs$", _llmobs),
        (r"/runs/multipart$", _langsmith_parts),
        (r"/runs/batch$", _langsmith_batch),
        (r"/v1/private/spans/batch$", _opik),
        (r"/calls?/(?:upsert_batch|complete)$", _weave),
    ]


# ---- how each is answered ----

EXPERIMENT = {
    "experiment_id": "0",
    "name": "Default",
    "artifact_location": "/tmp",
    "lifecycle_stage": "active",
}
USER = {"id": "1", "username": "benchmark", "entity": "benchmark", "flags": "{}", "teams": None}
DIGEST = {"digest": "0" * 43, "object_id": "object", "digests": []}


def answer_to(method: str, path: str, body: bytes) -> tuple[int, Any]:
    """The status and, as JSON, the body of an answer."""
    path = urlsplit(path).path
    if path.endswith("/version"):
        return 200, "3.17.2"
    if "/mlflow/traces" in path:
        sent = json.loads(body or b"{}")
        if "trace" in sent:
            tags = sent["trace"]["trace_info"].setdefault("tags", {})
            tags["mlflow.trace.spansLocation"] = "TRACKING_STORE"
        return 200, sent
    if "/mlflow/experiments" in path:
        return 200, {"experiment": EXPERIMENT}
    if path == "/info":  # both Datadog's agent and LangSmith are asked for it
        return 200, {
            "version": "7.70.0",
            "endpoints": ["/v0.4/traces", "/v0.5/traces", "/evp_proxy/v2/", "/evp_proxy/v4/"],
            "client_drop_p0s": True,
            "batch_ingest_config": {
                "use_multipart_endpoint": True,
                "size_limit": 100,
                "size_limit_bytes": 20971520,
                "scale_up_nthreads_limit": 16,
                "scale_up_qsize_trigger": 1000,
                "scale_down_nempty_trigger": 4,
            },
            "instance_flags": {"zstd_compression_enabled": True},
        }
    if re.search(r"/v0\.[45]/traces$", path):
        return 200, {"rate_by_service": {"service:,env:": 1.0}}
    if "/v1/private/" in path:
        return (200, {}) if method == "GET" else (204, None)
    if path.endswith("/graphql"):
        project = {"name": "benchmark", "id": "1", "entityName": "benchmark"}
        return 200, {
            "data": {
                "viewer": USER,
                "project": project,
                "upsertModel": {"model": project, "project": project, "inserted": True},
            }
        }
    if path.endswith("/server_info"):
        return 200, {
            "min_required_weave_python_version": "0.0.1",
            "trace_server_version": "99.0.0",
        }
    if re.search(r"/(obj|objs|object|objects|file|files|table)/", path) or path.endswith("/files"):
        return 200, DIGEST
    return 200, {}


def _serve(connection: Any, log: str | None) -> None:
    waiting: list[tuple[str, dict[str, str], bytes]] = []
    counter = Counter()
    counting = threading.Lock()

    def counted() -> int:
        with counting:
            while waiting:
                counter.add(*waiting.pop(0))
            return counter.spans

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            body = self._body()
            if self.path == COUNT:
                status, content = 200, str(counted())
            else:
                status, content = answer_to(self.command, self.path, body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                waiting.append((self.path, headers, body))
                if log:
                    with open(log, "a") as file:
                        print(self.command, self.path, len(body), body[:300], file=file)
            plain = isinstance(content, str)
            sent = content.encode() if plain else json.dumps(content).encode()
            if content is None or self.command == "HEAD":
                sent = b""
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if plain else "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_POST = do_PUT = do_PATCH = do_HEAD = do_DELETE = _answer

        def log_message(self, *arguments: Any) -> None:
            pass

    port = connection.recv()
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    connection.send(server.server_address[1])
    server.serve_forever()


def spans_at(uri: str) -> int:
    """How many spans have arrived at a sink."""
    with urllib.request.urlopen(uri + COUNT, timeout=60) as answer:
        return int(answer.read())


def wait_for_spans(uri: str, spans: int, seconds: float, quiet: float = 2.0) -> int:
    """Waits until so many have arrived, or nothing has come for ``quiet`` seconds; and says how many."""
    deadline = time.monotonic() + seconds
    last, since = spans_at(uri), time.monotonic()
    while last < spans and time.monotonic() < min(deadline, since + quiet):
        time.sleep(0.05)
        now = spans_at(uri)
        if now != last:
            last, since = now, time.monotonic()
    return last


class Sink:
    """A sink in a process of its own, as a context manager; ``uri`` is where it listens.

    Args:
        port: Where it listens; a free port where it is 0.
        log: A file that gets a line for each request.
    """

    def __init__(self, port: int = 0, log: str | None = None):
        self._port, self._log = port, log

    def __enter__(self) -> Sink:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._log), daemon=True)
        self._process.start()
        theirs.close()  # so that a sink which cannot start is noticed
        ours.send(self._port)
        self.uri = f"http://127.0.0.1:{ours.recv()}"
        return self

    @property
    def spans(self) -> int:
        return spans_at(self.uri)

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.join()


if __name__ == "__main__":
    import sys

    with Sink(int(sys.argv[1]), sys.argv[2]) as sink:
        print(sink.uri, flush=True)
        time.sleep(86400)
