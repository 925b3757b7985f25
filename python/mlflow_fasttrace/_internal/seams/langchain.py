"""MLflow's tracer of LangChain and LangGraph.

It looks for the right parent of a span upwards from the current one, by ``get_span_from_id()``. In MLflow a
trace in flight holds all of its spans; here ended ones are let go, but in traces that this tracer has a span
in.

Of what is run by asyncio it is called in another thread, unless ``run_tracer_inline`` is asked for, so that
a span that it makes current there is not current in the node, tool or function that the span is of. LangChain
and LangGraph make a context for each of these; the span is current in that context here, and spans of the
program are its children.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.patching import replace_attribute, when_loaded
from mlflow_fasttrace._internal.seams import current

_logger = logging.getLogger(__name__)

_TRACER = "mlflow.langchain.langchain_tracer"
#: The modules whose ``_set_config_context(config, ...)`` is called in the context of what is run then.
_CONTEXTS = (
    "langchain_core.runnables.config",
    "langgraph._internal._runnable",
    "langgraph.utils.runnable",  # before LangGraph 1
)


def complete_when_loaded() -> None:
    """Complete MLflow's tracer as soon as MLflow's integration is loaded."""
    when_loaded(_TRACER, _complete)


def _complete() -> None:
    tracer = getattr(sys.modules[_TRACER], "MlflowLangchainTracer", None)
    if tracer is None:
        return
    _keep_spans(tracer)
    for module in _CONTEXTS:
        when_loaded(module, functools.partial(_nest_spans, module))


def _keep_spans(tracer: type) -> None:
    """Have the traces that the tracer has a span in keep theirs."""
    own = vars(tracer).get("_start_span")
    if own is None:
        return

    def start_span(self: Any, *args: Any, **kwargs: Any) -> Any:
        span = own(self, *args, **kwargs)
        if type(span) is _core.LiveSpan:
            span._trace.keep_spans()
        return span

    replace_attribute(tracer, "_start_span", start_span)


def _nest_spans(module: str) -> None:
    """Have the tracer's span of what is run be current in its context."""
    own: Callable[..., Any] | None = vars(sys.modules[module]).get("_set_config_context")
    if own is None:
        return

    @functools.wraps(own)
    def set_config_context(config: Any, *args: Any, **kwargs: Any) -> Any:
        result = own(config, *args, **kwargs)
        try:
            _make_current(config.get("callbacks"))
        except BaseException as error:
            let_pass(error)
            _logger.debug("The span of what LangChain runs is not current in it", exc_info=True)
        return result

    replace_attribute(sys.modules[module], "_set_config_context", set_config_context)


def _make_current(callbacks: Any) -> None:
    """Make the span current that MLflow's tracer has of a run.

    Args:
        callbacks: The callback manager of what the run calls, which knows the run's id.
    """
    run_id = getattr(callbacks, "parent_run_id", None)
    if run_id is None:
        return
    module = sys.modules[_TRACER]
    for handler in callbacks.handlers:
        if isinstance(handler, module.MlflowLangchainTracer):
            span = handler._get_span_by_run_id(run_id)
            # Not in RunnableSequence.batch(), where MLflow makes no span current.
            attaches = module._should_attach_span_to_context.get()
            if attaches and type(span) is _core.LiveSpan and _core.current() is not span:
                current.set_span_in_context(span)
