"""Delivery to an OpenTelemetry collector, by http/protobuf or gRPC.

A collector knows spans and nothing of traces: spans go as they end, and what MLflow keeps of a trace
besides is not sent, but for the tags that the program set, which travel with the root.
"""

from __future__ import annotations

import base64
import gzip
import json
import logging
import time
import zlib
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
import urllib3
from opentelemetry.util.re import parse_env_headers

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.config import otlp
from mlflow_fasttrace._internal.sender import assemble, loop
from mlflow_fasttrace._internal.sender.assemble import TraceBuffer
from mlflow_fasttrace._internal.sender.delivery import Away, Failed, Refused
from mlflow_fasttrace._internal.sender.sources import Entry
from mlflow_fasttrace._internal.spool.records import PHASE_OPEN

logger = logging.getLogger("mlflow_fasttrace.sender")

SEND_AFTER_SECONDS = 0.2  # a span waits for others that share its request
REQUEST_SPANS = 512
REQUEST_BYTES = 1 << 20  # gRPC servers take 4 MB unless they are told otherwise

_DEFAULT_TIMEOUT = 10.0
# What another configuration, or another hour, would cure: nothing is given up for it.
_WAITS = frozenset({401, 403, 404, 405, 407, 408, 415, 421, 425, 429})
_BUSY = frozenset({502, 503, 504})
_GRPC_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_TAG_PREFIX = "mlflow.traceTag."
_NO_ATTRIBUTES = _core.encode({})
_KIND_INTERNAL = 1  # of OTLP
_PARENT_OFFSET, _NIL = 30, 0xC0  # of a span record, see ext/record.h

#: A span as collector_request() takes it.
_Span = tuple[bytes, int, bytes, "bytes | None"]


class Collector(Protocol):
    """Takes encoded requests.

    Raises:
        Away: it takes none now.
        Refused: it will never take this one.
        Failed: it could not take this one, which may be the request's fault or its own.
    """

    def send(self, body: bytes) -> None: ...


def open_collector(uri: str) -> Collector:
    if uri.startswith((otlp.SCHEME + "grpc://", otlp.SCHEME + "grpcs://")):
        return GrpcCollector(uri)
    return HttpCollector(uri)


def _timeout() -> float:
    try:
        return float(otlp.variable("TIMEOUT") or _DEFAULT_TIMEOUT)
    except ValueError:
        return _DEFAULT_TIMEOUT


def _headers() -> dict[str, str]:
    return parse_env_headers(otlp.variable("HEADERS") or "", liberal=True)


def _read(name: str) -> bytes | None:
    path = otlp.variable(name)
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()


def _report_partial_success(answer: bytes) -> None:
    """A collector may leave out spans of a request that it takes; it must not get them again."""
    if not answer:
        return
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except Exception:  # not OTLP's answer
        return
    if partial.rejected_spans or partial.error_message:
        logger.error(
            "the collector left out %d spans: %s", partial.rejected_spans, partial.error_message
        )


