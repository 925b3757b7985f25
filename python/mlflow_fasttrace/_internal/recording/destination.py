"""Where this program's traces go: tracking URI, experiment, location, and what the record of a
trace says of them.

The setters only note what they are given. At the next root the core asks for a destination again
(``start.py``), and then it is worked out from what was noted and from the environment.
"""

from __future__ import annotations

import contextvars
import getpass
import sys
from typing import Any

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import locks, patching, paths
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.config import environment, otlp
from mlflow_fasttrace._internal.config.uris import absolute_uri, without_credentials


class _Chosen:
    """What the program chose, by this package's functions or by MLflow's.

    ``locks.brief`` is held while something is chosen, and while the core gets the destination that follows; not
    while that is worked out, which runs MLflow's code.
    """

    def __init__(self) -> None:
        #: Counts the choices, so that what follows from an earlier one is not taken for the last.
        self.generation = 0
        #: Whether the core has the destination that follows from all that is chosen.
        self.in_force = False
        #: The argument of set_tracking_uri().
        self.tracking_uri: str | None = None
        #: Of set_experiment(): ``{"id": ...}`` or ``{"name": ...}``.
        self.experiment: dict[str, str] = {}
        #: MLflow's active experiment at that moment; once it is another one, that was chosen later.
        self.experiment_beside: str | None = None
        #: The experiment of set_destination().
        self.location: str | None = None
        #: Whether set_destination() was called for a context.
        self.locations_in_contexts = False
        #: Whether MLflow itself runs on the core: then its tracking URI counts.
        self.mlflow_runs_here = False
        #: By experiment id: encoded destinations of traces that go to another experiment. Emptied,
        #: never replaced: root_context.py holds its ``get``.
        self.encoded: dict[str, bytes] = {}
        #: Tracking URIs and names of experiments that traces name, of which nobody knows yet whether
        #: they are there.
        self.named: set[tuple[str, str]] = set()


chosen = _Chosen()

#: The experiment of set_destination() for a context.
location_of_context: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "mlflow_fasttrace.location", default=None
)


def reset() -> None:
    """Has where traces go worked out anew at the next root span."""
    with locks.brief:
        chosen.generation += 1
        chosen.in_force = False
        chosen.encoded.clear()
        _core.set_destination(None, None)


# ---- the tracking URI ----


def tracking_uri() -> str:
    """The tracking URI in force, as MLflow's ``get_tracking_uri`` resolves it."""
    if chosen.tracking_uri is not None:
        return chosen.tracking_uri
    if chosen.mlflow_runs_here and (uri := _of_mlflow(sys.modules["mlflow"])) is not None:
        return uri
    if uri := environment.tracking_uri():
        return uri
    if (module := _tracking_utils()) is not None and (uri := _of_mlflow(module)) is not None:
        return uri
    if _has_file_store_data():
        return "file://" + os.path.abspath("mlruns")
    return "sqlite:///" + os.path.abspath("mlflow.db")


def _of_mlflow(module: Any) -> str | None:
    """What MLflow says is its tracking URI; None where it looks for its store, which is not installed with
    mlflow-tracing alone."""
    try:
        return module.get_tracking_uri()
    except ImportError as error:
        let_pass(error)
        return None


def _tracking_utils() -> Any:
    """MLflow's module of tracking URIs; None where it is not loaded, or another thread is importing it."""
    module = sys.modules.get("mlflow.tracking._tracking_service.utils")
    return None if module is None or patching.is_loading(module) else module


def _has_file_store_data() -> bool:
    """MLflow keeps using a ./mlruns folder that holds experiments."""
    try:
        with os.scandir("mlruns") as entries:
            return any(
                entry.name.isdigit() and paths.exists(os.path.join(entry.path, "meta.yaml"))
                for entry in entries
            )
    except OSError as error:
        let_pass(error)
        return False


def set_tracking_uri(uri: str | os.PathLike[str] | None) -> None:
    """Sets the tracking URI of new traces, also for MLflow in this process, and for its children."""
    if isinstance(uri, os.PathLike):
        import pathlib

        uri = pathlib.Path(uri).absolute().resolve().as_uri()
    with locks.brief:
        chosen.tracking_uri = uri
        environment.set_tracking_uri(uri)
        reset()
    if (module := _tracking_utils()) is not None:
        module.set_tracking_uri(uri)


def follow_tracking_uri() -> None:
    """Forgets the argument of set_tracking_uri(): MLflow was told another tracking URI."""
    with locks.brief:
        chosen.tracking_uri = None
        reset()


def use_mlflow(here: bool) -> None:
    """Notes whether MLflow itself runs on the core."""
    with locks.brief:
        chosen.mlflow_runs_here = here
        reset()


# ---- the experiment ----


