"""A stand-in for the tracking server that accepts everything at once and counts the spans: so that
the client is what is measured, with delivery really happening."""

from __future__ import annotations

import json
import multiprocessing
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def _serve(connection, count) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path.startswith("/version"):
                self._answer(b"3.17.2")
                return
            experiment = {
                "experiment_id": "0",
                "name": "Default",
                "artifact_location": "/tmp",
                "lifecycle_stage": "active",
            }
            self._answer(json.dumps({"experiment": experiment}).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.startswith("/v1/traces"):
                request = ExportTraceServiceRequest.FromString(body)
                spans = sum(
                    len(scope.spans) for r in request.resource_spans for scope in r.scope_spans
                )
                with count.get_lock():
                    count.value += spans
                self._answer(b"{}")
                return
            sent = json.loads(body)
            if "trace" in sent:
                tags = sent["trace"]["trace_info"].setdefault("tags", {})
                tags["mlflow.trace.spansLocation"] = "TRACKING_STORE"
            self._answer(json.dumps(sent).encode())

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    connection.send(server.server_address[1])
    server.serve_forever()


class Sink:
    """A context manager; ``uri`` is where it listens, ``spans`` what it has counted."""

    def __enter__(self) -> Sink:
        context = multiprocessing.get_context("spawn")
        self._count = context.Value("q", 0)
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._count), daemon=True)
        self._process.start()
        self.uri = f"http://127.0.0.1:{ours.recv()}"
        return self

    @property
    def spans(self) -> int:
        return self._count.value

    def wait_for(self, spans: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        last, since = self.spans, time.monotonic()
        while self.spans < spans and time.monotonic() < deadline:
            time.sleep(0.05)
            if self.spans != last:
                last, since = self.spans, time.monotonic()
            elif time.monotonic() - since > 15:
                return  # nothing comes any more

    def __exit__(self, *exc) -> None:
        self._process.kill()
        self._process.join()
