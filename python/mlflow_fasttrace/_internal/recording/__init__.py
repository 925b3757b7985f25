"""The program's side of recording: what happens at roots, in front of the ring.

    start.py          the first root: what is set up, and anew after a fork
    destination.py    where traces go, and what their records say of that
    root_context.py   what a root's trace inherits from MLflow and the context
    rings.py          this process's rings
    supervisor.py     the sender that drains them: started, started again, replaced by a thread
    deferred_starts.py, silence.py, sender_process.py   when one is started later, when it is ended, and how
    containers.py     whether anything outlives this process
    flush.py          waiting for delivery, also at exit
    timeout.py        traces that take too long
    tracing_state.py  span processors, and what keeps tracing off

Importing it gives the core its answers, see ``base/hooks.py``.
"""

from mlflow_fasttrace._internal.base import hooks, log
from mlflow_fasttrace._internal.recording import root_context, start, supervisor
from mlflow_fasttrace._internal.spans import entities, values


def _answer_the_core() -> None:
    """Sets the answers that every program needs. The others are set where they are needed."""
    hooks.start_recording.answer(start.start)
    hooks.root_context.answer(root_context.root_context.answer)
    hooks.restart_sender.answer(supervisor.supervisor.restart)
    hooks.encode_default.answer(values.encode_default)
    hooks.format_exception.answer(values.format_exception)
    hooks.payload_repr.answer(entities.payload_repr)
    hooks.extract_attachments.answer(entities.extract_attachments)
    hooks.warn.answer(log.warn)


_answer_the_core()
