"""Notebooks show the traces that a cell has recorded, in one display behind it. MLflow's code makes the display, which
the browser fills from the server: what the cell recorded is delivered first."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from mlflow.entities import Trace
from mlflow.tracing.display import display_handler

from mlflow_fasttrace._internal.base.patching import at_undo
from mlflow_fasttrace._internal.recording import flush

#: How long a cell is held up at most by a server that is slow. A display whose trace comes later is filled
#: when it is reloaded.
_WAIT_SECONDS = 5.0
_EVENT = "post_run_cell"


class _Notebook:
    """The handler that shows traces in this process; ``handler`` is None outside of notebooks."""

    handler: type[display_handler.IPythonTraceDisplayHandler] | None = None


def look_for_notebook() -> None:
    """Find out whether this process is a notebook's kernel, and be asked there at the end of each cell."""
    _Notebook.handler = None
    if "IPython" not in sys.modules or not display_handler._is_jupyter():
        return
    _Notebook.handler = display_handler.IPythonTraceDisplayHandler
    events = sys.modules["IPython"].get_ipython().events
    # Functions are called in the order in which they were registered, and MLflow's may be there already.
    shown_by = _Notebook.handler._instance
    if shown_by is not None:
        with contextlib.suppress(ValueError):
            events.unregister(_EVENT, shown_by._display_traces_post_run)
    events.register(_EVENT, _deliver)
    if shown_by is not None:
        events.register(_EVENT, shown_by._display_traces_post_run)
    at_undo(_let_go)


def _let_go() -> None:
    _Notebook.handler = None
    with contextlib.suppress(ValueError):
        sys.modules["IPython"].get_ipython().events.unregister(_EVENT, _deliver)


def shows_traces() -> bool:
    """Whether traces that end are shown."""
    return _Notebook.handler is not None and not _Notebook.handler.disabled


def show(trace: Trace) -> None:
    """Show a trace behind the cell that runs, where this is a notebook."""
    if _Notebook.handler is not None:
        _Notebook.handler.get_instance().display_traces([trace])


def _deliver(result: Any) -> None:
    """Wait until what the cell recorded is on the server, where there is something to show of it."""
    handler = _Notebook.handler
    if handler is None or handler.disabled or handler._instance is None:
        return
    if handler._instance.traces_to_display:
        flush.flush(_WAIT_SECONDS, accept_spooled=True)
