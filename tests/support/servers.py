"""MLflow's server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from support.processes import ROOT, TESTS
from support.waiting import free_port, wait_until

#: The last release of each minor version of MLflow whose servers are supported, but for the one that the tests
#: are made for. `make test-long` installs them, each on top of .venv.
OTHER_RELEASES = tuple((TESTS / "support/mlflow_releases.txt").read_text().split())


def python_of_release(release: str) -> Path:
    """The interpreter of the virtual environment that has this release of MLflow."""
    return ROOT / f".venv-mlflow-{release}/bin/python"


class MlflowServer:
    """A real ``mlflow server`` on loopback, with one worker over SQLite unless it is told otherwise.

    Its address is known before it is there. It runs from ``start`` to ``stop``, or inside of ``with``.
    """

    python: str | Path = sys.executable
    store = "sqlite:///{folder}/server.db"
    workers = 1
    options: tuple[str, ...] = ()
    environment: dict[str, str] = {}

    def __init__(self, folder: Path, port: int | None = None):
        self.folder = folder
        self.port = port or free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> MlflowServer:
        self.start()
        return self

    def __exit__(self, *exception) -> None:
        self.stop()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                self.python,
                "-m",
                "mlflow",
                "server",
                "--backend-store-uri",
                self.store.format(folder=self.folder),
                "--default-artifact-root",
                str(self.folder / "artifacts"),
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--workers",
                str(self.workers),
                *self.options,
            ],
            stdout=open(self.folder / "server.log", "ab"),
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "MLFLOW_MODEL_CATALOG_URI": "",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                **self.environment,
            },
            start_new_session=True,
        )
        try:
            wait_until(self.answers, 300, "the MLflow server's answer")
        except BaseException:
            self.stop()
            raise

    def answers(self) -> bool:
        """Whether it does; AssertionError when it has ended."""
        assert self.process.poll() is None, (self.folder / "server.log").read_text()[-4000:]
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(self.uri + "/health", timeout=30) as answer:
                return answer.status == 200
        return False

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None
