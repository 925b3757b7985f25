"""Programs in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.waiting import Patience

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"

#: MLflow's exporter sends a trace's spans and its info at once, and its server may then put the previews that it
#: makes of the spans in the place of those that the program has set. One after the other it does not.
ONE_REQUEST_AT_A_TIME = {"MLFLOW_ASYNC_TRACE_LOGGING_MAX_WORKERS": "1"}


class Program(subprocess.Popen):
    """A program that is given as text; ``out`` and ``err`` are what it printed, once it has ended."""

    out: str
    err: str

    def __init__(self, code: str, folder: Path, name: str = "program", **environment: str):
        script = folder / f"{name}.py"
        script.write_text(code)
        super().__init__(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            cwd=folder,
        )
        self.folder = folder

    def finish(self) -> None:
        """Waits for its end."""
        self.out, self.err = self.communicate()

    def succeeds(self) -> None:
        """Waits for its end, which is a good one."""
        self.finish()
        assert self.returncode == 0, self.out + self.err


def memory_of(pid: int, figure: str) -> int:
    """A figure of a process's status, such as VmRSS or VmHWM, in bytes.

    Raises:
        OSError, IndexError: it has ended.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{figure}:")[2].split()[0]) << 10


def module_path() -> str:
    """A PYTHONPATH by which modules are found as in the tests."""
    return os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))


def run_to_its_end(
    command: list[str], seconds: float, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs a program.

    Args:
        command: Of a Python that shows where its threads are when it is aborted (``-X dev`` or
            ``-X faulthandler``).
        seconds: How long it may take (``Patience``); then it is aborted.
        options: Of ``subprocess.Popen``.

    Returns:
        What became of it, and what it printed.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        patience = Patience(seconds)
        try:
            while True:
                try:
                    out, err = process.communicate(timeout=1.0)
                    break
                except subprocess.TimeoutExpired:
                    if patience.is_over():
                        process.send_signal(signal.SIGABRT)
                        out, err = process.communicate()
                        err += f"\nIt was aborted: it ran for {seconds:g} quiet seconds and more."
                        break
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run_module(
    module: str, *arguments: str, seconds: float = 800.0, **environment: str
) -> subprocess.CompletedProcess:
    """Runs a module of tests/programs where the test is, which must end well."""
    result = run_to_its_end(
        [sys.executable, "-X", "faulthandler", "-m", module, *arguments],
        seconds,
        env={**os.environ, **environment, "PYTHONPATH": module_path()},
    )
    assert result.returncode == 0, result.stderr
    return result


def run_programs(module: str, uri: str, prefix: str, *names: str, **environment: str) -> None:
    """Runs the programs of tests/programs, all where none is named, each into an experiment of its
    own: ``<prefix>-<name>``."""
    run_module("programs.run", module, uri, prefix, *names, **environment)
