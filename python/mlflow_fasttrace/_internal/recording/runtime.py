"""The agent's side of delivery: where traces go, this process's ring, the sender that drains it.

Nothing here runs per span. ``start`` is called by the core at the first root span (and again after
a fork or a change of destination): it makes the ring and sees to it that a sender is there.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import fcntl
import getpass
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log
from mlflow_fasttrace._internal.base.version import VERSION, release_of
from mlflow_fasttrace._internal.config import environment, otlp
from mlflow_fasttrace._internal.config.uris import absolute_uri, without_credentials
from mlflow_fasttrace._internal.recording import timeout
from mlflow_fasttrace._internal.spans import values
from mlflow_fasttrace._internal.spool.folder import Spool, spool_for, spool_max_bytes
from mlflow_fasttrace._internal.spool.lock import Holder, holder_of

_lock = threading.RLock()
_tracking_uri: str | None = None  # what set_tracking_uri() was given
_experiment: dict[str, str] = {}  # {"id": ...} or {"name": ...}, from set_experiment()
_experiment_beside: str | None = None  # MLflow's active one then: who sets that anew means it
_homes: dict[str, _Home] = {}  # by the spool's name: where this process records
_left: list[_Home] = []  # those whose files somebody removed; what they hold is still delivered
_mirrors: set[str] = set()  # URIs of what gets the traces besides another place
_location: str | None = None  # the experiment of set_destination()
_locations_in_contexts = False  # it was called for a context
_local_location: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "mlflow_fasttrace.location", default=None
)
_environment_model: str | None = None
_mlflow_runs_here = False  # MLflow itself is on the core: what it is told counts
_contexts_linked = False  # OpenTelemetry's process-wide context and the core see each other
_destinations: dict[str, bytes] = {}  # encoded, by experiment id: those that differ from the usual
_sender_threads: dict[str, threading.Thread] = {}
_signed_in: dict[str, str] = {}  # by the spool's name: the credentials that its sender got last
_starts: dict[str, tuple[int, float]] = {}  # of senders, since one was seen: how many, since when
_STARTS_IN_VAIN, _STARTS_SECONDS = 3, 10.0  # a sender takes its lock within a second
_pid = os.getpid()
_started = False  # the core knows where traces go
_starting_thread: int | None = None
_retry_at = 0.0  # after a failure, not before this time
_RETRY_SECONDS = 5.0
_MEMORY_RING_BYTES = 16 << 20  # where nothing can be spilled
_SERVER_ANSWERS, _SERVER_AWAY, _SERVER_DENIES = 1, 2, 3  # what a ring says of its server
FLUSH_SECONDS = 30.0  # what a flush waits at most, unless it is told otherwise


class _Home(NamedTuple):
    """A ring of this process, and what its sender needs."""

    spool: Spool | None  # None: the ring is memory of this process alone
    uri: str
    ring: _core.RingWriter
    path: str | None  # of the ring
    credentials: str  # those that the spool stands for

    def spilled_to_memory(self) -> bool:
        """Whether segments of this process are where a reboot would find nothing."""
        if self.spool is None or self.path is None:
            return False
        stem = os.path.basename(self.path).removesuffix(".ring")
        _, prefix = self.spool.spill_prefixes(stem)
        if prefix is None:
            return False
        folder, name = os.path.split(prefix)
        try:
            return any(found.startswith(name) for found in os.listdir(folder))
        except OSError:
            return False


def tracking_uri() -> str:
    """The tracking URI in force, as MLflow's ``get_tracking_uri`` resolves it."""
    if _tracking_uri is not None:
        return _tracking_uri
    if _mlflow_runs_here:
        return sys.modules["mlflow"].get_tracking_uri()
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    module = sys.modules.get("mlflow.tracking._tracking_service.utils")
    if module is not None:
        return module.get_tracking_uri()
    if _has_file_store_data():
        return "file://" + os.path.abspath("mlruns")
    return "sqlite:///" + os.path.abspath("mlflow.db")


def _has_file_store_data() -> bool:
    """MLflow keeps using a ./mlruns folder that holds experiments."""
    try:
        with os.scandir("mlruns") as entries:
            return any(
                entry.name.isdigit() and os.path.lexists(os.path.join(entry.path, "meta.yaml"))
                for entry in entries
            )
    except OSError:
        return False