class HttpCollector:
    """http/protobuf."""

    def __init__(self, uri: str):
        parts = urlsplit(uri.removeprefix(otlp.SCHEME))
        credentials, _, netloc = parts.netloc.rpartition("@")
        self._url = urlunsplit(parts._replace(netloc=netloc))
        self._host = f"{parts.scheme}://{netloc}"
        self._headers = {
            "content-type": "application/x-protobuf",
            "user-agent": "mlflow-fasttrace",
            **_headers(),
        }
        if credentials:
            self._headers.setdefault(
                "authorization", "Basic " + base64.b64encode(unquote(credentials).encode()).decode()
            )
        self._compress = _compression()
        if self._compress is not None:
            self._headers["content-encoding"] = self._compress
        self._pool = self._make_pool()

    def _make_pool(self) -> urllib3.PoolManager:
        """Proxies and certificates as requests finds them, which OpenTelemetry's exporter uses."""
        with requests.Session() as session:
            settings = session.merge_environment_settings(
                self._url, {}, None, otlp.variable("CERTIFICATE") or True, None
            )
        verify = settings["verify"]
        options: dict[str, Any] = {
            "maxsize": 2,
            "timeout": urllib3.Timeout(total=_timeout()),
            "retries": False,
            "ca_certs": verify if isinstance(verify, str) else requests.certs.where(),
            "cert_file": otlp.variable("CLIENT_CERTIFICATE"),
            "key_file": otlp.variable("CLIENT_KEY"),
        }
        proxy = requests.utils.select_proxy(self._url, settings["proxies"])
        if proxy is None:
            return urllib3.PoolManager(**options)
        proxy = requests.utils.prepend_scheme_if_needed(proxy, "http")
        user, password = requests.utils.get_auth_from_url(proxy)
        if user:
            options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}")
        return urllib3.ProxyManager(proxy, **options)

    def send(self, body: bytes) -> None:
        if self._compress == "gzip":
            body = gzip.compress(body, compresslevel=5)
        elif self._compress == "deflate":
            body = zlib.compress(body)
        answer = self._post(body)
        if 200 <= answer.status < 300:
            _report_partial_success(answer.data)
            return
        text = answer.data[:300].decode("utf-8", "replace")
        reason = f"{self._host} answered {answer.status}: {text}"
        if answer.status in (401, 403):
            reason += " (set OTEL_EXPORTER_OTLP_HEADERS; nothing is lost meanwhile)"
        if 400 <= answer.status < 500 and answer.status not in _WAITS:
            raise Refused(reason)
        if answer.status >= 500 and answer.status not in _BUSY:
            raise Failed(reason)
        raise Away(
            reason,
            _seconds(answer.headers.get("retry-after")),
            unknown_to_it=answer.status in (401, 403),
        )

    def _post(self, body: bytes) -> urllib3.BaseHTTPResponse:
        for last in (False, True):
            try:
                return self._pool.request("POST", self._url, body=body, headers=self._headers)
            except urllib3.exceptions.ProtocolError as error:
                # A kept connection that the collector has closed meanwhile: once more on a new one.
                if last:
                    raise Away(f"{self._host} does not answer: {type(error).__name__}") from error
            except Exception as error:
                detail = f" ({error})" if isinstance(error, urllib3.exceptions.SSLError) else ""
                raise Away(
                    f"{self._host} does not answer: {type(error).__name__}{detail}"
                ) from error
        raise AssertionError("unreachable")


def _compression() -> str | None:
    value = (otlp.variable("COMPRESSION") or "none").strip().lower()
    return value if value in ("gzip", "deflate") else None


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for."""
    try:
        return urllib3.Retry().parse_retry_after(retry_after) if retry_after else None
    except urllib3.exceptions.InvalidHeader:
        return None


class GrpcCollector:
    """gRPC, by grpcio itself: OpenTelemetry's exporter tells success from failure only."""

    def __init__(self, uri: str):
        try:
            import grpc
        except ImportError:
            raise Away(
                "gRPC is not installed: run `pip install opentelemetry-exporter-otlp-proto-grpc`, "
                "or set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf"
            ) from None
        self._grpc = grpc
        scheme, _, self._target = uri.removeprefix(otlp.SCHEME).partition("://")
        compression = (
            grpc.Compression.Gzip if _compression() == "gzip" else grpc.Compression.NoCompression
        )
        if scheme == "grpc":
            channel = grpc.insecure_channel(self._target, compression=compression)
        else:
            credentials = grpc.ssl_channel_credentials(
                _read("CERTIFICATE"), _read("CLIENT_KEY"), _read("CLIENT_CERTIFICATE")
            )
            channel = grpc.secure_channel(self._target, credentials, compression=compression)
        self._export = channel.unary_unary(_GRPC_METHOD)  # bytes in, bytes out
        self._metadata = tuple(_headers().items())

    def send(self, body: bytes) -> None:
        try:
            answer = self._export(body, timeout=_timeout(), metadata=self._metadata)
        except self._grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            reason = f"{self._target} answered {code.name}: {details[:300]}"
            if code is self._grpc.StatusCode.UNAVAILABLE:
                reason += (
                    " (this is gRPC; for a collector's HTTP port set "
                    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf)"
                )
            too_large = (
                code is self._grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details
            )
            if too_large or code is self._grpc.StatusCode.INVALID_ARGUMENT:
                raise Refused(reason) from None
            if code in (self._grpc.StatusCode.INTERNAL, self._grpc.StatusCode.UNKNOWN):
                raise Failed(reason) from None
            raise Away(
                reason, unknown_to_it=code is self._grpc.StatusCode.UNAUTHENTICATED
            ) from None
        _report_partial_success(answer)