def set_experiment(*, experiment_id: str | None = None, name: str | None = None) -> None:
    """Sets the experiment of new traces, by its id or else by its name."""
    if experiment_id is not None:
        experiment = {"id": str(experiment_id)}
    else:
        experiment = {} if name is None else {"name": name}
    with locks.brief:
        chosen.location = None
        chosen.experiment_beside = active_in_mlflow()
        chosen.experiment = experiment
        reset()


def set_location(experiment_id: str | None, *, context_local: bool = False) -> None:
    """Sets the experiment of new traces, whatever the active one is.

    Args:
        experiment_id: Its id; None: the active experiment counts again.
        context_local: For this thread or task alone.
    """
    if context_local:
        _core.use_scopes()
        location_of_context.set(experiment_id)
        with locks.brief:
            if not chosen.locations_in_contexts:
                chosen.locations_in_contexts = True
                reset()  # a collector of OpenTelemetry's variables gets no more traces, see route()
        return
    with locks.brief:
        chosen.location = experiment_id
        if experiment_id is None:
            location_of_context.set(None)
            chosen.locations_in_contexts = False
        reset()


def location() -> str | None:
    """The experiment that set_destination() or the environment names for the whole process."""
    return chosen.location or environment.trace_location()


def active_in_mlflow() -> str | None:
    """The id of the experiment that MLflow's own code takes for the active one."""
    fluent = sys.modules.get("mlflow.tracking.fluent")
    return getattr(fluent, "_active_experiment_id", None)


def experiment_in_force() -> dict[str, str]:
    """The experiment of new traces, ``{"id": ...}`` or ``{"name": ...}``."""
    if experiment_id := location():
        return {"id": experiment_id}
    experiment_id = active_in_mlflow()
    with locks.brief:
        if chosen.experiment and experiment_id == chosen.experiment_beside:
            return dict(chosen.experiment)
    if experiment_id:
        return {"id": str(experiment_id)}
    # MLflow lets the name win over the id.
    if name := environment.experiment_name():
        return {"name": name}
    return {"id": environment.experiment_id() or "0"}


def note_named(uri: str, experiment: dict[str, str]) -> None:
    """Notes that traces may begin that name their experiment, which the sender makes where it is missing."""
    if name := experiment.get("name"):
        chosen.named.add((uri, name))


def is_named(uri: str, name: str) -> bool:
    """Whether traces of this process may have named an experiment of a tracking URI."""
    return bool(chosen.named) and (absolute_uri(uri), name) in chosen.named


# ---- what follows ----


def route() -> tuple[str, str | None]:
    """Where new traces go. A collector of OpenTelemetry's variables comes before the tracking URI,
    and set_destination() before both.

    Returns:
        The URI, and that of a collector which gets them besides, or None.
    """
    collector = otlp.collector_uri()
    if collector is None or environment.dual_export():
        return absolute_uri(tracking_uri()), collector
    if chosen.locations_in_contexts or location():
        return absolute_uri(tracking_uri()), None
    return collector, None


def describe(uri: str, experiment: dict[str, str], collector: str | None = None) -> dict[str, Any]:
    """The destination of a trace, as its record has it: where it goes and where it comes from.

    Args:
        uri: Where it goes.
        experiment: Its experiment, ``{"id": ...}`` or ``{"name": ...}``.
        collector: Where it goes besides.
    """
    result: dict[str, Any] = {
        "uri": without_credentials(uri),
        "experiment": experiment,
        "user": _user(),
        "source": _source(),
        "cwd": _working_folder(),
        "pid": os.getpid(),
    }
    if workspace := environment.workspace():
        result["workspace"] = workspace
    if rules := environment.keep_rules():
        result["keep"] = rules
    if collector is not None:
        result["collector"] = without_credentials(collector)
    if collector is not None or otlp.is_collector(uri):
        result["resource"] = otlp.resource()
        if environment.genai_names():
            result["genai"] = True
    return result


def encode_for(experiment_id: str) -> bytes:
    """Encodes the destination of traces of an experiment that is not the usual one, and keeps it in
    ``chosen.encoded`` until the next reset(). What has been reset meanwhile is not kept."""
    generation = chosen.generation
    uri, collector = route()
    encoded = _core.encode(describe(uri, {"id": experiment_id}, collector))
    with locks.brief:
        if chosen.generation == generation:
            chosen.encoded[experiment_id] = encoded
    return encoded


def _source() -> str:
    """The program's script, as ``sys.argv`` has it. A program that embeds Python may have no ``argv``."""
    arguments = getattr(sys, "argv", None)
    source = arguments[0] if isinstance(arguments, list) and arguments else None
    return source if isinstance(source, str) and source else "<console>"


def _working_folder() -> str:
    """Where the sender looks for the commit of the program. A folder that has been removed stands for
    none."""
    try:
        return os.getcwd()
    except OSError as error:
        let_pass(error)
        return "/"


def _user() -> str:
    if name := environment.user_name():
        return name
    try:
        return getpass.getuser()
    except Exception as error:  # of this user there is no entry, or it cannot be read
        let_pass(error)
        return "unknown"
