"""Binary content in inputs and outputs: replaced by references, kept as attachments.

The rules are those of MLflow's ``LiveSpan.set_inputs``: ``Attachment`` objects always; data URIs and
the payloads of model providers unless ``MLFLOW_TRACE_EXTRACT_ATTACHMENTS`` says no.
"""

from __future__ import annotations

import ast
import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeGuard

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log, patching
from mlflow_fasttrace._internal.config import environment

if TYPE_CHECKING:
    from mlflow.tracing.attachments import Attachment

    from mlflow_fasttrace._core import LiveSpan

_REFERENCE = "mlflow-attachment://"


def extract(span: LiveSpan, value: Any) -> Any:
    """Take binary content out of inputs or outputs.

    Args:
        span: The span whose ``_attachments`` gets the content. One that has ended keeps none.
        value: The inputs or outputs; they are not changed.

    Returns:
        The value with a reference wherever content was taken out.
    """
    extractor = _Extractor(span)
    first = extractor.replace(value)
    if not extractor.providers:
        return first
    # Objects that only become dictionaries when they are encoded may hold content too.
    before = len(span._attachments)
    second = extractor.replace(_core.decode(_core.encode(first)))
    return second if len(span._attachments) > before else first


class _Extractor:
    """Replaces content by references, in a value of any depth.

    Args:
        span: The span that gets the content.
    """

    def __init__(self, span: LiveSpan):
        patching.wait_for_mlflow()
        from mlflow.tracing.attachments import Attachment

        self._span = span
        self._attachment = Attachment
        #: Whether data URIs and payloads of providers count as content.
        self.providers = environment.extracts_attachments()

    def replace(self, value: Any) -> Any:
        """A copy of the value with references."""
        if isinstance(value, self._attachment):
            return self._store(value)
        if isinstance(value, str):
            return (self._of_data_uri(value) if self.providers else None) or value
        if isinstance(value, dict):
            if self.providers:
                value = self._of_provider(value) or value
            return {key: self.replace(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.replace(item) for item in value]
        return value

    def _store(self, attachment: Attachment) -> str:
        """Give the span an attachment; the reference that stands for it."""
        span = self._span
        limit = environment.max_attachment_bytes()
        size = len(attachment.content_bytes)
        if limit is not None and size > limit:
            message = (
                f"Attachment too large ({size} bytes > {limit} bytes limit). Content discarded."
            )
            log.logger.warning(message)
            span.record_exception(message)
            return f"[Attachment too large: {size} bytes exceeds {limit} bytes limit]"
        if span.end_time_ns is None:
            span._attachments[attachment.id] = attachment
        return attachment.ref(span.trace_id)

    def _store_content(self, content: bytes, content_type: str) -> str:
        return self._store(self._attachment(content_type=content_type, content_bytes=content))

    def _of_data_uri(self, text: str) -> str | None:
        if not text.startswith("data:"):
            return None
        head, mark, data = text.partition(";base64,")
        content_type = head[len("data:") :]
        content = _decoded(data) if mark and content_type else None
        return None if content is None else self._store_content(content, content_type)

    def _of_provider(self, value: dict[str, Any]) -> dict[str, Any] | None:
        """A copy with a reference, where providers put content into a dictionary of that form; None where
        they do not. The first form that fits decides."""
        for find in _FORMS:
            found = find(value)
            if found is None:
                continue
            path, data, content_type = found
            content = _gemini_content(data) if path[0] == "inline_data" else _decoded(data)
            if content is None:
                return None
            return _with(value, path, self._store_content(content, content_type))
        return None


def _decoded(data: str) -> bytes | None:
    """The content of a base64 text; None where the text is no base64."""
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        return None


def _gemini_content(data: str) -> bytes | None:
    """The content that the Gemini SDK writes as base64 or as the repr of bytes."""
    if data.startswith(("b'", 'b"')):
        try:
            parsed = ast.literal_eval(data)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            parsed = None
        if isinstance(parsed, bytes):
            return parsed
    return _decoded(data)


def _with(value: dict[str, Any], path: tuple[str, ...], reference: str) -> dict[str, Any]:
    """A copy of a dictionary with a reference at the end of a path of keys."""
    inner: Any = _with(value[path[0]], path[1:], reference) if len(path) > 1 else reference
    return {**value, path[0]: inner}


#: Keys that lead to the content, the content, its media type.
_Found = tuple[tuple[str, ...], str, str]


def _is_content(value: Any) -> TypeGuard[str]:
    """Whether a text is still content: not empty, and no reference already."""
    return isinstance(value, str) and value != "" and not value.startswith(_REFERENCE)


def _part(value: Any, *path: str) -> Any:
    """What is at the end of a path of keys; None where there is no such path."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _name(value: Any, default: str) -> str:
    """A format's name, where the provider gives one."""
    return value if isinstance(value, str) and value else default


def _openai_input_audio(value: dict[str, Any]) -> _Found | None:
    data = _part(value, "input_audio", "data")
    if value.get("type") != "input_audio" or not isinstance(data, str) or not data:
        return None
    kind = value["input_audio"].get("format", "wav")
    return ("input_audio", "data"), data, "audio/mpeg" if kind == "mp3" else f"audio/{kind}"


def _anthropic_image(value: dict[str, Any]) -> _Found | None:
    source = value.get("source")
    if not isinstance(source, dict):
        return None
    if value.get("type") != "image" or source.get("type") != "base64":
        return None
    data = source.get("data")
    if not isinstance(data, str) or not data:
        return None
    return ("source", "data"), data, source.get("media_type", "image/png")


def _openai_image(value: dict[str, Any]) -> _Found | None:
    data = value.get("b64_json")
    return (("b64_json",), data, "image/png") if isinstance(data, str) and data else None


def _openai_audio(value: dict[str, Any]) -> _Found | None:
    data = _part(value, "audio", "data")
    return (("audio", "data"), data, "audio/wav") if _is_content(data) else None


def _bedrock_image(value: dict[str, Any]) -> _Found | None:
    data = _part(value, "image", "source", "bytes")
    if not _is_content(data):
        return None
    kind = _name(value["image"].get("format", "png"), "png")
    return ("image", "source", "bytes"), data, f"image/{kind}"


def _gemini_inline_data(value: dict[str, Any]) -> _Found | None:
    data = _part(value, "inline_data", "data")
    if not _is_content(data):
        return None
    default = "application/octet-stream"
    kind = _name(value["inline_data"].get("mime_type", default), default)
    return ("inline_data", "data"), data, kind


def _openai_generated_image(value: dict[str, Any]) -> _Found | None:
    data = value.get("result")
    if value.get("type") != "image_generation_call" or not _is_content(data):
        return None
    return ("result",), data, f"image/{_name(value.get('output_format', 'png'), 'png')}"


#: The forms that providers put content into, in MLflow's order: each finds its content, or None.
_FORMS: tuple[Callable[[dict[str, Any]], _Found | None], ...] = (
    _openai_input_audio,
    _anthropic_image,
    _openai_image,
    _openai_audio,
    _bedrock_image,
    _gemini_inline_data,
    _openai_generated_image,
)
