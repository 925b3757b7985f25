"""Libraries that are preloaded into programs of the tests, for faults that the machine does not have."""

from __future__ import annotations

import subprocess
from pathlib import Path


def build_shim(name: str, folder: Path) -> str:
    """Compiles ``<name>.c`` of this folder.

    Returns:
        The path for ``LD_PRELOAD``.
    """
    source = Path(__file__).with_name(f"{name}.c")
    shim = folder / f"{name}.so"
    command = ["cc", "-O1", "-fPIC", "-shared", "-o", str(shim), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return str(shim)
