"""OpenTelemetry's environment variables, as MLflow reads them: whether traces go to a collector,
where that is, and what is said of the process that they come from.

A collector is a destination like any other; its URI is the endpoint's, marked by ``otlp+``:
``otlp+http://host:4318/v1/traces``, ``otlp+https://...``, ``otlp+grpc://host:4317`` (plain text) and
``otlp+grpcs://host:4317`` (TLS).
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any
from urllib.parse import urlsplit

from mlflow_fasttrace._internal.base import log
from mlflow_fasttrace._internal.base.version import mlflow_version

SCHEME = "otlp+"
_TRACES_PATH = "/v1/traces"

_NAMES = (
    "CERTIFICATE",
    "CLIENT_CERTIFICATE",
    "CLIENT_KEY",
    "COMPRESSION",
    "HEADERS",
    "INSECURE",
    "TIMEOUT",
)

#: Variables that decide how a sender reaches a collector; their values never leave the environment.
VARIABLES = tuple(
    f"OTEL_EXPORTER_OTLP_{signal}{name}" for name in _NAMES for signal in ("TRACES_", "")
)


def variable(name: str) -> str | None:
    """The variable for traces, or the one for all signals."""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or os.environ.get(
        f"OTEL_EXPORTER_OTLP_{name}"
    )


def _enabled(name: str, default: bool) -> bool:
    text = os.environ.get(name, "").strip().lower()
    return default if text not in ("true", "1", "false", "0") else text in ("true", "1")


def is_collector(uri: str) -> bool:
    return uri.startswith(SCHEME)


def collector_uri() -> str | None:
    """The collector that traces go to, if MLflow would send them to one."""
    if not _enabled("MLFLOW_ENABLE_OTLP_EXPORTER", True):
        return None
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not endpoint:
        base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        if not base:
            return None
        endpoint = base.rstrip("/") + _TRACES_PATH
    # gRPC unless something else is said, as in MLflow.
    protocol = variable("PROTOCOL") or "grpc"
    if protocol == "grpc":
        return _grpc_uri(endpoint)
    if protocol != "http/protobuf":
        log.warn(
            f"Unsupported OTLP protocol {protocol!r}: traces go by http/protobuf. Set "
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL to 'grpc' or 'http/protobuf'."
        )
    return SCHEME + (endpoint if "://" in endpoint else "http://" + endpoint)


def _grpc_uri(endpoint: str) -> str:
    if importlib.util.find_spec("grpc") is None:
        log.warn(
            f"Traces for {endpoint} wait on disk: gRPC is not installed. Run `pip install "
            "opentelemetry-exporter-otlp-proto-grpc`, or set "
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf for a collector's HTTP port."
        )
    scheme = urlsplit(endpoint).scheme if "://" in endpoint else ""
    target = endpoint.partition("://")[2] if scheme else endpoint
    insecure = variable("INSECURE")
    plain = scheme != "https" and (
        insecure.lower() == "true" if insecure is not None else scheme == "http"
    )
    return f"{SCHEME}{'grpc' if plain else 'grpcs'}://{target.partition('/')[0]}"


def warn_of_metrics() -> None:
    """MLflow also exports a histogram of the spans' durations; here nothing does."""
    if os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
        log.warn(
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is set, but durations of spans are not exported."
        )


def both() -> bool:
    """Whether traces that go to a collector go where they would go without it, too."""
    return _enabled("MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT", False)


def genai_names() -> bool:
    """Whether a collector gets spans in the words of OpenTelemetry's conventions for generative AI."""
    return _enabled("MLFLOW_ENABLE_OTEL_GENAI_SEMCONV", False)


def resource() -> dict[str, Any]:
    """What a collector is told of this process. Without OTEL_SERVICE_NAME and
    OTEL_RESOURCE_ATTRIBUTES: of the library alone, as from MLflow."""
    sdk = {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "mlflow",
        "telemetry.sdk.version": mlflow_version(),
    }
    if not (os.environ.get("OTEL_SERVICE_NAME") or os.environ.get("OTEL_RESOURCE_ATTRIBUTES")):
        return sdk
    from opentelemetry.sdk.resources import Resource

    return {**Resource.create().attributes, **sdk}
