"""The current span, as MLflow's functions and OpenTelemetry's context of MLflow set and read it: a span of
any kind that is made current there is current in the core, itself or by what stands for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import Token
from typing import Any

from mlflow.tracing import provider as mlflow_provider
from opentelemetry import trace as trace_api
from opentelemetry.context.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base.patching import original
from mlflow_fasttrace._internal.spans import otel_context
from mlflow_fasttrace._internal.spans.no_op import NoOpSpan


def _set_current(span: Any) -> Token[Any]:
    """Makes a span current in the core."""
    before = _core.current_span_var.get(None)
    try:
        return _core.current_span_var.set(span)
    except MemoryError:  # the variable may have been set all the same
        _core.current_span_var.set(before)
        raise


def _reset(token: Token[Any], default: Any = None) -> None:
    """Undoes a ``set``. A reset that had no memory cannot be repeated, but its value can be set again.

    Args:
        token: What ``set`` returned.
        default: What is there where nothing was set before.
    """
    try:
        token.var.reset(token)
    except MemoryError:
        before = token.old_value
        token.var.set(default if before is Token.MISSING else before)


#: The token of ``set_span_in_context``: the core's and None, or what MLflow's own function returned, which is a pair
#: from MLflow 3.15 on and before that a token.
SpanToken = Any


def set_span_in_context(span: Any) -> SpanToken:
    """Make a span current, as ``mlflow.tracing.provider.set_span_in_context``.

    Args:
        span: A span of the core, a ``NoOpSpan``, or a ``mlflow.entities.LiveSpan`` of MLflow's making.

    Returns:
        What ``detach_span_from_context`` takes.
    """
    kind = type(span)
    if kind is _core.LiveSpan:
        current = span
    elif kind is NoOpSpan:
        current = span._non_recording
    else:
        current = otel_context.parent_of(span._span)
    token = _set_current(current)
    try:
        return token, None
    except MemoryError:
        _reset(token)
        raise


def detach_span_from_context(token: SpanToken) -> None:
    """Make current again what was so before. A token from before the core was installed is MLflow's.

    Args:
        token: What ``set_span_in_context`` returned.
    """
    own = token[0] if isinstance(token, tuple) else token
    if getattr(own, "var", None) is not _core.current_span_var:
        original(mlflow_provider.detach_span_from_context)(token)
        return
    try:
        _reset(own)
    except ValueError as error:
        # As in MLflow: a span that was attached in another task or thread is current no longer than
        # that.
        if "different Context" not in str(error):
            raise


@contextlib.contextmanager
def safe_set_span_in_context(span: Any) -> Iterator[None]:
    """A span is current within the block."""
    token = set_span_in_context(span)
    try:
        yield
    finally:
        detach_span_from_context(token)


@contextlib.contextmanager
def with_active_span(span: Any) -> Iterator[None]:
    """A span is current within the block, and gets the exception that leaves it."""
    try:
        with safe_set_span_in_context(span):
            yield
    except Exception as error:
        span.record_exception(error)
        raise


class _Tokens:
    """The two tokens of one ``attach``: OpenTelemetry's and the core's. It is made before there are any, so that
    nothing is attached that there is no room for."""

    __slots__ = ("current", "own")

    own: Token[Context]
    current: Token[Any]


class LinkedMlflowContext(ContextVarsRuntimeContext):
    """``mlflow.tracing.provider.mlflow_runtime_context``, whose current span is the core's."""

    def get_current(self) -> Context:
        context = self._current_context.get()
        current = _core.current()
        if current is None:
            return context
        return Context({**context, otel_context.SPAN_KEY: otel_context.otel_span_of(current)})

    def attach(self, context: Context) -> Any:
        parent = otel_context.parent_of(trace_api.get_current_span(context))
        tokens = _Tokens()
        tokens.own = super().attach(context)
        try:
            tokens.current = _set_current(parent)
        except MemoryError:
            _reset(tokens.own, Context())
            raise
        return tokens

    def detach(self, token: Any) -> None:
        if not isinstance(token, _Tokens):  # from before the core was installed
            super().detach(token)
            return
        try:
            _reset(token.own, Context())
        finally:
            _reset(token.current)