def set_tracking_uri(uri: str | os.PathLike[str] | None) -> None:
    global _tracking_uri
    if isinstance(uri, os.PathLike):
        import pathlib

        uri = pathlib.Path(uri).absolute().resolve().as_uri()
    with _lock:
        _tracking_uri = uri
        # As MLflow does, so that child processes inherit it.
        if uri is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = uri
        module = sys.modules.get("mlflow.tracking._tracking_service.utils")
        if module is not None:
            module.set_tracking_uri(uri)
        reset()


def follow_tracking_uri() -> None:
    """MLflow was told another tracking URI: what this package was told before is over."""
    global _tracking_uri
    _tracking_uri = None


def use_mlflow(here: bool) -> None:
    """Whether MLflow itself runs on the core."""
    global _mlflow_runs_here
    _mlflow_runs_here = here
    reset()


def set_experiment(*, experiment_id: str | None = None, name: str | None = None) -> None:
    global _experiment_beside, _location
    with _lock:
        _location = None
        _experiment_beside = _active_in_mlflow()
        _experiment.clear()
        if experiment_id is not None:
            _experiment["id"] = str(experiment_id)
        elif name is not None:
            _experiment["name"] = name
        reset()


def set_location(experiment_id: str | None, *, context_local: bool = False) -> None:
    """The experiment of new traces, whatever the active one is; None: the active one again."""
    global _location, _locations_in_contexts
    if context_local:
        _core.use_scopes()
        _local_location.set(experiment_id)
        if not _locations_in_contexts:
            _locations_in_contexts = True
            reset()  # where OpenTelemetry's variables name a collector, it is not for them any more
        return
    _location = experiment_id
    if experiment_id is None:
        _local_location.set(None)
        _locations_in_contexts = False
    reset()


def reset() -> None:
    """Where traces go is worked out anew at the next root span."""
    global _started
    _started = False
    _destinations.clear()
    _core.set_destination(None, None)


def _active_in_mlflow() -> str | None:
    """The id of the experiment that MLflow's own code takes for the active one."""
    fluent = sys.modules.get("mlflow.tracking.fluent")
    return getattr(fluent, "_active_experiment_id", None)


def _experiment_in_force() -> dict[str, str]:
    if location := _location or _location_of_environment():
        return {"id": location}
    experiment_id = _active_in_mlflow()
    if _experiment and experiment_id == _experiment_beside:
        return dict(_experiment)
    if experiment_id:
        return {"id": str(experiment_id)}
    # MLflow lets the name win over the id.
    if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        return {"name": name}
    if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return {"id": experiment_id}
    return {"id": "0"}


def _location_of_environment() -> str | None:
    location = os.environ.get("MLFLOW_TRACING_DESTINATION")
    return location if location and "." not in location else None


def _user() -> str:
    if name := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return name
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return "unknown"


def _route() -> tuple[str, str | None]:
    """The URI of where traces go, and of where they go besides. A collector of OpenTelemetry's
    variables comes before the tracking URI, and set_destination() before both."""
    uri = absolute_uri(tracking_uri())
    collector = otlp.collector_uri()
    if collector is None or otlp.both():
        return uri, collector
    if _location or _locations_in_contexts or _location_of_environment():
        return uri, None
    return collector, None


def destination(
    uri: str, experiment: dict[str, str], collector: str | None = None
) -> dict[str, Any]:
    """What every trace's record says of where it goes and where it comes from.

    Args:
        uri: Where it goes.
        experiment: Its experiment.
        collector: Where it goes besides.
    """
    result: dict[str, Any] = {
        "uri": without_credentials(uri),
        "experiment": experiment,
        "user": _user(),
        "source": sys.argv[0] if sys.argv and sys.argv[0] else "<console>",
        "cwd": os.getcwd(),
        "pid": os.getpid(),
    }
    if workspace := os.environ.get("MLFLOW_WORKSPACE"):
        result["workspace"] = workspace
    if rules := environment.keep_rules():
        result["keep"] = rules
    if collector is not None:
        result["collector"] = without_credentials(collector)
    if collector is not None or otlp.is_collector(uri):
        result["resource"] = otlp.resource()
        if otlp.genai_names():
            result["genai"] = True
    return result


def start() -> None:
    """Called by the core: sets where the traces that start from now on go.

    Threads that start their first trace at the same time wait here for the one that came first. A
    trace that starts inside (a traced log handler, say) is not recorded.
    """
    global _starting_thread, _retry_at
    if _starting_thread == threading.get_ident() or time.monotonic() < _retry_at:
        return
    with _lock:
        if os.getpid() != _pid:
            _child_after_fork()  # by C code: Python's handlers have not run
        if _started or environment.disabled():
            return
        _starting_thread = threading.get_ident()
        try:
            _start()
        finally:
            _starting_thread = None


