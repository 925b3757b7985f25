"""Where agents run: hosts and containers, limits, and servers in trouble. In each of them the same program records
the same traces with this package or with MLflow itself; what arrives, how long its exit takes and how much memory
program and sender need is compared (tests/load/test_surroundings.py, docs/reliability.md)."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mlflow_fasttrace._internal.spool.folder import SHARED_MEMORY

from support.fault_proxy import FaultProxy, Reply, Request
from support.processes import memory_of
from support.servers import MlflowServer
from support.spools import base_environment, clean_up
from support.traces import client, traces_of
from support.waiting import wait_until

#: Records two halves of traces of three spans. It says when each is recorded, and waits in between for who watches.
PROGRAM = """
import sys, time
{package}
traces = int(sys.argv[1])

@mlflow.trace
def leaf(n):
    return n

@mlflow.trace
def root(n):
    return [leaf(n), leaf(n)]

def half(first, last):
    for n in range(first, last):
        root(n)
        time.sleep(0.01)

began = time.time()
half(0, traces // 2)
worked = time.time() - began
print("half", flush=True)
sys.stdin.readline()
began = time.time()
half(traces // 2, traces)
worked += time.time() - began
status = open("/proc/self/status").read()
print(worked, time.time(), int(status.partition("VmHWM:")[2].split()[0]) << 10, flush=True)
"""

PACKAGES = {"fasttrace": "import mlflow_fasttrace as mlflow", "mlflow": "import mlflow"}

_CONTAINER = ("unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child", "sh", "-c")
_OF_NOBODY = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
#: A user without rights of its own may read what this one may: the interpreter can lie in its home.
_READS_ALL = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
_CGROUP = Path("/sys/fs/cgroup/memory")
_LONGEST = 60.0  # seconds until all has arrived


class Run:
    """One program, or several, in a surrounding.

    Args:
        package: One of ``PACKAGES``.
        server: That the traces go to in the end.
        traces: How many a program records.
    """

    _numbers = itertools.count()

    def __init__(self, package: str, server: MlflowServer, traces: int):
        self.package = package
        self.server = server
        self.traces = traces
        self.experiment = f"surroundings {next(self._numbers)}"
        client(server.uri).create_experiment(self.experiment)
        self.folder = Path(tempfile.mkdtemp(prefix="surroundings-"))
        self.spool = self.folder / "spool"
        self.spool.mkdir()
        self.spool.chmod(0o777)
        self.folder.chmod(0o777)
        self.programs: list[subprocess.Popen] = []
        self.counts_from = 0  # the first trace that has to arrive
        self.failed = 0  # programs that did not run to their end
        self.worked: list[float] = []  # seconds that each program took to record its traces
        self.exits: list[float] = []  # seconds from the last line of each program to its end
        self.arrived_after = 0.0  # seconds from the end of the last program until all had arrived
        self.program_bytes = 0  # the peak of a program's memory
        self.sender_bytes = 0  # that of the senders

    def start(self, where: Surrounding, command: tuple[str, ...], uri: str) -> None:
        """Starts one program, by a command that goes before the interpreter."""
        environment = {
            **os.environ,
            **base_environment(self.spool),
            "MLFLOW_FASTTRACE_EXIT_TIMEOUT": "5",
            "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_EXPERIMENT_NAME": self.experiment,
            "TMPDIR": str(self.folder),
            **where.environment,
        }
        for name in where.without:
            environment.pop(name, None)
        code = PROGRAM.format(package=PACKAGES[self.package])
        self.programs.append(
            subprocess.Popen(
                [*command, sys.executable, "-c", code, str(self.traces)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=open(self.folder / "said", "a"),
                text=True,
                cwd=self.folder,
                env=environment,
            )
        )

    def half(self, program: subprocess.Popen) -> None:
        """Waits until a program has recorded the first half, or has ended before."""
        assert program.stdout is not None
        program.stdout.readline()

    def go_on(self, program: subprocess.Popen) -> None:
        """Lets it record the second half and end."""
        with contextlib.suppress(BrokenPipeError):
            out, _ = program.communicate("\n")
        ended = time.time()
        if program.returncode != 0 or not out:
            self.failed += 1
            return
        worked, said, peak = out.split()
        self.worked.append(float(worked))
        self.exits.append(ended - float(said))
        self.program_bytes = max(self.program_bytes, int(peak))

    def said(self) -> str:
        """What the programs wrote to their stderr."""
        return (self.folder / "said").read_text()

    def arrived(self) -> int:
        """The traces that are on the server, whole and once each, of those that have to arrive."""
        logging.getLogger("mlflow.tracing.client").setLevel(
            logging.ERROR
        )  # spans that are not there yet
        numbers = []
        for trace in traces_of(self.server.uri, self.experiment):
            if trace.info.state.value == "OK" and len(trace.data.spans) == 3:
                numbers += [span.inputs["n"] for span in trace.data.spans if span.parent_id is None]
        counted = [n for n in numbers if n >= self.counts_from]
        assert max(map(counted.count, counted), default=0) <= len(self.programs), "some are double"
        return len(counted)

    def expected(self) -> int:
        return (self.traces - self.counts_from) * len(self.programs)

    def senders(self) -> list[int]:
        """The sender processes of the programs, wherever their spools are."""
        found = []
        mine = f"\0MLFLOW_EXPERIMENT_NAME={self.experiment}\0"
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended
                if "mlflow_fasttrace._internal.sender" in (process / "cmdline").read_text():
                    if mine in "\0" + (process / "environ").read_text():
                        found.append(int(process.name))
        return found

    def end_senders(self) -> None:
        for pid in self.senders():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def watch_senders(self, ended: threading.Event) -> None:
        """Looks at the memory of the senders until it is over."""
        while not ended.wait(0.1):
            together = 0
            for pid in self.senders():
                with contextlib.suppress(OSError, IndexError):
                    together += memory_of(pid, "VmHWM")
            self.sender_bytes = max(self.sender_bytes, together)

    def remove(self) -> None:
        for program in self.programs:
            if program.poll() is None:
                program.kill()
                program.communicate()
        self.end_senders()
        for spool in (self.spool, *self.folder.glob("mlflow-fasttrace-*")):
            clean_up(spool)
        shutil.rmtree(self.folder, ignore_errors=True)


def _nothing(run: Run) -> None:
    pass


class Surrounding(NamedTuple):
    """Where a program runs, and what happens to it."""

    command: tuple[str, ...] = ()  # goes before the interpreter
    environment: dict[str, str] = {}
    without: tuple[str, ...] = ()  # variables that it has not
    fault: Callable[[Request], Reply | None] | None = None  # of the way to the server
    memory_megabytes: int | None = None  # that program and sender have together
    between: Callable[[Run], None] = _nothing  # happens when the first half is recorded
    after: Callable[[Run], None] = _nothing  # happens when all programs of this package have ended
    programs: int = 1
    at_once: int = 1
    traces: int = 100  # of each program


def _send(run: Run) -> None:
    """What is kept is delivered by hand."""
    subprocess.run(
        [*_OF_NOBODY, *_READS_ALL, sys.executable, "-m", "mlflow_fasttrace", "send"],
        env={
            **os.environ,
            **base_environment(run.spool),
            "MLFLOW_TRACKING_URI": run.server.uri,
            "MLFLOW_EXPERIMENT_NAME": run.experiment,
        },
        cwd=run.folder,
        check=True,
        capture_output=True,
    )


def _container(mounts: str, *command: str) -> tuple[str, ...]:
    return (*_CONTAINER, f'{mounts} && exec "$0" "$@"', *command)


def _own_memory(megabytes: int) -> str:
    return f"mount -t tmpfs -o size={megabytes}m tmpfs {SHARED_MEMORY}"


def _slow(_request: Request) -> None:
    time.sleep(0.5)


def _freeze(run: Run) -> None:
    (program,) = run.programs
    stopped = [program.pid, *run.senders()]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3)
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _in_a_moment(then: Callable[[], None]) -> None:
    """Has something happen after the program has ended, as far as it is the sender's to wait for it."""
    threading.Timer(4.0, then).start()


def _full_disk(run: Run) -> None:
    """The server's files may not grow for a while."""
    assert run.server.process is not None
    group = run.server.process.pid
    pids = [int(p.name) for p in Path("/proc").glob("[0-9]*") if _group_of(p) == group]
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    def free() -> None:
        for pid in pids:
            infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, infinite)

    _in_a_moment(free)


def _group_of(process: Path) -> int:
    try:
        return os.getpgid(int(process.name))
    except ProcessLookupError:
        return 0


def _locked_database(run: Run) -> None:
    database = sqlite3.connect(run.server.folder / "server.db", check_same_thread=False)
    database.execute("BEGIN EXCLUSIVE")
    _in_a_moment(database.close)


def _restored_server(run: Run) -> None:
    """The server is put back to where it was before the first half."""
    wait_until(lambda: run.arrived() == run.traces // 2, 60, "the first half")
    run.counts_from = run.traces // 2
    run.server.stop()
    shutil.copy(run.folder / "backup.db", run.server.folder / "server.db")
    for rest in run.server.folder.glob("server.db-*"):
        rest.unlink()
    threading.Thread(target=run.server.start).start()


@contextlib.contextmanager
def memory_limit(megabytes: int):
    """A group of processes whose memory is bounded; the command that puts a program into it.

    Raises:
        OSError: none may be made here.
    """
    group = _CGROUP / f"fasttrace-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(megabytes << 20))
        yield ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"')
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), 60, "the end of its processes")
        group.rmdir()


