"""The private names of MLflow: every name that this package uses and MLflow does not document, in one
table, and the check that they are there.

MLflow documents ``mlflow``, ``mlflow.entities``, ``mlflow.exceptions`` and ``mlflow.tracing``; it keeps what
these modules export. Any other name may move with a release. Such a name stands here once, with the
layers of this package that use it, and with what its absence means: a required name that is missing
keeps MLflow on its own code, an optional one costs what ``lost`` says. ``tests/seams/test_private_names.py`` reads
the package's source, and fails for a name that is used and not listed, or listed and not used.

The table imports nothing of MLflow, so that a name that is missing is found here and not by an import.
"""

from __future__ import annotations

import enum
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mlflow_fasttrace._internal.base.imports import imported
from mlflow_fasttrace._internal.base.version import OLDEST_MLFLOW, is_mlflow
from mlflow_fasttrace._internal.seams.moved import MovedSeam

__all__ = ["NAMES", "NOTHING", "Kind", "Name", "check", "check_module", "missing"]

PROGRAM = "program"
SENDER = "sender"


class Kind(enum.Enum):
    """What a name is, which decides how it is checked."""

    #: A module that is imported.
    MODULE = "module"
    #: A function or a class that is called; ``parameters`` is how.
    CALLED = "called"
    #: A function that leads to one of this package; ``parameters`` are those that ours takes.
    REPLACED = "replaced"
    #: A property of a class, whose getter is replaced.
    PROPERTY = "property"
    #: A value of a module, or a member of a class.
    VALUE = "value"
    #: An attribute of a class's instances, which ``__init__`` sets, a dataclass declares or a property has.
    FIELD = "field"


class Name(NamedTuple):
    """One private name, and what depends on it."""

    #: Dotted name below the module, ``Class.member`` for one of a class; empty for the module itself.
    name: str
    kind: Kind
    #: For CALLED: how it is called, a name for a positional argument and ``name=`` for a keyword. For
    #: REPLACED: the names of the parameters that this package's function takes, in order.
    parameters: str | None = None
    #: What is lost without it; None where it is required.
    lost: str | None = None
    #: The dotted name of the class that the value must be an instance of, exactly.
    of: str | None = None
    module: str = ""
    #: The layers (a folder of ``_internal``, or a public module) that use it.
    needed_by: tuple[str, ...] = ()
    #: The process that needs it: ``PROGRAM``, which ``install()`` checks, or ``SENDER``.
    needed_in: str = PROGRAM
    #: Whether importing its module costs too much for a check: the name is checked once that is loaded.
    late: bool = False
    #: The release of MLflow that brought it; before, it is not looked for.
    since: tuple[int, int] = OLDEST_MLFLOW

    @property
    def path(self) -> str:
        """The full dotted name."""
        return f"{self.module}.{self.name}" if self.name else self.module

    @property
    def required(self) -> bool:
        """Whether MLflow stays on its own code without it."""
        return self.lost is None and self.needed_in == PROGRAM


def _in(
    module: str,
    needed_by: str,
    *names: Name,
    lost: str | None = None,
    needed_in: str = PROGRAM,
    late: bool = False,
) -> list[Name]:
    """The names of one module.

    Args:
        module: Its dotted name.
        needed_by: The layers that use the names, with a space between two.
        names: The names, made by one of the functions below.
        lost: What is lost without one of them that does not say it itself.
        needed_in: The process that needs them.
        late: See ``Name.late``.
    """
    layers = tuple(needed_by.split())
    return [
        name._replace(
            module=module,
            needed_by=layers,
            lost=name.lost or lost,
            needed_in=needed_in,
            late=late,
        )
        for name in names
    ]


def _module() -> Name:
    return Name("", Kind.MODULE)


def _called(name: str, parameters: str | None = None, *, lost: str | None = None) -> Name:
    return Name(name, Kind.CALLED, parameters, lost)


def _replaced(name: str, parameters: str = "") -> Name:
    return Name(name, Kind.REPLACED, parameters)


def _property(name: str) -> Name:
    return Name(name, Kind.PROPERTY)


def _value(name: str, *, of: str | None = None, lost: str | None = None) -> Name:
    return Name(name, Kind.VALUE, None, lost, of)


def _field(name: str, *, lost: str | None = None) -> Name:
    return Name(name, Kind.FIELD, None, lost)