def _start() -> None:
    global _environment_model, _experiment_of_mlflow, _retry_at, _started
    uri, collector = _route()
    uris = [uri] if collector is None else [uri, collector]
    if not (otlp.is_collector(uri) or uri.startswith(("http://", "https://"))):
        from mlflow_fasttrace._internal.spool import database

        database.guard()
    try:
        homes = [_home_of(spool_for(one), one) for one in uris]
    except OSError as error:
        log.warn(f"Traces are not recorded: no memory for them ({error}).")
        _retry_at = time.monotonic() + _RETRY_SECONDS
        return
    _mirrors.clear()
    _mirrors.update(uris[1:])
    described = destination(uri, _experiment_in_force(), collector)
    _experiment_of_mlflow = _active_in_mlflow()
    _core.set_destination(homes[0].ring, described, *(home.ring for home in homes[1:]))
    try:
        _core.set_sampling(environment.sampling_ratio())
    except ValueError as error:
        log.warn(f"MLFLOW_TRACE_SAMPLING_RATIO: {error}; all traces are recorded.")
        _core.set_sampling(1.0)
    _environment_model = environment.active_model_id()
    if _environment_model is not None:
        _core.use_scopes()  # so that root_context is asked
    # With MLFLOW_ENABLE_ASYNC_TRACE_LOGGING=false a trace is on the server when it has ended.
    _core.set_hook("trace_completed", None if environment.asynchronous() else flush)
    _link_contexts(environment.propagates())
    timeout.watch()
    otlp.warn_of_metrics()
    _started = True
    for home in homes:
        ensure_sender(home)


def _link_contexts(linked: bool) -> None:
    global _contexts_linked
    if linked == _contexts_linked:
        return
    from mlflow_fasttrace._internal.spans.otel_context import link_contexts

    if link_contexts(linked):
        _contexts_linked = linked
    else:
        log.warn(
            "MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT has no effect: OTEL_PYTHON_CONTEXT names another "
            "context than OpenTelemetry's own."
        )


def _in_any_thread(variable: Any, holds: Callable[[Any], bool]) -> bool:
    """Whether a thread's value of MLflow's thread-local variable is one to look at. MLflow's own
    functions find it out too, at ten times the cost for a root."""
    values = vars(variable).get("_ThreadLocalVariable__global_thread_values")
    if values is None:  # another MLflow: let its functions say
        return True
    return any(map(holds, list(values.values())))


def _has_model(context: Any) -> bool:
    return context.model_id is not None


#: Whether MLflow's own code has to do with a trace as a whole; None unless MLflow runs on the core.
wants_whole: Callable[[], bool] | None = None

_experiment_of_mlflow: str | None = None  # MLflow's active one when the destination was worked out

_modules = sys.modules
_location_of_context = _local_location.get
_scope_of_context = _core.scope_var.get

_NOTHING = (None, None, None, False)
_thread_values: tuple[Any, dict[int, Any], dict[int, Any]] = (None, {}, {})


def _nothing_is_active(fluent: Any) -> bool:
    """The usual answer to all that root_context() looks for, in half its time."""
    global _thread_values
    if _environment_model or _location_of_context() or _scope_of_context():
        return False
    context = _modules.get("mlflow.pyfunc.context")
    if context is not None and context.get_prediction_context():
        return False
    if fluent is None:
        return True
    if wants_whole is not None and (
        fluent._active_experiment_id is not _experiment_of_mlflow or wants_whole()
    ):
        return False
    known, runs, models = _thread_values
    if known is not fluent:
        name = "_ThreadLocalVariable__global_thread_values"
        runs = vars(fluent._active_run_stack).get(name)
        models = vars(fluent._ACTIVE_MODEL_CONTEXT).get(name)
        if runs is None or models is None:  # another MLflow
            return False
        _thread_values = (fluent, runs, models)
    if any(list(runs.values())):
        return False
    return not models or not any(map(_has_model, list(models.values())))