def missing(where: Surrounding) -> str | None:
    """Why there is no such surrounding here; None where there is."""
    if where.command[:1] == _CONTAINER[:1]:
        tried = subprocess.run([*_CONTAINER, _own_memory(1)], capture_output=True, text=True)
        return f"no containers may be made here: {tried.stderr}" if tried.returncode else None
    if where.command and os.geteuid() != 0:
        return "only root may become another user"
    if where.memory_megabytes is not None and not _memory_is_limited():
        return "no group of processes can have its memory limited here"
    return None


@functools.cache
def _memory_is_limited() -> bool:
    try:
        with memory_limit(32) as command:
            hog = [*command, sys.executable, "-c", "x = b'x' * (64 << 20)"]
            return subprocess.run(hog, capture_output=True).returncode != 0
    except OSError:
        return False


_HOME = ("HOME", "LOGNAME", "USER", "XDG_STATE_HOME", "MLFLOW_FASTTRACE_SPOOL_DIR")
_KILOBYTES = 1 << 10

#: By what the table calls them.
SURROUNDINGS = {
    "a host": Surrounding(),
    "a container, its main process": Surrounding(_container(_own_memory(64))),
    "the same, 1 MB of shared memory": Surrounding(_container(_own_memory(1))),
    "the same, no shared memory": Surrounding(
        _container(
            f"umount -l {SHARED_MEMORY} && {_own_memory(1)} && mount -o remount,ro {SHARED_MEMORY}"
        )
    ),
    "two containers, one spool folder": Surrounding(
        _container(_own_memory(64)), programs=2, at_once=2
    ),
    "a read-only root and a /tmp in memory": Surrounding(
        _container(
            f"{_own_memory(64)} && mount -t tmpfs tmpfs /tmp && mount -o remount,bind,ro / && cd /tmp"
        ),
        {"HOME": "/root"},
        ("MLFLOW_FASTTRACE_SPOOL_DIR",),
    ),
    "a user id that nobody has, and no home": Surrounding(
        (*_OF_NOBODY, *_READS_ALL), without=_HOME
    ),
    "files of 1 MB at most (`ulimit -f`)": Surrounding(("prlimit", f"--fsize={1 << 20}", "--")),
    "48 open files at most (`ulimit -n`)": Surrounding(("prlimit", "--nofile=48", "--")),
    "no further process or thread (`ulimit -u`), and `send` afterwards": Surrounding(
        ("prlimit", "--nproc=1", "--", *_OF_NOBODY, *_READS_ALL), after=_send
    ),
    "256 MB of memory for all processes (cgroup)": Surrounding(memory_megabytes=256),
    "96 MB of memory for all processes (cgroup)": Surrounding(memory_megabytes=96),
    "1 GB of addresses (`ulimit -v`)": Surrounding(("prlimit", f"--as={1 << 30}", "--")),
    "stopped for 3 s, with all of its processes": Surrounding(between=_freeze),
    "a server that takes 0.5 s for an answer": Surrounding(fault=_slow),
    "a server with a full disk for 4 s": Surrounding(between=_full_disk),
    "a server with a locked database for 4 s": Surrounding(between=_locked_database),
    "a server that is restored from a backup": Surrounding(between=_restored_server),
    "50 short programs one after another": Surrounding(programs=50, traces=2),
    "50 short programs at once": Surrounding(programs=50, at_once=50, traces=2),
}


