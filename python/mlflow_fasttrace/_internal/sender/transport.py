"""What the answers of servers and of collectors have in common."""

from __future__ import annotations

from typing import NamedTuple

import requests
import urllib3


class PartialSuccess(NamedTuple):
    """What an OTLP answer says of spans that the receiver left out. It must not get them again."""

    rejected: int
    message: str


def partial_success(body: bytes) -> PartialSuccess | None:
    """Reads the answer to an OTLP request, as protobuf.

    Args:
        body: Empty where all spans were taken.

    Returns:
        None where it is no such answer.
    """
    if not body:
        return PartialSuccess(0, "")
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        found = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return None
    return PartialSuccess(found.rejected_spans, found.error_message)


def retry_after(text: str | None) -> float | None:
    """Reads a Retry-After header.

    Args:
        text: Seconds, or a date.

    Returns:
        Seconds from now; None where it asks for nothing that makes sense.
    """
    if not text:
        return None
    try:
        return max(0.0, urllib3.Retry().parse_retry_after(text))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


class NetworkSettings(NamedTuple):
    """How a host is reached.

    ``verify``: whether certificates are checked, or the file or folder of those that are trusted.
    ``cert``: the client's own, if any. ``proxies``: URIs by scheme.
    """

    verify: bool | str
    cert: str | tuple[str, str] | None
    proxies: dict[str, str]


def network_settings(
    session: requests.Session, url: str, verify: bool | str | None, cert: str | None = None
) -> NetworkSettings:
    """Finds proxies and certificates in the environment, as requests does.

    Args:
        session: Where nothing is set that this would override.
        url: Of the host.
        verify: Certificates that are trusted, where something said so.
        cert: The client's certificate.
    """
    found = session.merge_environment_settings(url, {}, None, verify, cert)
    return NetworkSettings(found["verify"], found["cert"], dict(found["proxies"]))