def root_context(experiment_id: str | None) -> tuple:
    """What the core asks at the start of a trace, once more than the usual may apply.

    Args:
        experiment_id: What the program asked for, for this trace.

    Returns:
        The encoded destination (None: the usual one), metadata and tags of the trace, and whether
        its spans are kept for ``whole_trace_ended``.
    """
    fluent = _modules.get("mlflow.tracking.fluent")
    if experiment_id is None and _nothing_is_active(fluent):
        return _NOTHING
    metadata: dict[str, Any] = {}
    tags: dict[str, Any] = {}
    experiment_id = experiment_id or _local_location.get()
    if fluent is not None:
        if _in_any_thread(fluent._active_run_stack, bool) and (
            run := fluent._get_latest_active_run()
        ):
            metadata["mlflow.sourceRun"] = run.info.run_id
            if experiment_id is None and not (_location or _location_of_environment()):
                experiment_id = run.info.experiment_id
        if (_environment_model or _in_any_thread(fluent._ACTIVE_MODEL_CONTEXT, _has_model)) and (
            model_id := fluent._get_active_model_id_global()
        ):
            metadata["mlflow.modelId"] = model_id
    elif _environment_model:
        metadata["mlflow.modelId"] = _environment_model
    if (module := sys.modules.get("mlflow.pyfunc.context")) and (
        prediction := module.get_prediction_context()
    ):
        if prediction.model_id and "mlflow.modelId" not in metadata:
            metadata["mlflow.modelId"] = prediction.model_id
        if prediction.is_evaluate and prediction.request_id:
            tags["mlflow.eval.requestId"] = prediction.request_id
        tags.update(prediction.dependencies_schemas or {})
    if scope := _core.scope_var.get():
        metadata.update(scope[0])
        tags.update(scope[1])
    whole = wants_whole is not None and (wants_whole() or "mlflow.eval.requestId" in tags)
    if (
        experiment_id is None
        and wants_whole is not None
        and fluent._active_experiment_id is not _experiment_of_mlflow
    ):
        # Set, or forgotten, without a word to anybody.
        experiment_id = str(fluent._active_experiment_id or fluent._get_experiment_id())
    encoded = None
    if experiment_id is not None:
        encoded = _destinations.get(experiment_id)
        if encoded is None:
            uri, collector = _route()
            encoded = _core.encode(destination(uri, {"id": experiment_id}, collector))
            _destinations[experiment_id] = encoded
    return encoded, metadata or None, tags or None, whole


def _home_of(spool: Spool, uri: str) -> _Home:
    """This process's ring for a spool: in shared memory and with the spool on disk, or what of that
    can be had.

    Raises:
        OSError: not even memory can.
    """
    in_memory = spool.in_memory()
    wanted = [spool] if environment.spool_on_disk() else []
    candidates = [*wanted, *filter(None, [in_memory])]
    for name in [*(candidate.name for candidate in candidates), spool.name]:
        if name in _homes:
            return _homes[name]
    reason = None
    for candidate in candidates:
        try:
            home = _Home(candidate, uri, *_make_ring(candidate), spool.name)
        except OSError as error:
            reason = reason or error
            continue
        break
    else:
        capacity = max(environment.ring_bytes(), _MEMORY_RING_BYTES)
        home = _Home(None, uri, _core.RingWriter(None, capacity, "/"), None, spool.name)
    if reason is not None and wanted and home.spool is not spool:
        log.warn(
            f"The spool folder cannot be used ({reason}): what cannot be delivered at once is kept "
            "in memory, up to a bound, and does not outlive the machine. Free space, or set "
            "MLFLOW_FASTTRACE_SPOOL_DIR to a folder that this user can write to."
        )
    name = home.spool.name if home.spool else spool.name
    _homes[name] = home
    _signed_in[name] = home.credentials
    return home


def _make_ring(spool: Spool) -> tuple[_core.RingWriter, str]:
    stem = f"{os.getpid()}-{os.urandom(4).hex()}"
    spill_prefix, memory_prefix = spool.spill_prefixes(stem)
    capacity = environment.ring_bytes()
    spool.make_state()
    for folder, make in ((spool.rings, spool.make_rings), (spool.state, None)):
        path = os.path.join(folder, f"{stem}.ring")
        try:
            if make is not None:
                make()
            ring = _core.RingWriter(
                path,
                capacity,
                spill_prefix,
                spool_max_bytes(spool.state),
                memory_prefix if make is not None else None,
            )
        except OSError as error:
            if make is None:
                raise
            if isinstance(error, PermissionError):
                log.warn(f"Rings lie in {spool.state}, which is slower: {error}.")
        else:
            return ring, path
    raise AssertionError("unreachable")


