"""A program with process ids of its own, as in a container: its sender ends with it. Namespaces are made by
``unshare``."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from support.fault_proxy import FaultProxy
from support.texts import assert_all_there, program_text, says_that_it_waits, without_origin
from support.waiting import refusing_port

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
_tried = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True)
pytestmark = pytest.mark.skipif(
    _tried.returncode != 0, reason=f"no namespaces may be made here: {_tried.stderr.strip()}"
)


def run_as_first(code: str, spool, *shim: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs a program as the first of a container, or started by its first, which is a shell."""
    python = [sys.executable, "-c", code]
    command = [*shim, *python] if shim else python
    return subprocess.run(
        [*NAMESPACE, *command],
        env={**os.environ, "MLFLOW_FASTTRACE_SPOOL_DIR": str(spool), **environment},
        capture_output=True,
        text=True,
    )


SHELL = ["sh", "-c", '"$@"; exit $?', "sh"]


@pytest.mark.parametrize("shim", [[], SHELL], ids=["first", "behind a shell"])
def test_the_first_process_waits_until_all_is_delivered(server, own_spool, shim):
    """The server takes longer than any process waits elsewhere."""

    def slow(request):
        time.sleep(0.05)

    name = f"first process {len(shim)}"
    with FaultProxy(server.uri, slow) as proxy:
        program = run_as_first(
            program_text(proxy.uri, name, 60),
            own_spool,
            *shim,
            MLFLOW_FASTTRACE_EXIT_TIMEOUT="0.2",
        )
    assert program.returncode == 0, program.stderr
    lines = without_origin(program.stderr).splitlines()
    assert lines
    for line in lines:  # another one every ten seconds
        assert line.startswith("Nothing that this process leaves outlives it, so it waits until ")
        assert proxy.uri in line
    assert_all_there(server.uri, name, 60)


def test_what_is_lost_with_a_container_is_said(own_spool):
    program = run_as_first(
        program_text(f"http://127.0.0.1:{refusing_port()}", "lost", 5),
        own_spool,
        MLFLOW_FASTTRACE_EXIT_TIMEOUT="0.2",
        MLFLOW_FASTTRACE_CONTAINER_EXIT_TIMEOUT="1",
    )
    assert program.returncode == 0, program.stderr
    waits, lost = program.stderr.splitlines()
    assert "for 1 seconds at most" in waits
    assert says_that_it_waits(lost)
    assert ": what this process recorded ends with its container" in lost


def test_another_process_of_a_container_does_not_wait(own_spool):
    """The sender outlives it: the first one goes on."""
    code = program_text(f"http://127.0.0.1:{refusing_port()}", "kept", 5)
    first = f"""
import subprocess, sys
child = subprocess.run([sys.executable, "-c", {code!r}], capture_output=True, text=True)
print(child.stderr, end="", file=sys.stderr)
"""
    program = run_as_first(first, own_spool, MLFLOW_FASTTRACE_EXIT_TIMEOUT="0.2")
    assert program.returncode == 0, program.stderr
    (line,) = program.stderr.splitlines()
    assert "is kept (" in line