#: ``lost`` of a member that a class of this package overrides for MLflow's code to find.
NOTHING = "nothing: MLflow's code of this release does not ask for it"
_AUTOLOG = "autolog() where only mlflow-tracing is installed"
_TURNS = "turns at a new database, whose tables a program and its sender may make at the same time"
_CONTEXT = "opentelemetry.context.contextvars_context.ContextVarsRuntimeContext"

#: Names that the seams replace, call and stand in for.
_REPLACED_AND_CALLED = [
    *_in("mlflow.tracing.fluent", "cli", _module()),
    *_in(
        "mlflow.tracing.fluent",
        "seams",
        _replaced(
            "trace",
            "func name span_type attributes output_reducer trace_destination"
            " sampling_ratio_override log_level links description",
        ),
        _replaced(
            "start_span",
            "name span_type attributes trace_destination log_level run_id links description",
        ),
        _replaced(
            "start_span_no_context",
            "name span_type parent_span inputs attributes tags metadata experiment_id"
            " start_time_ns log_level links description",
        ),
        _replaced("get_current_active_span"),
        _replaced("get_active_trace_id"),
        _replaced("get_last_active_trace_id", "thread_local"),
        _replaced(
            "update_current_trace",
            "tags metadata client_request_id request_preview response_preview state model_id"
            " session_id user",
        ),
        _replaced("add_trace", "trace target"),
        _replaced("_set_last_active_trace_id", "trace_id"),
        _replaced("_flush_pending_async_trace_writes", "terminate"),
        _value("_EVAL_REQUEST_ID_TO_TRACE_ID"),
    ),
    *_in(
        "mlflow.tracing.provider",
        "seams",
        _replaced("set_span_in_context", "span"),
        _replaced("detach_span_from_context", "token"),
        _replaced("safe_set_span_in_context", "span"),
        _replaced("with_active_span", "span"),
        _replaced("set_destination", "destination context_local"),
        _replaced("enable"),
        _replaced("disable"),
        _replaced("is_tracing_enabled"),
        _replaced("reset"),
        _value("_TracerProviderWrapper"),
        _value("_TracerProviderWrapper.get"),
        _value("_TracerProviderWrapper.get_or_init_tracer"),
        _value("_TracerProviderWrapper.set"),
        _value("_TracerProviderWrapper.reset"),
        _value("_TracerProviderWrapper._swap_raw")._replace(since=(3, 15)),
        _value("_TracerProviderWrapper._retire_current_batch_processors", lost=NOTHING),
        _field("_TracerProviderWrapper.once"),
        _value("provider", of="mlflow.tracing.provider._TracerProviderWrapper"),
        _called(
            "_get_tracer",
            "module_name",
            lost="a library's spans, with mlflow_fasttrace.otel where MLflow's own code records",
        ),
        _value("mlflow_runtime_context", of=_CONTEXT),
        _value("_MLFLOW_TRACE_USER_DESTINATION"),
    ),
    *_in(
        "mlflow.tracing.destination",
        "seams",
        _field("UserTraceDestinationRegistry._global_value"),
        _field("UserTraceDestinationRegistry._context_local_value"),
    ),
    *_in(
        "mlflow.tracking._tracking_service.utils",
        "seams",
        _value("reset", lost="tracing that is off stays off when the tracking URI is set"),
    ),
    *_in(
        "mlflow.tracing.config",
        "seams",
        _replaced("configure", "span_processors"),
        _replaced("get_config"),
        _called("TracingConfig", ""),
        _field("TracingConfig.span_processors"),
    ),
    *_in(
        "mlflow.tracing.context",
        "seams",
        _replaced("context", "metadata tags enabled session_id user"),
    ),
    *_in(
        "mlflow.tracing.distributed",
        "seams",
        _replaced("get_tracing_context_headers_for_http_request"),
        _replaced("set_tracing_context_from_http_request_headers", "headers"),
        _replaced("_get_tracing_headers_from_span", "span"),
    ),
    *_in(
        "mlflow.tracing.assessment",
        "seams",
        _replaced("_get_trace_span_ids", "trace_id")._replace(since=(3, 18)),
    ),
    *_in(
        "mlflow.tracking.fluent",
        "seams",
        _replaced("set_experiment", "experiment_name experiment_id trace_location"),
        _replaced("flush_trace_async_logging", "terminate"),
    ),
    *_in(
        "mlflow.tracking._tracking_service.client",
        "seams",
        _replaced("TrackingServiceClient.get_experiment_by_name", "self name"),
        _called("TrackingServiceClient.create_experiment", "self name"),
        _field("TrackingServiceClient.tracking_uri"),
    ),
    *_in(
        "mlflow.entities.span",
        "seams",
        _replaced("create_mlflow_span", "otel_span trace_id span_type"),
        _called("LiveSpan", "otel_span trace_id span_type"),
        _value("LiveSpan.from_immutable_span"),
    ),
    *_in("mlflow.entities.span", "seams fluent", _field("LiveSpan._span")),
    *_in(
        "mlflow.entities.span",
        "spans",
        _field("Span._span"),
        _field("Span._attachments"),
    ),
    *_in(
        "mlflow.tracing.client",
        "recording seams",
        _called("TracingClient", "tracking_uri"),
        _property("TracingClient.store"),
    ),
    *_in(
        "mlflow.tracing.client",
        "seams",
        _field("TracingClient.tracking_uri"),
        _replaced("TracingClient.log_assessment", "self trace_id assessment"),
        _replaced("TracingClient.set_trace_tag", "self trace_id key value"),
        _called("TracingClient.start_trace", "self trace_info"),
        _called("TracingClient.log_spans", "self location spans"),
    ),
    *_in(
        "mlflow.tracing.trace_manager",
        "seams",
        _called("ManagerTrace", "trace prompts is_remote_trace"),
        _called("_Trace", "info span_dict prompts is_remote_trace="),
        _value("_Trace.to_mlflow_trace"),
        _field("_Trace.span_dict"),
        _field("_Trace.workspace")._replace(since=(3, 15)),
        _called("InMemoryTraceManager", ""),
        _value("InMemoryTraceManager._instance"),
        _value("InMemoryTraceManager._instance_lock"),
        _value("InMemoryTraceManager.get_instance"),
        _value("InMemoryTraceManager.get_mlflow_trace_id_from_otel_id"),
        _value("InMemoryTraceManager.get_root_span_id"),
        _value("InMemoryTraceManager.get_span_from_id"),
        _value("InMemoryTraceManager.get_trace"),
        _value("InMemoryTraceManager.pop_trace"),
        _value("InMemoryTraceManager.register_span"),
        _value("InMemoryTraceManager.register_trace"),
        _value("InMemoryTraceManager._check_timeout_update", lost=NOTHING),
        _field("InMemoryTraceManager._traces"),
        _field("InMemoryTraceManager._otel_id_to_mlflow_trace_id"),
        _field("InMemoryTraceManager._lock"),
    ),
    *_in(
        "mlflow.tracing.export.mlflow_v3",
        "seams",
        _value("MlflowV3SpanExporter"),
        _field("MlflowV3SpanExporter._async_queue"),
        _field("MlflowV3SpanExporter._is_async_enabled", lost=NOTHING),
        _field("MlflowV3SpanExporter._client", lost=NOTHING),
        _field("MlflowV3SpanExporter._display_handler", lost=NOTHING),
    ),
    *_in(
        "mlflow.tracing.export.utils",
        "seams",
        _called("try_link_prompts_to_trace", "client trace_id prompts"),
    ),
    *_in(
        "mlflow.tracing.processor.mlflow_v3",
        "seams",
        _value("MlflowV3SpanProcessor"),
        _field("MlflowV3SpanProcessor._trace_manager", lost=NOTHING),
        _field("MlflowV3SpanProcessor._batch_delegate", lost=NOTHING),
        _field("MlflowV3SpanProcessor._export_metrics", lost=NOTHING),
    ),
    *_in(
        "mlflow.tracing.processor.base_mlflow",
        "seams",
        _value("_batch_processor_registry"),
        _called("flush_all_batch_processors", "terminate="),
    ),
    *_in(
        "mlflow.tracing.utils.truncation",
        "seams",
        _called("set_request_response_preview", "trace_info trace_data"),
    ),
    *_in("mlflow.tracing.display", "seams", _called("get_display_handler", "")),
    *_in(
        "mlflow.tracing.display.display_handler",
        "seams",
        _called("_is_jupyter", ""),
        _value("IPythonTraceDisplayHandler.disabled"),
        _called("IPythonTraceDisplayHandler.get_instance", ""),
        _value("IPythonTraceDisplayHandler._instance"),
        _called("IPythonTraceDisplayHandler._display_traces_post_run", "self result"),
        _field("IPythonTraceDisplayHandler.traces_to_display"),
        _called("IPythonTraceDisplayHandler.display_traces", "self traces"),
    ),
    *_in(
        "mlflow.genai.utils.trace_utils",
        "seams",
        _value("NoOpTracerPatcher"),
        lost="evaluate() gives a span of its own to functions that are traced",
        late=True,
    ),
    *_in(
        "mlflow.langchain.langchain_tracer",
        "seams",
        _called(
            "MlflowLangchainTracer._start_span",
            "self span_name parent_run_id span_type run_id",
            lost="parents of LangChain's spans where a span between them has ended",
        ),
        _called("MlflowLangchainTracer._get_span_by_run_id", "self run_id"),
        _value("_should_attach_span_to_context"),
        lost="the parents of spans in what LangChain and LangGraph run by asyncio",
        late=True,
    ),
    *_in(
        "mlflow.bedrock.stream",
        "seams",
        _called("BaseEventStreamWrapper.__iter__", "self"),
        _called("BaseEventStreamWrapper._close", "self"),
        _field("BaseEventStreamWrapper._span"),
        lost="streams of Amazon Bedrock that are left early",
        late=True,
    ),
    *_in(
        "mlflow.openai.autolog",
        "seams",
        _called("_start_span", "instance inputs run_id"),
        _called("_end_span_on_success", "span inputs raw_result is_responses_api"),
        _called("_try_parse_raw_response", "response"),
        lost="the bodies of OpenAI's streaming responses, and its streams that are left early",
        late=True,
    ),
    *_in(
        "mlflow.llama_index.tracer",
        "seams",
        _value("MlflowSpanHandler"),
        lost="traces that go on in another task or process with a workflow of LlamaIndex",
        late=True,
    ),
    *_in(
        "mlflow.utils.autologging_utils", "seams", _value("AUTOLOGGING_INTEGRATIONS"), lost=_AUTOLOG
    ),
    *_in(
        "mlflow.utils.import_hooks",
        "seams",
        _called("register_post_import_hook", "hook name overwrite="),
        lost=_AUTOLOG,
    ),
]

