"""The memory of a program and of its sender, which a container's limit counts together."""

from __future__ import annotations

import pytest
from support.processes import Program, memory_of
from support.quick_server import QuickServer
from support.spools import sender_pids
from support.waiting import wait_until

MEGABYTES = 1 << 20

#: 3,000 traces of ten spans, and a wait for who reads this process's figures.
BURST = """
import os, time
import mlflow_fasttrace as mlflow

os.environ["MLFLOW_EXPERIMENT_NAME"] = "burst"

@mlflow.trace
def leaf(text):
    return text

@mlflow.trace
def root(text):
    for _ in range(9):
        leaf(text)

for _ in range(3000):
    root("x" * 300)
print("recorded", flush=True)
time.sleep(600)
"""

#: Of a few calls of an agent, in whichever package; prints the peak of its resident memory, in bytes.
AGENT = """
import pathlib
PACKAGE
mlflow.set_experiment("memory of an agent")

@mlflow.trace
def tool(text):
    return text.upper()

@mlflow.trace
def agent(text):
    return [tool(text) for _ in range(10)]

for _ in range(100):
    agent("x" * 1000)
mlflow.flush_trace_async_logging()
status = pathlib.Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) << 10)
"""


def test_a_sender_stays_small_in_a_burst_and_gives_back_what_that_took(own_spool, tmp_path):
    with QuickServer() as server:
        program = Program(BURST, tmp_path, MLFLOW_TRACKING_URI=server.uri)
        try:
            assert program.stdout.readline() == "recorded\n", program.stderr.read()
            wait_until(lambda: len(server.infos) == 3000, 60, "the infos of 3,000 traces")
            (pid,) = sender_pids(own_spool)
            assert memory_of(pid, "VmHWM") < 120 * MEGABYTES
            wait_until(
                lambda: memory_of(pid, "VmRSS") < 75 * MEGABYTES, 30, "75 MB of a sender at rest"
            )
        finally:
            program.kill()
            program.communicate()


PACKAGES = {
    "mlflow": "import mlflow",
    "drop-in": "import mlflow_fasttrace as mlflow",
    "installed": "import mlflow, mlflow_fasttrace\nmlflow_fasttrace.install()",
}


@pytest.mark.long
def test_a_program_needs_no_more_memory_than_with_mlflow(server, own_spool, tmp_path):
    programs = {
        name: Program(
            AGENT.replace("PACKAGE", package),
            tmp_path,
            f"with-{name}",
            MLFLOW_TRACKING_URI=server.uri,
        )
        for name, package in PACKAGES.items()
    }
    for program in programs.values():
        program.succeeds()
    peaks = {name: int(program.out) for name, program in programs.items()}
    assert peaks["drop-in"] - peaks["mlflow"] < 5 * MEGABYTES
    assert peaks["installed"] - peaks["mlflow"] < 5 * MEGABYTES
