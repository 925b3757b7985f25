"""Makes virtual environments of another Python, for .ci/releases.py: one with MLflow and what comparing with it needs, and
over it one each with the oldest release of MLflow that is supported and with the newest that there is.

    .venv/bin/python .ci/python_venvs.py VERSION
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from support.pythons import interpreter, new_venv, pip_install  # noqa: E402
from support.servers import OTHER_RELEASES  # noqa: E402

#: Of what .venv has, what the tests need that compare with MLflow.
NEEDED = """
    click httpx hypothesis langchain-core mlflow openai opentelemetry-exporter-otlp-proto-http platformdirs
    psycopg2-binary pymysql[rsa] pytest pytest-socket pytest-timeout pytest-xdist rich urllib3 uvicorn
"""


def main(version: str) -> None:
    python = interpreter(version)
    if python is None:
        sys.exit(f"Python {version} is not installed here")
    folder = ROOT / f".venv-python-{version}"
    own = new_venv(python, folder)
    ask = [sys.executable, ".ci/requirements.py", "test"]
    listed = subprocess.check_output(ask, cwd=ROOT, text=True).split()
    needed = [item for item in listed if re.split("[<>=]", item)[0] in NEEDED.split()]
    pip_install(own, "pip", *needed)
    (pinned,) = [item for item in needed if item.startswith("mlflow==")]
    for name, release in (
        (f"mlflow-{OTHER_RELEASES[0]}", f"mlflow=={OTHER_RELEASES[0]}"),
        ("newest-mlflow", pinned.replace("==", ">")),
    ):
        overlay = [own, ROOT / ".ci/overlay_venv.py", f"{folder}-{name}", "--no-deps", release]
        subprocess.run(overlay, cwd=ROOT, check=True)


if __name__ == "__main__":
    main(sys.argv[1])