#: Names that the other layers of the program's side read.
_READ = [
    *_in(
        "mlflow.tracking.fluent",
        "recording",
        _module(),
        _value("_active_experiment_id"),
        _value("_active_run_stack"),
        _value("_ACTIVE_MODEL_CONTEXT"),
        _called("active_run", ""),
        _called("_get_latest_active_run", ""),
        _called("_get_active_model_id_global", ""),
        _called("_get_experiment_id", ""),
        _field("ActiveModelContext.model_id"),
    ),
    *_in(
        "mlflow.utils.thread_utils",
        "recording",
        _field(
            "ThreadLocalVariable._ThreadLocalVariable__global_thread_values",
            lost="time: MLflow's functions are asked for the active run and model at every root span",
        ),
    ),
    *_in(
        "mlflow.tracking._tracking_service.utils",
        "recording",
        _module(),
        _called("get_tracking_uri", ""),
        _called("set_tracking_uri", "uri"),
    ),
    *_in(
        "mlflow.pyfunc.context",
        "recording",
        _module(),
        _called("get_prediction_context", ""),
        _field("Context.request_id"),
        _field("Context.is_evaluate"),
        _field("Context.dependencies_schemas"),
        _field("Context.model_id"),
        late=True,
    ),
    *_in("mlflow.protos.service_pb2", "recording", _module(), _value("Experiment")),
    *_in(
        "mlflow.utils.proto_json_utils",
        "recording",
        _module(),
        _called("parse_dict", "js_dict message"),
    ),
    *_in("mlflow.tracing.destination", "tracing", _value("TraceDestination.to_location")),
    *_in("mlflow.entities.trace_location", "tracing", _value("TraceLocationBase")),
    *_in("mlflow.entities.trace_status", "traces", _called("TraceStatus.end_statuses", "")),
    *_in("mlflow.protos.databricks_pb2", "traces", _value("RESOURCE_DOES_NOT_EXIST")),
    *_in(
        "mlflow.tracing.attachments",
        "spans",
        _module(),
        _called("Attachment", "content_type= content_bytes="),
        _field("Attachment.id"),
        _field("Attachment.content_bytes"),
        _called("Attachment.ref", "self trace_id"),
    ),
    *_in(
        "mlflow.store.db.utils",
        "spool",
        _module(),
        _called("_all_tables_exist", "engine"),
        _called("_initialize_tables", "engine"),
        lost=_TURNS,
        late=True,
    ),
]

