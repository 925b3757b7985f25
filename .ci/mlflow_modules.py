"""Lists the modules of the installed MLflow that programs import: python/mlflow_modules.txt.

    .venv/bin/python .ci/mlflow_modules.py > python/mlflow_modules.txt

Left out are private ones, and those that make up MLflow's server and its command line.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

#: Folders and modules of MLflow that programs do not import.
NOT_FOR_PROGRAMS = {
    "agent",
    "ai_commands",
    "assistant",
    "claude_code",
    "cli",
    "db",
    "db_migrations",
    "demo",
    "experiments",
    "legacy_databricks_cli",
    "mcp",
    "mismatch",
    "ml_package_versions",
    "protos",
    "runs",
    "server",
    "telemetry",
}


def modules(folder: Path, prefix: str = "") -> Iterator[str]:
    """The names of a package's public modules.

    Args:
        folder: The package's folder.
        prefix: What precedes the names.
    """
    for path in sorted(folder.iterdir()):
        name = prefix + path.stem
        if path.name.startswith(("_", ".")) or path.stem in NOT_FOR_PROGRAMS:
            continue
        if (path / "__init__.py").exists():
            yield name
            yield from modules(path, name + ".")
        elif path.suffix == ".py":
            yield name


def main() -> None:
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    print("\n".join(modules(Path(spec.origin).parent)))


if __name__ == "__main__":
    main()