def _child_after_fork() -> None:
    """A forked child has its own rings; the parent's are not touched."""
    global _lock, _pid, _starting_thread
    _lock = threading.RLock()
    _pid = os.getpid()
    _starting_thread = None
    _homes.clear()
    _left.clear()
    _sender_threads.clear()
    _starts.clear()
    reset()


os.register_at_fork(after_in_child=_child_after_fork)


# ---- the sender ----


def _sender_of(spool: Spool) -> Holder | None:
    """Whoever holds the sender's lock."""
    try:
        fd = os.open(spool.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return holder_of(fd)
    finally:
        os.close(fd)
    return None


def ensure_sender(home: _Home) -> None:
    """Starts a sender unless one is there that can stay. Never waits for it."""
    mode = environment.sender_mode()
    spool = home.spool
    if mode == "none":
        return
    if spool is None:
        _start_sender_thread(home)
        return
    running = _sender_of(spool)
    if running is not None:
        _starts.pop(spool.name, None)
        if running.stays or running.pid in (0, os.getpid()):
            return
        if not (_is_older(running.version) or _has_other_credentials(home)):
            return
        with contextlib.suppress(OSError):
            os.kill(running.pid, signal.SIGTERM)
    if mode == "process" and (why_not := _cannot_spawn(spool)) is None:
        try:
            _spawn_sender(spool, home.uri)
            return
        except (OSError, subprocess.SubprocessError) as error:
            why_not = f"No sender process could be started ({error})"
    if mode == "process":
        log.warn(f"{why_not}: a thread of this program delivers.")
    _start_sender_thread(home)


def _cannot_spawn(spool: Spool) -> str | None:
    """Why this program starts no sender process; None: it does. What runs under the name of an
    embedding or a frozen program is not Python: it would start the program anew."""
    name = os.path.basename(sys.executable or "")
    if "python" not in name.lower() or getattr(sys, "frozen", False):
        return f"{name or 'This program'} is no Python that could run a sender"
    count, since = _starts.get(spool.name, (0, 0.0))
    if count >= _STARTS_IN_VAIN and time.monotonic() - since >= _STARTS_SECONDS:
        return f"Sender processes end as soon as they begin ({spool.log} says why)"
    return None


def _is_older(version: str) -> bool:
    """Whether a sender's release is older than this one."""

    theirs = release_of(version)
    return theirs is not None and theirs < release_of(VERSION)


def _has_other_credentials(home: _Home) -> bool:
    """Whether the server does not let the sender in and this process's environment has changed
    since it had a sender: a token that was refreshed, say."""
    spool, progress = home.spool, home.ring.progress()
    if spool is None or progress is None or progress[5] != _SERVER_DENIES:
        return False
    return spool_for(home.uri).name != _signed_in[spool.name]


def attend() -> None:
    """Called by the core when no sender has looked at the ring for some seconds."""
    with _lock:
        for name, home in list(_homes.items()):
            if home.path is not None and not os.path.exists(home.path):
                # No sender to come will find it, so this process sends what it holds.
                del _homes[name]
                gone = home._replace(spool=None, path=None)
                _left.append(gone)
                _start_sender_thread(gone)
                reset()
            else:
                ensure_sender(home)


# Finds this package and MLflow where the agent finds them, but lets nothing of the agent's folder
# stand in for a module of the standard library.
_SENDER = """\
import os, sys
sys.path[:] = [path for path in sys.path if path]
agent = os.environ.pop("MLFLOW_FASTTRACE_AGENT_PATH").split(os.pathsep)
sys.path += [path for path in agent if path not in sys.path]
from mlflow_fasttrace._internal.sender.__main__ import main
sys.exit(main())
"""


def _spawn_sender(spool: Spool, uri: str) -> None:
    _signed_in[spool.name] = spool_for(uri).name
    count, since = _starts.get(spool.name, (0, time.monotonic()))
    _starts[spool.name] = (count + 1, since)
    environment = dict(os.environ)
    environment["MLFLOW_TRACKING_URI"] = uri
    environment["MLFLOW_FASTTRACE_DISABLE"] = "1"  # the sender itself is never traced
    environment["MLFLOW_FASTTRACE_AGENT_PATH"] = os.pathsep.join(path for path in sys.path if path)
    log = os.open(
        spool.log,
        os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
        0o600,
    )
    sender = [sys.executable, "-c", _SENDER, spool.state, spool.rings]
    try:
        # The shell goes at once and leaves the sender to init: the agent never has a child that
        # it would have to wait for.
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", *sender],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            close_fds=True,
            start_new_session=True,
        )
    finally:
        os.close(log)


