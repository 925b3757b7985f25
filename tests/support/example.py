"""The pipeline of examples/, under MLflow or the core."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.processes import ROOT


def run_example(module: str, uri: str, experiment: str, folder: Path, **environment: str) -> None:
    """Runs a copy of the pipeline, which records into an experiment of another name.

    Args:
        module: ``mlflow`` or ``mlflow_fasttrace``, which the copy imports.
        folder: For the copy.
    """
    shutil.copytree(ROOT / "examples", folder)
    script = folder / "rag_pipeline.py"
    text = script.read_text(encoding="utf-8")
    assert "import mlflow_fasttrace as mlflow\n" in text
    assert '"RAG demo"' in text
    text = text.replace('"RAG demo"', repr(experiment)).replace("mlflow_fasttrace", module)
    script.write_text(text, encoding="utf-8")
    inherited = {
        k: v for k, v in os.environ.items() if k not in ("OPENAI_BASE_URL", "MLFLOW_RUN_ID")
    }
    result = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**inherited, **environment, "MLFLOW_TRACKING_URI": uri},
    )
    assert result.returncode == 0, result.stderr
