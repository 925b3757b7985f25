"""OpenTelemetry's environment variables, read as MLflow reads them: whether traces go to a
collector, where that is, and the resource that they come from.

A collector is a destination like any other; its URI is the endpoint's with ``otlp+`` before it:
``otlp+http://host:4318/v1/traces``, ``otlp+https://...``, ``otlp+grpc://host:4317`` (plain text) and
``otlp+grpcs://host:4317`` (TLS).
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from mlflow_fasttrace._internal.base import log
from mlflow_fasttrace._internal.base.version import mlflow_version
from mlflow_fasttrace._internal.config import environment

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
_VARIABLES = tuple(
    f"OTEL_EXPORTER_OTLP_{signal}{name}" for name in _NAMES for signal in ("TRACES_", "")
)


def variable(name: str) -> str | None:
    """``OTEL_EXPORTER_OTLP_TRACES_<name>``, or else the variable for all signals."""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or os.environ.get(
        f"OTEL_EXPORTER_OTLP_{name}"
    )


def credentials() -> list[str]:
    """``NAME=value`` of all that decides how a sender reaches a collector. Secrets: they go into a
    hash and nowhere else."""
    return [f"{name}={os.environ.get(name, '')}" for name in _VARIABLES]


def is_collector(uri: str) -> bool:
    """Whether a destination's URI is a collector's."""
    return uri.startswith(SCHEME)


def collector_uri() -> str | None:
    """The collector that traces go to; None where MLflow would send them to none."""
    if not environment.exports_otlp():
        return None
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not endpoint:
        base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        if not base:
            return None
        endpoint = base.rstrip("/") + _TRACES_PATH
    # MLflow takes gRPC where nothing else is said; OpenTelemetry's specification takes HTTP.
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
    import importlib.util  # slow to import, and seldom needed

    if importlib.util.find_spec("grpc") is None:
        log.warn(
            f"Traces for {endpoint} wait on disk: gRPC is not installed. Run `pip install "
            "opentelemetry-exporter-otlp-proto-grpc`, or set "
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf for a collector's HTTP port."
        )
    scheme = urlsplit(endpoint).scheme if "://" in endpoint else ""
    target = endpoint.partition("://")[2] if scheme else endpoint
    # By OpenTelemetry's specification "true" is true, and anything else is not.
    insecure = variable("INSECURE")
    plain = scheme != "https" and (
        insecure.lower() == "true" if insecure is not None else scheme == "http"
    )
    return f"{SCHEME}{'grpc' if plain else 'grpcs'}://{target.partition('/')[0]}"


def exports_metrics() -> bool:
    """Whether MLflow would also export a histogram of the spans' durations; here nothing does."""
    return bool(os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"))


def resource() -> dict[str, Any]:
    """OpenTelemetry's resource: what a collector is told of this process. Without OTEL_SERVICE_NAME
    and OTEL_RESOURCE_ATTRIBUTES it names the library alone, as from MLflow."""
    sdk = {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "mlflow",
        "telemetry.sdk.version": mlflow_version(),
    }
    if not (os.environ.get("OTEL_SERVICE_NAME") or os.environ.get("OTEL_RESOURCE_ATTRIBUTES")):
        return sdk
    from opentelemetry.sdk.resources import Resource

    return {**Resource.create().attributes, **sdk}
