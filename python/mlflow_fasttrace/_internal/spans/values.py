"""Values that the C core cannot encode by itself, and exceptions: the core's hooks ``encode_default`` and
``format_exception``.

The rules are those of MLflow's encoder (``mlflow.tracing.utils.TraceJSONEncoder``) and of
``SpanEvent.from_exception``, with one difference: no error of a value's own code is raised into the traced
program. What belongs to the program (``_core.is_interruption``) passes through here, and the core raises it
where the traced call ends.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.log import warn


def encode_default(value: Any) -> Any:
    """The value that is recorded for one that is not JSON, as ``TraceJSONEncoder.default`` of MLflow
    gives it. An error of the value's own code costs that value alone, where MLflow would raise it into
    the program.

    Raises:
        ValueError, TypeError: the core then records the ``repr`` of the whole value, as MLflow does.
    """
    try:
        return _stand_in(value)
    except (ValueError, TypeError):
        raise
    except BaseException as error:
        let_pass(error)
        reason = type_name(error)
    warn(
        f"A value of type {type_name(value)} could not be recorded as it is: "
        f"its conversion raised {reason}."
    )
    for convert in (repr, str):
        try:
            return convert(value)
        except BaseException as error:
            let_pass(error)
    return f"<unprintable {type_name(value)} object>"


def _stand_in(value: Any) -> Any:
    """The value that MLflow's encoder would take; raises what the value's own code raises."""
    # A module that is still being imported may lack the class.
    model = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    if model is not None and isinstance(value, model):
        return value.model_dump()
    # The dataclasses module is loaded wherever there is a dataclass.
    if hasattr(type(value), "__dataclass_fields__") or isinstance(value, type):
        dataclasses = sys.modules.get("dataclasses")
        if dataclasses is not None and dataclasses.is_dataclass(value):
            try:
                return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            except BaseException as error:
                let_pass(error)
    attachment = getattr(sys.modules.get("mlflow.tracing.attachments"), "Attachment", None)
    if attachment is not None and isinstance(value, attachment):
        return _core.LiveSpan  # the sign by which the core's encoder knows an attachment
    if _consumes_stream(value):
        return str(type(value))
    return str(value)


def type_name(value: Any) -> str:
    """The name of a value's type, whatever its metaclass says."""
    return type.__dict__["__name__"].__get__(type(value))


def _consumes_stream(value: Any) -> bool:
    """Whether it is an object of LlamaIndex whose ``__str__`` would use up the stream that it carries."""
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


#: A traceback of more frames than Python's own recursion limit lets grow is shown in part: each of as many
#: traced calls would show all of it.
_DEEP, _FRAMES_OF_DEEP = 1000, 100


def _is_deep(error: BaseException) -> bool:
    frames = 0
    at = error.__traceback__
    while at is not None and frames <= _DEEP:
        frames += 1
        at = at.tb_next
    return frames > _DEEP


def format_exception(error: BaseException) -> tuple[str, str, str, str]:
    """``(message, type, stack trace, status description)`` of an exception, whatever its own code raises."""
    name = type(error).__name__
    try:
        message = str(error)
    except BaseException as own:
        let_pass(own)
        message = f"<unprintable {name} object>"
    try:
        limit = _FRAMES_OF_DEEP if _is_deep(error) else None
        stack_trace = "".join(traceback.format_exception(error, limit=limit)).strip()
    except BaseException as own:
        let_pass(own)
        stack_trace = f"{name}: {message}"
    return message, name, stack_trace, f"{name}: {message}"
