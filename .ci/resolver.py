"""Whether this package changes what is installed beside it: for each framework that agents are written with, what
is resolved with MLflow alone and with this package, too, for each Python.

    .venv-wheels/bin/python .ci/resolver.py

Prints a line each, and exits with 1 where a version is another one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FRAMEWORKS = (
    "langchain",
    "llama-index",
    "dspy",
    "crewai",
    "litellm",
    "google-adk",
    "openai-agents",
    "autogen-agentchat",
    "databricks-sdk",
)
PYTHONS = ("3.10", "3.13")
BESIDE = ("mlflow", "mlflow-tracing")


def main() -> int:
    changed = 0
    for python in PYTHONS:
        for framework in FRAMEWORKS:
            for mlflow in BESIDE:
                before = resolved(python, framework, mlflow)
                after = resolved(python, framework, mlflow, f"mlflow-fasttrace @ {ROOT.as_uri()}")
                others = {
                    name: f"{version} -> {after.get(name)}"
                    for name, version in before.items()
                    if after.get(name) != version
                }
                added = sorted(after.keys() - before.keys() - {"mlflow-fasttrace"})
                changed += bool(others)
                print(
                    f"Python {python}, {framework} and {mlflow}: {len(before)} packages, "
                    f"changed: {others or 'none'}, added: {', '.join(added) or 'none'}",
                    flush=True,
                )
    return bool(changed)


def resolved(python: str, *requirements: str) -> dict[str, str]:
    """The packages of a resolution, with their versions."""
    uv = [Path(sys.executable).with_name("uv"), "pip", "compile", "--quiet", "--no-header"]
    result = subprocess.run(
        [*uv, "--no-annotate", "--python-version", python, "-"],
        input="\n".join(requirements),
        capture_output=True,
        text=True,
        env={**os.environ, "FASTTRACE_PURE": "1"},
    )
    if result.returncode != 0:
        sys.exit(f"{requirements} on Python {python}: {result.stderr}")
    lines = (line.partition(" ")[0].partition("==") for line in result.stdout.splitlines())
    return {name: version for name, _, version in lines}


if __name__ == "__main__":
    sys.exit(main())
