"""An OpenTelemetry collector on loopback that keeps what it gets, and answers as a test wants."""

from __future__ import annotations

import gzip
import re
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.traces import user_frames

_DECODERS = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}


class Receiver:
    """A collector, from its construction to the end of ``with``.

    Attributes:
        answers: The next answers, each a status and headers; once there are none, 200.
        refuses: Whether a request is answered with ``refusal``.
    """

    def __init__(self, port: int = 0):
        self.requests: list[ExportTraceServiceRequest] = []  # those that were accepted
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.refuses = lambda request: False
        self.refusal = 400
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status, headers = receiver._take(self.path, dict(self.headers.items()), body)
                self.send_response(status)
                for name, value in {"content-length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def _take(self, path: str, headers: dict[str, str], body: bytes):
        if not path.endswith("/traces"):  # metrics
            return 200, {}
        headers = {name.lower(): value for name, value in headers.items()}
        self.paths.append(path)
        self.headers.append(headers)
        if self.answers:
            status, more = self.answers.pop(0)
            if status != 200:
                return status, more
        body = _DECODERS[headers.get("content-encoding")](body)
        request = ExportTraceServiceRequest.FromString(body)
        if self.refuses(request):
            return self.refusal, {}
        self.requests.append(request)
        return 200, {}

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *exception) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[dict[str, Any]]:
        return [span for request in list(self.requests) for span in spans_of(request)]


def _value(value) -> Any:
    """The kind of an AnyValue stays visible: 1, 1.0, "1" and True differ."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _pairs(value.kvlist_value.values)
    return (kind, repr(getattr(value, kind))) if kind else None


def _pairs(pairs) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def spans_of(request: ExportTraceServiceRequest) -> list[dict[str, Any]]:
    """All that a collector sees of each span."""
    return [
        {
            "resource": _pairs(group.resource.attributes),
            "scope": (scope.scope.name, scope.scope.version, _pairs(scope.scope.attributes)),
            "trace": span.trace_id.hex(),
            "id": span.span_id.hex(),
            "parent": span.parent_span_id.hex(),
            "name": span.name,
            "kind": span.kind,
            "flags": span.flags,
            "state": span.trace_state,
            "start": span.start_time_unix_nano,
            "end": span.end_time_unix_nano,
            "attributes": _pairs(span.attributes),
            "events": [
                {"name": e.name, "time": e.time_unix_nano, "attributes": _pairs(e.attributes)}
                for e in span.events
            ],
            "links": [
                (link.trace_id.hex(), link.span_id.hex(), _pairs(link.attributes), link.flags)
                for link in span.links
            ],
            "status": (span.status.code, span.status.message),
        }
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def trees(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The spans as trees, in the order of their start, without what differs from run to run."""
    spans = sorted(spans, key=lambda span: (span["start"], span["id"]))
    ids: dict[str, str] = {}
    for place, span in enumerate(spans):
        ids.setdefault(span["trace"], f"<trace {place}>")
        ids[span["id"]] = f"<span {place}>"

    def named(value: Any) -> Any:
        if isinstance(value, str):
            for found, name in ids.items():
                value = value.replace(found, name)
            return re.sub("0x[0-9a-f]+", "0x0", value)
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(named(item) for item in value)
        return value

    def event(found: dict[str, Any]) -> dict[str, Any]:
        attributes = dict(found["attributes"])
        if "exception.stacktrace" in attributes:
            kind, text = attributes["exception.stacktrace"]
            attributes["exception.stacktrace"] = (kind, user_frames(eval(text)))
        return {"name": found["name"], "attributes": named(attributes)}

    def tree(span: dict[str, Any]) -> dict[str, Any]:
        left_out = ("trace", "id", "parent", "start", "end", "events")
        attributes = dict(span["attributes"])
        if "mlflow.spanStartTimeNs" in attributes:
            attributes["mlflow.spanStartTimeNs"] = attributes["mlflow.spanStartTimeNs"][0]
        return {
            **{key: named(value) for key, value in span.items() if key not in left_out},
            "attributes": named(attributes),
            "events": [event(found) for found in span["events"]],
            "children": [tree(child) for child in spans if child["parent"] == span["id"]],
        }

    known = {span["id"] for span in spans}
    return [tree(span) for span in spans if span["parent"] not in known]