def in_genai_names(record: bytes) -> tuple[int, dict[str, Any], bytes]:
    """A span in the words of OpenTelemetry's conventions for generative AI, by MLflow's own
    translation: its kind, attributes and name."""
    from mlflow.tracing.export.genai_semconv.translator import translate_span_to_genai
    from opentelemetry.sdk.trace import ReadableSpan

    fields = json.loads(_core.span_json(record))
    span = ReadableSpan(name=fields["name"], attributes=fields["attributes"])
    try:
        span = translate_span_to_genai(span)
    except Exception as error:  # a span of odd content goes as it is, as in MLflow
        logger.warning("a span is not translated: %s: %s", type(error).__name__, error)
    return span.kind.value + 1, dict(span.attributes), span.name.encode("utf-8", "replace")


class CollectorSender(loop.Sender):
    """Serves a spool whose destination is a collector."""

    keeps_records = False

    def __init__(self, state: str | None, rings: str | None, uri: str):
        super().__init__(state, rings, uri)
        self.assembler = Assembler()
        self._collector: Collector | None = None
        self._unsettled: set[bytes] = (
            set()
        )  # traces of the batch with spans that stay where they are

    def _deliver_batch(self, traces: list[TraceBuffer]) -> None:
        if self._collector is None:
            try:
                self._collector = open_collector(self.uri)
            except Away:
                raise
            except Exception as error:
                raise Away(f"the collector cannot be reached: {error}") from error
        groups: dict[tuple[bytes, bool], list[tuple[TraceBuffer, Entry]]] = {}
        for trace in traces:
            if trace.attachments:
                logger.warning(
                    "%s: attachments do not travel to a collector; they are left out",
                    trace.mlflow_id,
                )
            origin = trace.info.destination if trace.info is not None else {}
            resource = _core.encode(origin.get("resource") or otlp.resource())
            group = groups.setdefault((resource, bool(origin.get("genai"))), [])
            group += [(trace, entry) for entry in trace.spans]
        self._failures = []
        self._unsettled.clear()
        self._accepted = 0
        try:
            for (resource, genai), spans in groups.items():
                for chunk in _chunks(spans):
                    self._send(resource, genai, chunk)
            left = {trace.trace_id for trace, _reason in self._failures} | self._unsettled
            for trace in traces:
                if trace.trace_id not in left:
                    self._done(trace)
            self._judge_failures()
        except Away:
            self.assembler.drop_packed()  # what was sent is not sent again
            raise
        if left:
            self.assembler.drop_packed()
        self.backoff.succeeded()
        self._set_server_state(loop.SERVER_ANSWERS)

    def _send(self, resource: bytes, genai: bool, spans: list[tuple[TraceBuffer, Entry]]) -> None:
        """One request; where it is refused, halves, down to the span that is to blame."""
        prepared = [_prepared(trace, entry.record, genai) for trace, entry in spans]
        body, damaged = _core.collector_request(prepared, resource, not genai)
        for index in damaged:
            logger.error("a span record of %s cannot be encoded", spans[index][0].mlflow_id)
        try:
            self._collector.send(body)
            self._accepted += 1
        except (Refused, Failed) as reason:
            if len(spans) > 1:
                half = len(spans) // 2
                self._send(resource, genai, spans[:half])
                self._send(resource, genai, spans[half:])
                return
            if isinstance(reason, Failed):
                self._failed(spans[0][0], reason)
                return
            if not self._set_span_aside(*spans[0], reason):
                return
        for _trace, entry in spans:
            entry.done = True
            entry.source.delivered_one()

    def _upload_spans(self, trace: TraceBuffer) -> bool:
        return False  # a collector keeps no files

    def _takes_what_it_took(self) -> bool:
        return False  # a collector would have it twice

    def _set_span_aside(self, trace: TraceBuffer, entry: Entry, reason: Exception) -> bool:
        """A dead letter of one span, with the record that says where it was to go. Whether nothing
        is left to do."""
        if self.state is None:
            logger.error("a span of %s is refused and lost: %s", trace.mlflow_id, reason)
            return True
        record = trace.record_to_keep()
        records = [entry.record] if record is None else [record, entry.record]
        name = f"{trace.trace_id.hex()}-{entry.record[22:30].hex()}"
        if not self._write_dead_letter(name, records, reason):
            self._unsettled.add(trace.trace_id)
            self._keep_for_later(trace)
            return False
        logger.error("a span of %s is refused and set aside: %s", trace.mlflow_id, reason)
        return True