def run_in(where: Surrounding, package: str, server: MlflowServer) -> Run:
    """Runs the program in a surrounding, and waits until what it recorded has arrived, or will not any more.

    Returns:
        The run, with its figures; ``remove`` it in the end.
    """
    run = Run(package, server, where.traces)
    shutil.copy(server.folder / "server.db", run.folder / "backup.db")
    over = threading.Event()
    watcher = threading.Thread(target=run.watch_senders, args=[over])
    watcher.start()
    try:
        with contextlib.ExitStack() as stack:
            uri, command = server.uri, where.command
            if where.memory_megabytes is not None:
                command = (*stack.enter_context(memory_limit(where.memory_megabytes)), *command)
                stack.callback(run.end_senders)
            if where.fault is not None:
                uri = stack.enter_context(FaultProxy(uri, where.fault)).uri
            for _ in range(where.programs // where.at_once):
                begun = len(run.programs)
                for _ in range(where.at_once):
                    run.start(where, command, uri)
                started = run.programs[begun:]
                for program in started:
                    run.half(program)
                where.between(run)
                threads = [
                    threading.Thread(target=run.go_on, args=[program]) for program in started
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            if package == "fasttrace":
                where.after(run)
            # MLflow itself has done all that it does; a sender goes on.
            ended = time.monotonic()
            with contextlib.suppress(AssertionError):
                seconds = _LONGEST if package == "fasttrace" else 3.0
                wait_until(lambda: run.arrived() >= run.expected(), seconds)
                run.arrived_after = time.monotonic() - ended
    except BaseException:
        run.remove()
        raise
    finally:
        over.set()
        watcher.join()
    return run
