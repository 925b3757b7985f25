"""``mlflow.autolog``: MLflow's own where there is one. Where only ``mlflow-tracing`` is installed, which has
none, the function here does it for the integrations of generative AI libraries."""

from __future__ import annotations

import logging
import sys
import types
from typing import Any

from mlflow_fasttrace._internal.base.imports import imported
from mlflow_fasttrace._internal.base.version import OLDEST_MLFLOW, is_mlflow
from mlflow_fasttrace._internal.seams import install

__all__ = ["INTEGRATIONS", "autolog"]

_logger = logging.getLogger("mlflow_fasttrace")

#: The modules of MLflow that trace a library, by the library's module.
INTEGRATIONS = {
    "agno": "mlflow.agno",
    "anthropic": "mlflow.anthropic",
    "autogen": "mlflow.ag2",
    "autogen_agentchat": "mlflow.autogen",
    "boto3": "mlflow.bedrock",
    "crewai": "mlflow.crewai",
    "dspy": "mlflow.dspy",
    "google.genai": "mlflow.gemini",
    "google.generativeai": "mlflow.gemini",
    "groq": "mlflow.groq",
    "haystack": "mlflow.haystack",
    "langchain": "mlflow.langchain",
    "litellm": "mlflow.litellm",
    "llama_index.core": "mlflow.llama_index",
    "mistralai": "mlflow.mistral",
    "openai": "mlflow.openai",
    "pydantic_ai": "mlflow.pydantic_ai",
    "semantic_kernel": "mlflow.semantic_kernel",
    "smolagents": "mlflow.smolagents",
    "strands": "mlflow.strands",
    "typesafe_sdk": "mlflow.typesafe",
}
#: From which release on MLflow has an integration that the oldest supported one lacks.
_SINCE = {"mlflow.typesafe": (3, 17)}


def autolog(*args: Any, **kwargs: Any) -> None:
    """Trace the libraries that MLflow has an integration for, now and when they are imported.

    Args:
        *args: As of ``mlflow.autolog``.
        **kwargs: As of ``mlflow.autolog``. With ``mlflow-tracing`` alone: ``disable`` (end it),
            ``log_traces``, ``exclude_flavors`` (names of integrations) and ``silent``.

    Example:
        >>> import mlflow_fasttrace as mlflow
        >>> mlflow.autolog(silent=True)  # from now on, calls of OpenAI's SDK make spans, say
        >>> mlflow.is_installed()
        True
        >>> mlflow.autolog(disable=True, silent=True)
    """
    install.install()
    import mlflow

    if hasattr(mlflow, "autolog"):
        mlflow.autolog(*args, **kwargs)
        # MLflow's autolog leaves on an integration whose own autolog the program called.
        if kwargs.get("disable"):
            _autolog(disable=True, exclude_flavors=kwargs.get("exclude_flavors"))
    else:
        _autolog(**kwargs)  # the positional parameters are about models and data sets


def _autolog(
    *,
    disable: bool = False,
    log_traces: bool = True,
    exclude_flavors: list[str] | None = None,
    silent: bool = False,
    **ignored: Any,
) -> None:
    """Trace the libraries where MLflow has no ``autolog``. What else its callers pass is about models and
    data sets, which ``mlflow-tracing`` does not log."""
    try:
        from mlflow.utils.autologging_utils import AUTOLOGGING_INTEGRATIONS
        from mlflow.utils.import_hooks import register_post_import_hook
    except ImportError as error:
        _logger.warning(
            "Autologging is not available (%s): install mlflow, or another version of mlflow-tracing",
            error,
        )
        return
    excluded = {f"mlflow.{name}" for name in exclude_flavors or ()}
    for library, integration in INTEGRATIONS.items():
        if integration in excluded or not is_mlflow(*_SINCE.get(integration, OLDEST_MLFLOW)):
            continue

        def switch(library_module: types.ModuleType, integration: str = integration) -> None:
            try:
                function = imported(integration).autolog
                before = AUTOLOGGING_INTEGRATIONS.get(function.integration_name)
                if before and not before.get("globally_configured", False) and not disable:
                    return  # the program has said how it wants this one
                function(disable=disable, log_traces=log_traces, silent=silent)
            except Exception as error:
                if not silent:
                    _logger.warning("Autologging of %s failed: %s", library_module.__name__, error)
                return
            AUTOLOGGING_INTEGRATIONS[function.integration_name]["globally_configured"] = True

        if not disable or library in sys.modules:
            register_post_import_hook(switch, library, overwrite=True)