#: Private names of OpenTelemetry that are read or set in the same places.
_OPENTELEMETRY = [
    *_in("opentelemetry.trace.propagation", "spans", _value("_SPAN_KEY")),
    *_in("opentelemetry.context", "spans", _value("_RUNTIME_CONTEXT")),
    *_in(
        "opentelemetry.context.contextvars_context",
        "seams spans",
        _field("ContextVarsRuntimeContext._current_context"),
    ),
    *_in("opentelemetry.util._once", "seams", _field("Once._done")),
    *_in(
        "opentelemetry.sdk.trace",
        "seams otel",
        _field("TracerProvider._active_span_processor"),
    ),
    *_in("opentelemetry.sdk.trace", "otel", _field("TracerProvider._span_limits")),
]

LOSES_SIGNING = (
    "delivery to tracking servers that a plugin, a signature or Databricks is needed for"
)
LOSES_DATABASES = "delivery to databases"
_FILES = "attachments, and spans that go as files"

#: Names that the sender calls, which delivers to databases, and files, by MLflow's own code.
_SENDERS = [
    *_in(
        "mlflow.tracing.constant",
        "sender",
        _value("SpansLocation.TRACKING_STORE"),
        _value("TraceTagKey.SPANS_LOCATION"),
        needed_in=SENDER,
        lost=_FILES,
    ),
    *_in(
        "mlflow.store.tracking.rest_store",
        "sender",
        _value("RestStore"),
        needed_in=SENDER,
        lost=LOSES_SIGNING,
    ),
    *_in(
        "mlflow.tracking._tracking_service.utils",
        "sender",
        _called("_get_store", "store_uri"),
        needed_in=SENDER,
        lost=LOSES_SIGNING,
    ),
    *_in(
        "mlflow.tracking.request_header.registry",
        "sender",
        _called("resolve_request_headers", ""),
        needed_in=SENDER,
        lost=LOSES_SIGNING,
    ),
    *_in(
        "mlflow.utils.rest_utils",
        "sender",
        _called(
            "http_request",
            "host_creds endpoint method max_retries= raise_on_status= extra_headers= data="
            " timeout= stream= allow_redirects=",
        ),
        needed_in=SENDER,
        lost=LOSES_SIGNING,
    ),
    *_in(
        "mlflow.store.db.db_types",
        "sender",
        _value("DATABASE_ENGINES"),
        _value("SQLITE"),
        needed_in=SENDER,
        lost=LOSES_DATABASES,
    ),
    *_in(
        "mlflow.store.db.utils",
        "sender",
        _called("create_sqlalchemy_engine", "db_uri"),
        needed_in=SENDER,
        lost=LOSES_DATABASES,
    ),
    *_in(
        "mlflow.utils.uri",
        "sender",
        _called("get_uri_scheme", "uri"),
        needed_in=SENDER,
        lost=LOSES_DATABASES,
    ),
    *_in(
        "mlflow.tracing.client",
        "sender",
        _called("TracingClient", "tracking_uri"),
        _called("TracingClient.get_trace_info", "self trace_id"),
        needed_in=SENDER,
        lost=_FILES,
    ),
    *_in(
        "mlflow.store.artifact.artifact_repo",
        "sender",
        _called("ArtifactRepository.upload_trace_data", "self trace_data"),
        needed_in=SENDER,
        lost=_FILES,
    ),
    *_in(
        "mlflow.store.artifact.artifact_repository_registry",
        "sender",
        _called("get_artifact_repository", "artifact_uri"),
        needed_in=SENDER,
        lost=_FILES,
    ),
    *_in(
        "mlflow.tracing.utils.artifact_utils",
        "sender",
        _called("get_artifact_uri_for_trace", "trace_info"),
        _value("TRACE_DATA_FILE_NAME"),
        needed_in=SENDER,
        lost=_FILES,
    ),
    *_in(
        "mlflow.tracing.export.genai_semconv.translator",
        "sender",
        _called("translate_span_to_genai", "span"),
        needed_in=SENDER,
        lost="MLFLOW_ENABLE_OTEL_GENAI_SEMCONV",
    ),
]

