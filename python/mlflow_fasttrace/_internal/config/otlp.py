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


def credentials() -> list[str]:
    """``NAME=value`` of all that decides how a sender reaches a collector. Secrets: they go into a
    hash and nowhere else."""
    return [f"{name}={os.environ.get(name, '')}" for name in _VARIABLES]


def is_collector(uri: str) -> bool:
    """Whether a destination's URI is a collector's."""
    return uri.startswith(SCHEME)


def collector_uri() -> str | None:
    """The collector that traces go to; None where MLflow would send them to none.

    ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``: the collector that traces go to, in the place of the tracking URI.

    ``OTEL_EXPORTER_OTLP_ENDPOINT``: the collector of all signals; ``/v1/traces`` is added for traces.

    ``OTEL_EXPORTER_OTLP_TRACES_PROTOCOL``, ``OTEL_EXPORTER_OTLP_PROTOCOL``: ``grpc``, or ``http/protobuf``; not set:
    ``grpc``.
    """
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
    """The URI of a collector that takes gRPC.

    ``OTEL_EXPORTER_OTLP_TRACES_INSECURE``, ``OTEL_EXPORTER_OTLP_INSECURE``: ``true``: gRPC without TLS, where the
    endpoint does not say ``https://``.
    """
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


def variable(name: str) -> str | None:
    """``OTEL_EXPORTER_OTLP_TRACES_<name>``, or else the variable for all signals.

    ``OTEL_EXPORTER_OTLP_TRACES_HEADERS``, ``OTEL_EXPORTER_OTLP_HEADERS``: headers of each request to a collector,
    ``name=value`` with commas between them.

    ``OTEL_EXPORTER_OTLP_TRACES_TIMEOUT``, ``OTEL_EXPORTER_OTLP_TIMEOUT``: seconds that a collector has for an answer;
    not set: 10.

    ``OTEL_EXPORTER_OTLP_TRACES_COMPRESSION``, ``OTEL_EXPORTER_OTLP_COMPRESSION``: ``gzip`` or ``none``; over HTTP
    also ``deflate``. Not set: ``none``.

    ``OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE``, ``OTEL_EXPORTER_OTLP_CERTIFICATE``: a file of the authorities whose
    certificates are trusted.

    ``OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE``, ``OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE``: a file with the
    certificate that a collector is shown.

    ``OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY``, ``OTEL_EXPORTER_OTLP_CLIENT_KEY``: a file with its key.
    """
    return os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or os.environ.get(
        f"OTEL_EXPORTER_OTLP_{name}"
    )


def exports_metrics() -> bool:
    """Whether MLflow would also export a histogram of the spans' durations; here nothing does.

    ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT``: MLflow exports durations of spans as metrics there. Here that is not done
    yet, and one log line says so.
    """
    return bool(os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"))


def resource() -> dict[str, Any]:
    """OpenTelemetry's resource: what a collector is told of this process. Without either variable it names the
    library alone, as from MLflow.

    ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES``: what a collector is told of this process.
    """
    sdk = {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "mlflow",
        "telemetry.sdk.version": mlflow_version(),
    }
    if not (os.environ.get("OTEL_SERVICE_NAME") or os.environ.get("OTEL_RESOURCE_ATTRIBUTES")):
        return sdk
    from opentelemetry.sdk.resources import Resource

    return {**Resource.create().attributes, **sdk}
