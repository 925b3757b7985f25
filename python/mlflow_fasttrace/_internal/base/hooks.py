"""What the C core asks of Python: one ``Hook`` a question, each also listed in ``PYTHON_HOOKS`` of
``ext/base/state.h``, where a new one begins. Nothing else calls ``_core.set_hook``.

A hook is asked in the thread that records, with the GIL. The core swallows what the answer raises,
unless it belongs to the program (``_core.is_interruption``), and goes on without it. The hooks that every program
needs get their answers when ``recording/`` is imported, before the first span. The others have one
only while somebody needs it: without one the core does not ask, and asking costs time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mlflow_fasttrace import _core

if TYPE_CHECKING:
    from typing import TypeAlias

    from mlflow.entities import TraceInfo

    from mlflow_fasttrace._core import LiveSpan, NonRecordingSpan, Trace

    #: The encoded destination (None: the usual one), metadata and tags of a new trace, and whether
    #: its spans are kept for ``whole_trace_ended``.
    RootAnswer: TypeAlias = tuple[bytes | None, dict[str, Any] | None, dict[str, Any] | None, bool]

_Answer = TypeVar("_Answer", bound=Callable[..., Any])


class Hook(Generic[_Answer]):
    """A question of the core, and the place where its answer is set."""

    def __init__(self, name: str):
        self._name = name

    def answer(self, function: _Answer | None) -> None:
        """Has the core ask a function from now on; None: it does not ask any more."""
        _core.set_hook(self._name, function)


# ---- a trace or a span begins ----

#: A root starts while the core knows no destination. The answer calls ``_core.set_destination``;
#: where it does not, the trace is not recorded. True means that this thread is in the middle of an
#: answer, so that a span of a trace that is there already waits. From recording/start.py, always.
start_recording: Hook[Callable[[], bool]] = Hook("start_recording")

#: A root starts, and a run, a model, a scope or an experiment of its own may apply. The argument is
#: the id of the experiment that the program gave for this trace. On the path of every such root.
#: From recording/root_context.py, always.
root_context: Hook[Callable[[str | None], RootAnswer]] = Hook("root_context")

#: A span starts. The argument is what is current in the core; the answer is the span that is the
#: parent instead, by OpenTelemetry's context, or None. From spans/otel_context.py, while that
#: context and the core's are linked.
external_parent: Hook[Callable[[LiveSpan | NonRecordingSpan | None], LiveSpan | None]] = Hook(
    "external_parent"
)

#: Tracing is off, and a span would have started. From seams/evaluation.py, while MLflow counts such spans.
span_left_out: Hook[Callable[[], Any]] = Hook("span_left_out")

# ---- values ----

#: A value is set that is not JSON. The answer is what is recorded for it; ``ValueError`` and
#: ``TypeError`` ask for the repr of the whole. From spans/values.py, always.
encode_default: Hook[Callable[[Any], Any]] = Hook("encode_default")

#: Inputs or outputs are set that cannot be JSON. The answer is their text. From spans/entities.py,
#: always.
payload_repr: Hook[Callable[[Any], str]] = Hook("payload_repr")

#: Inputs or outputs are set that hold binary content. The answer is a copy with references in its
#: place; the content is left with the span. From spans/entities.py, always.
extract_attachments: Hook[Callable[[LiveSpan, Any], Any]] = Hook("extract_attachments")

#: An exception is recorded. The answer: message, type, stack trace, description of the span's
#: status. From spans/values.py, always.
format_exception: Hook[Callable[[BaseException], tuple[str, str, str, str]]] = Hook(
    "format_exception"
)

# ---- a span or a trace ends ----

#: A span ends, and nothing of it has left the process: what the answer sets on it still counts. From
#: tracing.py, while the program has span processors.
process_span: Hook[Callable[[LiveSpan], None]] = Hook("process_span")

#: The record of a trace is about to be written whose ``TraceInfo`` was handed out. The answer takes
#: what the program changed of that into the trace. From seams/, while MLflow runs on the core.
take_info: Hook[Callable[[Trace, TraceInfo], None]] = Hook("take_info")

#: A whole trace is complete; the second argument are its spans. From seams/, while MLflow runs on
#: the core.
whole_trace_ended: Hook[Callable[[Trace, list[LiveSpan]], None]] = Hook("whole_trace_ended")

#: A trace is complete and its records are written. From recording/flush.py, where a trace must be
#: delivered when it has ended.
trace_completed: Hook[Callable[[], Any]] = Hook("trace_completed")

#: A root has ended, and the sender of its ring has given no heartbeat for 3 s, or says that the
#: server does not let it in. From recording/supervisor.py, always.
restart_sender: Hook[Callable[[], None]] = Hook("restart_sender")

# ---- at any time ----

#: The core has a line for the log. From base/log.py, always.
warn: Hook[Callable[[str], None]] = Hook("warn")