def is_sender_thread() -> bool:
    """Whether this thread delivers: it must not wait for delivery."""
    return threading.current_thread() in _sender_threads.values()


def _start_sender_thread(home: _Home) -> None:
    spool = home.spool
    key = spool.name if spool else str(home.ring.fileno())
    thread = _sender_threads.get(key)
    if thread is not None and thread.is_alive():
        return

    # MLflow imports this, and it cannot be imported any more once the main thread has ended, while
    # the thread may still have everything to deliver.
    import concurrent.futures.thread  # noqa: F401

    def run() -> None:
        from mlflow_fasttrace._internal.sender.life import run_sender, run_sender_in_memory

        if spool is not None:
            run_sender(spool.state, spool.rings, home.uri)
        else:
            run_sender_in_memory(home.ring.fileno(), home.uri)

    thread = threading.Thread(target=run, name="mlflow-fasttrace-sender", daemon=True)
    _sender_threads[key] = thread
    thread.start()


# ---- waiting ----


def flush(timeout_seconds: float = FLUSH_SECONDS, *, accept_spooled: bool = False) -> bool:
    """Waits until all that has ended in this process is delivered.

    Args:
        timeout_seconds: How long to wait at most.
        accept_spooled: Also be content when the server does not answer and everything is safe in
            segments on disk (what an exiting process waits for).

    Returns:
        Whether that was reached.
    """
    _core.end_abandoned()
    if environment.sender_mode() == "none":
        return True
    deadline = time.monotonic() + timeout_seconds
    goals = []
    for home in [*_homes.values(), *_left]:
        progress = home.ring.progress()
        if progress is None:
            continue
        head, _tail, delivered, spilled, spill_delivered, *_ = progress
        if delivered >= head and spill_delivered >= spilled:
            continue
        with contextlib.suppress(OSError):
            ensure_sender(home)
        home.ring.request_flush()
        # Who reads a trace back reads it from MLflow, and does not wait for a collector besides.
        goals.append((home, head, spilled, accept_spooled or home.uri in _mirrors))
    pause = 0.001
    while goals:
        goals = [goal for goal in goals if not _reached(goal)]
        if not goals or time.monotonic() >= deadline:
            break
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    return not goals


def _reached(goal: tuple[_Home, int, int, bool]) -> bool:
    home, head, spilled, accept_spooled = goal
    progress = home.ring.progress()
    if progress is None:
        return True
    _head, tail, delivered, _spilled, spill_delivered, server_state, *_ = progress
    if delivered >= head and spill_delivered >= spilled:
        return True
    if not (accept_spooled and server_state >= _SERVER_AWAY and tail >= head):
        return False
    if home.spilled_to_memory():
        return False  # the sender is moving it to disk
    if server_state == _SERVER_DENIES and home.spool is not None:
        if _has_other_credentials(home):
            with contextlib.suppress(OSError):
                ensure_sender(home)
        # A sender that got other credentials has yet to say how it fares.
        return _signed_in[home.spool.name] == home.credentials
    return True


def _at_exit() -> None:
    if os.getpid() != _pid:
        return
    flush(environment.exit_timeout_seconds(), accept_spooled=True)
    for home in [*_homes.values(), *_left]:
        progress = home.ring.progress()
        if progress is None or progress[2] >= progress[0] or environment.sender_mode() == "none":
            continue
        uri = without_credentials(home.uri)
        if home.spool is not None and progress[5] == _SERVER_ANSWERS:
            log.warn(
                f"{uri} has not taken everything yet. What this process recorded is kept "
                f"({home.spool.state}) and delivered afterwards."
            )
        elif home.spool is not None:
            log.warn(
                f"{uri} does not answer yet. What this process recorded is kept "
                f"({home.spool.state}) and delivered when it does."
            )
        else:
            log.warn(f"{uri} does not answer: what this process kept in memory is lost.")


atexit.register(_at_exit)
_core.set_hook("encode_default", values.encode_default)
_core.set_hook("format_exception", values.format_exception)
_core.set_hook("start_recording", start)
_core.set_hook("warn", log.warn)
_core.set_hook("root_context", root_context)
_core.set_hook("restart_sender", attend)