#: All private names. One that both processes need stands here for each.
NAMES: tuple[Name, ...] = (*_REPLACED_AND_CALLED, *_READ, *_OPENTELEMETRY, *_SENDERS)


# ---- the check ----


def check() -> None:
    """Find out whether MLflow is as this package knows it. A module that is ``late`` and not loaded is
    left for ``check_module``.

    Raises:
        MovedSeam: a required name is missing, or is not what it was; the message says which.
    """
    for name in NAMES:
        if name.required and (not name.late or name.module in sys.modules):
            _check(name)


def check_module(module: str) -> None:
    """Find out whether one module of MLflow, which is loaded, is as this package knows it.

    Args:
        module: Its dotted name.

    Raises:
        MovedSeam: as by ``check``.
    """
    for name in NAMES:
        if name.required and name.module == module:
            _check(name)


def late_modules() -> set[str]:
    """The modules whose required names are checked when they are loaded."""
    return {name.module for name in NAMES if name.required and name.late}


def missing(needed_in: str) -> Iterator[tuple[Name, str]]:
    """Look for all names of a process, the optional ones too, but for those whose absence costs nothing. Their
    modules are imported for it, but for the ``late`` ones: a command has time for that, a program does not.

    Args:
        needed_in: ``PROGRAM`` or ``SENDER``.

    Returns:
        The names that are missing, each with one line that says how.
    """
    for name in NAMES:
        if name.lost == NOTHING:
            continue
        if name.needed_in == needed_in and (not name.late or name.module in sys.modules):
            try:
                _check(name)
            except MovedSeam as moved:
                yield name, str(moved)