def _prepared(trace: TraceBuffer, record: bytes, genai: bool) -> _Span:
    tags: dict[str, Any] = {}
    # Beside MLflow nothing of the trace travels with its root: the server has it from MLflow.
    if trace.info is not None and _is_root(record) and "collector" not in trace.info.destination:
        tags = {
            _TAG_PREFIX + key: value
            for key, value in trace.info.info["tags"].items()
            if not key.startswith("mlflow.")
        }
    if genai:
        kind, attributes, name = in_genai_names(record)
        return record, kind, _core.encode({**attributes, **tags}), name
    return record, _KIND_INTERNAL, _core.encode(tags) if tags else _NO_ATTRIBUTES, None


def _is_root(record: bytes) -> bool:
    return record[_PARENT_OFFSET] == _NIL


def _chunks(spans: list[tuple[TraceBuffer, Entry]]) -> list[list[tuple[TraceBuffer, Entry]]]:
    chunks: list[list[tuple[TraceBuffer, Entry]]] = []
    size = 0
    for trace, entry in spans:
        size += len(entry.record)
        if not chunks or len(chunks[-1]) >= REQUEST_SPANS or size > REQUEST_BYTES:
            chunks.append([])
            size = len(entry.record)
        chunks[-1].append((trace, entry))
    return chunks


class Assembler(assemble.Assembler):
    """Spans are ready when they are there; they wait a moment for others."""

    def ready(self, everything: bool) -> list[TraceBuffer]:
        now = time.monotonic()
        if not (
            everything
            or self.bytes >= REQUEST_BYTES
            or any(now - trace.since >= SEND_AFTER_SECONDS for trace in self.open.values())
        ):
            return []
        return [trace for trace in self.open.values() if _is_ready(trace, now - trace.since)]

    def orphans(self) -> list[TraceBuffer]:
        """None: spans that nothing else is known of are sent all the same."""
        return []


def _is_ready(trace: TraceBuffer, waited: float) -> bool:
    if trace.info is None:
        return waited >= assemble.ORPHAN_AFTER_SECONDS
    # The record of a root's end, which has the trace's tags, follows the root at once.
    return (
        trace.info.phase != PHASE_OPEN
        or waited >= assemble.OPEN_AFTER_SECONDS
        or not any(_is_root(entry.record) for entry in trace.spans)
    )
