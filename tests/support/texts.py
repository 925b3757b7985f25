"""The text of programs that tests run in processes of their own, and what must arrive of them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from support.servers import MlflowServer
from support.spools import assert_sender_ends
from support.traces import traces_of
from support.waiting import wait_until

#: How a program that is given as text comes by its ``mlflow``.
IMPORTS = {
    "drop-in": "import mlflow_fasttrace as mlflow",
    "installed": "import mlflow, mlflow_fasttrace; mlflow_fasttrace.install()",
}

#: Traces of two spans: ``root(n)`` records one.
TRACED = """
import os, sys, time
import mlflow_fasttrace as mlflow

@mlflow.trace
def leaf(n):
    return n

@mlflow.trace
def root(n):
    leaf(n)
    return n
"""

#: The end of a program that lets nothing happen at its exit.
KILLS_ITSELF = "\nos.kill(os.getpid(), 9)\n"


_ORIGIN = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d WARNING mlflow_fasttrace: ", re.M)


def without_origin(said: str) -> str:
    """What a program printed, without the time, the level and the origin that its lines of this package begin with."""
    return _ORIGIN.sub("", said)


def says_that_it_waits(said: str) -> bool:
    """Whether a program has said at its exit that its destination has not got everything: it is not there, or, on a
    busy machine, its sender has not tried yet."""
    reasons = ("does not answer yet", "takes nothing now (", "has not been sent anything yet")
    return any(reason in said for reason in reasons)


def shared_memory_in(folder: str | Path) -> str:
    """Lines at the beginning of a program for which a folder takes the place of /dev/shm."""
    return (
        "from mlflow_fasttrace._internal.spool import folder\n"
        f"folder.SHARED_MEMORY = {str(folder)!r}\n"
    )


def wait_for_file(name: str) -> str:
    """Lines of a program that goes on once there is such a file where it runs."""
    return f"\nwhile not os.path.exists({name!r}): time.sleep(0.01)\n"


#: A trace that is open until there is a file ``go``: its first span has ended, its root has not.
ENDS_LATER = f"""
with mlflow.start_span("root"):
    leaf(1)
    print("leaf ended", flush=True)
{textwrap.indent(wait_for_file("go"), "    ")}
"""


def program_text(
    uri: str | None, experiment: str | None, traces: int, then: str = "", before: str = ""
) -> str:
    """A program that records traces.

    Args:
        uri: Where they go; None: where the program's environment says.
        experiment: The experiment's name; None: the environment's.
        traces: How many; their roots have the input ``n``, which counts from 0.
        then: What the program does afterwards.
        before: What it does before the first one.
    """
    lines = [TRACED]
    if uri is not None:
        lines.append(f"mlflow.set_tracking_uri({uri!r})")
    if experiment is not None:
        lines.append(f'os.environ["MLFLOW_EXPERIMENT_NAME"] = {experiment!r}')
    lines += [before, f"for n in range({traces}):\n    root(n)", then]
    return "\n".join(lines)


def assert_all_there(uri: str, experiment: str, traces: int) -> None:
    """All that ``program_text`` records is there, once and whole."""

    def there():
        found = [trace for trace in traces_of(uri, experiment) if len(trace.data.spans) >= 2]
        return found if len(found) >= traces else None

    found = wait_until(there, 90, f"{traces} traces on the server")
    inputs = sorted(trace.data.spans[0].inputs["n"] for trace in found)
    assert inputs == list(range(traces))
    assert {len(trace.data.spans) for trace in found} == {2}
    assert {trace.info.state.value for trace in found} == {"OK"}


def assert_delivered_when_it_is_there(
    folder: Path, port: int, spool: Path, experiment: str, traces: int
) -> None:
    """All arrives at a server that is started only now; then nothing is left to do."""
    with MlflowServer(folder, port) as server:
        assert_all_there(server.uri, experiment, traces)
        assert_sender_ends(spool)