def _check(name: Name) -> None:
    """Raises:
    MovedSeam: the name is missing, or is not what it was.
    """
    if not is_mlflow(*name.since):
        return
    try:
        module = imported(name.module)  # waits where another thread imports it
    except Exception as error:
        raise MovedSeam(f"{name.module} cannot be imported ({error})") from error
    if name.kind is Kind.MODULE:
        return
    owner, _, member = name.name.rpartition(".")
    holder: Any = module
    if owner and (holder := getattr(module, owner, None)) is None:
        raise MovedSeam(f"{name.module}.{owner} is missing")
    if name.kind is Kind.FIELD:
        if not _sets(holder, member):
            raise MovedSeam(f"{name.path} is missing")
        return
    if not hasattr(holder, member):
        raise MovedSeam(f"{name.path} is missing")
    value = getattr(holder, member)
    if name.kind is Kind.PROPERTY and not isinstance(value, property):
        raise MovedSeam(f"{name.path} is no property")
    if name.kind is Kind.REPLACED:
        _check_replaced(name, value)
    if name.kind is Kind.CALLED and name.parameters is not None:
        _check_called(name, value)
    if name.of is not None and _path_of(type(value)) != name.of:
        raise MovedSeam(f"{name.path} is of another class")


def _path_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _sets(cls: type, field: str) -> bool:
    """Whether instances of a class have an attribute: a class's own, a dataclass's field, or one that an
    ``__init__`` of it or of a class above sets. No instance is made to find out."""
    if hasattr(cls, field) or field in getattr(cls, "__dataclass_fields__", ()):
        return True
    for base in getattr(cls, "__mro__", ()):
        code = getattr(vars(base).get("__init__"), "__code__", None)
        if code is not None and field in code.co_names:
            return True
    return False


def _check_replaced(name: Name, function: Any) -> None:
    """Raises:
    MovedSeam: it is no function, or takes what ours does not take in that place.
    """
    if not isinstance(function, types.FunctionType):
        raise MovedSeam(f"{name.path} is no function")
    ours = (name.parameters or "").split()
    for place, theirs in enumerate(inspect.signature(function).parameters):
        if place >= len(ours) or ours[place] != theirs:
            raise MovedSeam(f"{name.path} takes {theirs!r}, which is not known here")


def _check_called(name: Name, function: Callable[..., Any]) -> None:
    """Raises:
    MovedSeam: it cannot be called as this package calls it.
    """
    given = (name.parameters or "").split()
    positional = [argument for argument in given if not argument.endswith("=")]
    keywords = {argument[:-1]: None for argument in given if argument.endswith("=")}
    try:
        inspect.signature(function).bind(*positional, **keywords)
    except (TypeError, ValueError) as error:
        raise MovedSeam(f"{name.path} is called otherwise ({error})") from error
