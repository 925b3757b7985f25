"""Delivery to an OpenTelemetry collector, by http/protobuf or gRPC.

What is sent is in collector_delivery.py.
"""

from __future__ import annotations

import base64
import gzip
import logging
import zlib
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

import certifi
import requests
import urllib3
from opentelemetry.util.re import parse_env_headers

from mlflow_fasttrace._internal.base.texts import one_line
from mlflow_fasttrace._internal.config import otlp
from mlflow_fasttrace._internal.sender.answers import Answer
from mlflow_fasttrace._internal.sender.exceptions import (
    Rejected,
    TooLarge,
    TransientError,
    Unavailable,
)
from mlflow_fasttrace._internal.sender.transport import (
    bound_answers,
    network_settings,
    partial_success,
    read_answer,
    retry_after,
)

logger = logging.getLogger("mlflow_fasttrace.sender")

_DEFAULT_TIMEOUT = 10.0
#: Statuses below 500 that another configuration, or another hour, would cure: nothing is given up.
_WAITS = frozenset({401, 403, 404, 405, 407, 408, 415, 421, 425, 429})
_BUSY = frozenset({502, 503, 504})
_SIGN_IN_HINT = " (set OTEL_EXPORTER_OTLP_HEADERS; nothing is lost meanwhile)"
_GRPC_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Collector(Protocol):
    """Takes encoded requests."""

    def send(self, body: bytes) -> None:
        """Sends an OTLP request.

        Args:
            body: Protobuf.

        Raises:
            Unavailable: the collector takes no request now.
            TooLarge: it takes less at a time.
            Rejected: it will never take this one.
            TransientError: it could not take this one, by the request's fault or its own.
        """


def open_collector(uri: str) -> Collector:
    """The collector of a URI.

    Args:
        uri: See config/otlp.py.

    Raises:
        Unavailable: gRPC is not installed.
        Exception: the environment names certificates that cannot be read, say.
    """
    if uri.startswith((otlp.SCHEME + "grpc://", otlp.SCHEME + "grpcs://")):
        return GrpcCollector(uri)
    return HttpCollector(uri)


def _timeout() -> float:
    try:
        return float(otlp.variable("TIMEOUT") or _DEFAULT_TIMEOUT)
    except ValueError:
        return _DEFAULT_TIMEOUT


def _headers() -> dict[str, str]:
    return dict(parse_env_headers(otlp.variable("HEADERS") or "", liberal=True))


def _read(name: str) -> bytes | None:
    path = otlp.variable(name)
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()


def _log_partial_success(answer: bytes) -> None:
    partial = partial_success(answer)
    if partial is not None and (partial.rejected or partial.message):
        logger.error(
            "the collector left out %d spans: %s", partial.rejected, one_line(partial.message)
        )


class HttpCollector:
    """A collector that is reached by http/protobuf."""

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
        bound_answers(self._pool.connection_from_url(self._url))

    def _make_pool(self) -> urllib3.PoolManager:
        """Connections by the proxies and certificates that requests finds, which OpenTelemetry's
        exporter uses."""
        with requests.Session() as session:
            settings = network_settings(session, self._url, otlp.variable("CERTIFICATE") or True)
        verify = settings.verify
        options: dict[str, Any] = {
            "maxsize": 2,
            "timeout": urllib3.Timeout(total=_timeout()),
            "retries": False,
            "ca_certs": verify if isinstance(verify, str) else certifi.where(),
            "cert_file": otlp.variable("CLIENT_CERTIFICATE"),
            "key_file": otlp.variable("CLIENT_KEY"),
        }
        proxy = requests.utils.select_proxy(self._url, settings.proxies)
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
            _log_partial_success(answer.body)
            return
        text = one_line(answer.body[:300].decode("utf-8", "replace"))
        reason = f"{self._host} answered {answer.status}: {text}"
        if answer.status in (401, 403):
            reason += _SIGN_IN_HINT
        if answer.status == 413:
            raise TooLarge(reason)
        if 400 <= answer.status < 500 and answer.status not in _WAITS:
            raise Rejected(reason)
        if answer.status >= 500 and answer.status not in _BUSY:
            raise TransientError(reason)
        raise Unavailable(
            reason,
            retry_after(answer.headers.get("retry-after")),
            kind=answer.status,
            unauthenticated=answer.status in (401, 403),
        )

    def _post(self, body: bytes) -> Answer:
        for last in (False, True):
            try:
                response = self._pool.request(
                    "POST", self._url, body=body, headers=self._headers, preload_content=False
                )
                return Answer(response.status, response.headers, read_answer(response, _timeout()))
            except urllib3.exceptions.ProtocolError as error:
                # The collector may have closed the connection meanwhile: a new one is tried once.
                if last:
                    raise Unavailable(
                        f"{self._host} does not answer: {type(error).__name__}", kind=type(error)
                    ) from error
            except Exception as error:
                detail = f" ({error})" if isinstance(error, urllib3.exceptions.SSLError) else ""
                raise Unavailable(
                    f"{self._host} does not answer: {type(error).__name__}{detail}",
                    kind=type(error),
                ) from error
        raise AssertionError("unreachable")


def _compression() -> str | None:
    value = (otlp.variable("COMPRESSION") or "none").strip().lower()
    return value if value in ("gzip", "deflate") else None


class GrpcCollector:
    """A collector that is reached by gRPC, by grpcio itself: OpenTelemetry's exporter tells success
    from failure only."""

    def __init__(self, uri: str):
        try:
            import grpc
        except ImportError:
            raise Unavailable(
                "gRPC is not installed: run `pip install opentelemetry-exporter-otlp-proto-grpc`, "
                "or set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf",
                kind=ImportError,
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
            call: Any = error  # what is raised is a grpc.Call, too
            code, details = call.code(), one_line(call.details() or "")
            reason = f"{self._target} answered {code.name}: {details[:300]}"
            codes = self._grpc.StatusCode
            unauthenticated = code in (codes.UNAUTHENTICATED, codes.PERMISSION_DENIED)
            if unauthenticated:
                reason += _SIGN_IN_HINT
            if code is codes.UNAVAILABLE:
                reason += (
                    " (this is gRPC; for a collector's HTTP port set "
                    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf)"
                )
            if code is codes.RESOURCE_EXHAUSTED and "larger than max" in details:
                raise TooLarge(reason) from None
            if code is codes.INVALID_ARGUMENT:
                raise Rejected(reason) from None
            if code in (codes.INTERNAL, codes.UNKNOWN):
                raise TransientError(reason) from None
            raise Unavailable(reason, kind=code, unauthenticated=unauthenticated) from None
        _log_partial_success(answer)
