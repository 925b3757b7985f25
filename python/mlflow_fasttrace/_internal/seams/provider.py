"""What answers in the place of ``mlflow.tracing.provider``: the provider of the core's tracers, and the
functions that switch and direct tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow.tracing import provider as mlflow_provider
from opentelemetry import trace as trace_api
from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor

from mlflow_fasttrace import _core, otel, tracing
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.seams.sdk_spans import CoreSpanProcessor
from mlflow_fasttrace._internal.spans.otel_span import resource


class CoreTracerProvider(otel.TracerProvider):
    """The provider that MLflow's wrapper holds. Its processor is what MLflow's code looks for in it."""

    def __init__(self) -> None:
        super().__init__(resource())
        processors = SynchronousMultiSpanProcessor()
        processors.add_span_processor(CoreSpanProcessor())
        self._active_span_processor = processors


#: The provider of ``core_provider``, once there is one.
_core_providers: dict[str, CoreTracerProvider] = {}


def core_provider() -> CoreTracerProvider:
    """The provider of this process, while MLflow runs on the core."""
    # No lock is held while one is made; of those that several threads make at once one is kept.
    found = _core_providers.get("")
    return found or _core_providers.setdefault("", CoreTracerProvider())


class CoreProviderWrapper(mlflow_provider._TracerProviderWrapper):
    """``mlflow.tracing.provider.provider``, which hands out the core's tracers."""

    def get(self) -> Any:
        """The provider; one that does nothing while tracing is off."""
        return core_provider() if _core.enabled() else trace_api.NoOpTracerProvider()

    def get_or_init_tracer(self, module_name: str) -> trace_api.Tracer:
        """A tracer of that name."""
        self.once._done = True
        return self.get().get_tracer(module_name)

    def _retire_current_batch_processors(self) -> None:
        """Do nothing: the core's provider has no such processor."""

    def set(self, tracer_provider: Any) -> None:
        """Switch tracing off by a provider that does nothing, and on by any other."""
        _core.set_enabled(not isinstance(tracer_provider, trace_api.NoOpTracerProvider))

    def _swap_raw(self, tracer_provider: Any) -> Any:
        old = self.get()
        self.set(tracer_provider)
        return old

    def reset(self) -> None:
        """Work out anew where traces go."""
        self.once._done = _OwnProvider.is_current = False
        destination.reset()


class _OwnProvider:
    """MLflow's own provider, from before these functions came in its place."""

    is_current = False  # it is there, and nothing has reset it since


def note_own_provider() -> Callable[[], None]:
    """An action by which MLflow makes a provider at its next span, unless it has one from before that is current:
    what stood in its place says that there is one."""
    once = mlflow_provider.provider.once
    _OwnProvider.is_current = once._done

    def restore() -> None:
        once._done = _OwnProvider.is_current
        if (other := mlflow_provider.provider.once) is not once:  # that of the unified mode
            other._done = False

    return restore


def reset() -> None:
    """``mlflow.tracing.reset``."""
    forget()
    _core.set_enabled(True)


def forget() -> None:
    """Answer a new tracking URI, by which MLflow resets tracing: what is off stays off."""
    mlflow_provider.provider.once._done = _OwnProvider.is_current = False
    mlflow_provider._MLFLOW_TRACE_USER_DESTINATION.reset()
    destination.follow_tracking_uri()
    tracing.forget()


def set_destination(destination: Any, *, context_local: bool = False) -> None:
    """``mlflow.tracing.set_destination``, which MLflow's own code remembers too."""
    tracing.set_destination(destination, context_local=context_local)
    to_location = getattr(destination, "to_location", None)
    mlflow_provider._MLFLOW_TRACE_USER_DESTINATION.set(
        to_location() if to_location else destination, context_local=context_local
    )
