"""What tests of MLflow's UI have: a browser that looks at the server."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import mlflow_ui
from support.mlflow_ui import MlflowUi


def pytest_addoption(parser):
    parser.addoption(
        "--pictures", metavar="FOLDER", help="where tests/ui puts pictures of MLflow's UI"
    )


@pytest.fixture(scope="session")
def ui(request):
    """A browser that looks at the server of the session."""
    if mlflow_ui.CHROMIUM is None or mlflow_ui.DRIVER is None:
        pytest.skip("Chromium is not installed (sh .ci/install-browser.sh, as root)")
    with MlflowUi(request.getfixturevalue("server").uri) as ui:
        yield ui


@pytest.fixture(autouse=True)
def pages_are_left(request):
    """One of MLflow's pages that stays open keeps a processor half busy. What a page complains of counts in its
    own test."""
    yield
    if "ui" in request.fixturenames:
        ui = request.getfixturevalue("ui")
        ui.leave()
        ui.complaints()


@pytest.fixture
def picture(ui, request):
    """Takes a picture of what the window shows, if the command line asks for pictures."""
    folder = request.config.getoption("--pictures", default=None)

    def take(name: str) -> None:
        if folder:
            ui.picture(Path(folder) / f"{name}.png")

    return take
