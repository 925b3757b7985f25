"""What the C core asks of Python: values that C does not know, exceptions, and log lines.

The rules are those of MLflow's encoder (``mlflow.tracing.utils.TraceJSONEncoder``) and of
``SpanEvent.from_exception``, with one difference: nothing in here raises into the traced program.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from typing import Any

from mlflow_fasttrace import _core

logger = logging.getLogger("mlflow_fasttrace")

_WARN_EVERY_SECONDS = 60.0
_warned_at: dict[str, float] = {}
_warned_lock = threading.Lock()


def warn(message: str) -> None:
    """Log a line, each message at most once a minute."""
    now = time.monotonic()
    with _warned_lock:
        last = _warned_at.get(message)
        if last is not None and now - last < _WARN_EVERY_SECONDS:
            return
        _warned_at[message] = now
    logger.warning(message)


def encode_default(value: Any) -> Any:
    """What stands for a value that is not JSON: ``JSONEncoder.default`` of MLflow's encoder.

    A ``ValueError``, ``TypeError`` or ``RecursionError`` goes back to the core, which then keeps the
    ``repr`` of the whole value, as MLflow does. Anything else that the value's own code raises costs
    that value alone.
    """
    try:
        pydantic = sys.modules.get("pydantic")
        if pydantic is not None and isinstance(value, pydantic.BaseModel):
            return value.model_dump()
        # A dataclass, or one of its instances; its module is loaded where there is one.
        if hasattr(type(value), "__dataclass_fields__") or isinstance(value, type):
            dataclasses = sys.modules.get("dataclasses")
            if dataclasses is not None and dataclasses.is_dataclass(value):
                try:
                    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
                except Exception:
                    pass
        attachments = sys.modules.get("mlflow.tracing.attachments")
        if attachments is not None and isinstance(value, attachments.Attachment):
            return _core.LiveSpan  # the core's sign for an attachment, see encode.c
        if _consumes_stream(value):
            return str(type(value))
        return str(value)
    except (ValueError, TypeError, RecursionError):
        raise
    except Exception as error:
        warn(
            f"A value of type {type(value).__name__} could not be recorded: "
            f"its conversion to text raised {type(error).__name__}."
        )
        return f"<unprintable {type(value).__name__} object>"


def _consumes_stream(value: Any) -> bool:
    """Objects of LlamaIndex whose ``__str__`` would use up the stream that they carry."""
    schema = sys.modules.get("llama_index.core.base.response.schema")
    engine = sys.modules.get("llama_index.core.chat_engine.types")
    kinds = [
        getattr(module, name, None)
        for module, name in (
            (schema, "AsyncStreamingResponse"),
            (schema, "StreamingResponse"),
            (engine, "StreamingAgentChatResponse"),
        )
    ]
    return isinstance(value, tuple(kind for kind in kinds if kind is not None))


def format_exception(error: BaseException) -> tuple[str, str, str, str]:
    """``(message, type, stack trace, status description)`` of an exception; never raises."""
    name = type(error).__name__
    try:
        message = str(error)
    except Exception:
        message = f"<unprintable {name} object>"
    try:
        stack_trace = "".join(traceback.format_exception(error)).strip()
    except Exception:
        stack_trace = f"{name}: {message}"
    return message, name, stack_trace, f"{name}: {message}"
