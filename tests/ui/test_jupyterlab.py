"""The tutorial's notebook in a real JupyterLab: its cells show their traces."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from selenium.webdriver.common.by import By
from support.processes import ROOT
from support.spools import clean_up
from support.waiting import free_port, wait_until

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        importlib.util.find_spec("jupyterlab") is None, reason="make test-ui installs JupyterLab"
    ),
]

NOTEBOOK = "07_notebook.ipynb"

#: What its cells show: of each display the names of the spans, in any order; of several traces the first one's.
SHOWN = [["longest", "split"], ["look_up"], ["divide"]]

RENDERERS = 'iframe[src*="notebook-trace-renderer"]'


@pytest.fixture
def lab(server, tmp_path):
    """The address of a JupyterLab over a copy of the examples, whose outputs are cleared."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    port = free_port()
    spool = tmp_path / "spool"
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token="),
            "--expose-app-in-browser",
        ],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "lab.log").open("w"),
        env={
            **os.environ,
            **{name: str(tmp_path / name.lower()) for name in folders},
            "MLFLOW_TRACKING_URI": server.uri,
            "MLFLOW_FASTTRACE_SPOOL_DIR": str(spool),
        },
    )
    url = f"http://127.0.0.1:{port}"

    def answers():
        assert process.poll() is None, (tmp_path / "lab.log").read_text()
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return urllib.request.urlopen(f"{url}/api", timeout=5).status == 200

    try:
        wait_until(answers, 120, "JupyterLab answers")
        yield url
    finally:
        process.terminate()
        process.wait(60)
        clean_up(spool)


def test_each_cell_shows_its_traces(ui, lab, picture):
    browser = ui.driver
    browser.get(f"{lab}/lab/tree/examples/tutorial/{NOTEBOOK}?reset")

    def command(name: str) -> None:
        browser.execute_script("window.jupyterapp.commands.execute(arguments[0])", name)

    def kernel_is_idle():
        return browser.execute_script(
            "const widget = window.jupyterapp?.shell.currentWidget;"
            "return widget?.sessionContext?.session?.kernel?.status === 'idle';"
        )

    wait_until(kernel_is_idle, 120, "the kernel")
    command("notebook:clear-all-cell-outputs")
    command("notebook:run-all-cells")

    def renderers():
        found = browser.find_elements(By.CSS_SELECTOR, RENDERERS)
        return found if len(found) == len(SHOWN) else None

    wait_until(renderers, 120, "a display for each cell that traces")
    found = []
    for renderer in renderers():
        browser.execute_script("arguments[0].scrollIntoView()", renderer)
        browser.switch_to.frame(renderer)
        nodes = wait_until(
            lambda: browser.find_elements(By.CSS_SELECTOR, '[data-testid^="timeline-tree-node-"]'),
            60,
            "the trace's tree",
        )
        found.append(sorted(node.text.split("\n")[0] for node in nodes))
        browser.switch_to.default_content()
    assert found == SHOWN
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", renderers()[0])
    picture("notebook")
