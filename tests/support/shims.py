"""Libraries that are preloaded into programs of the tests, for faults that the machine does not have."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def build_shim(name: str, folder: Path) -> str:
    """Compiles ``<name>.c`` of this folder.

    Returns:
        What ``LD_PRELOAD`` is to be: its path behind what this process was given already, which may have
        to come first, as a sanitizer has.
    """
    source = Path(__file__).with_name(f"{name}.c")
    shim = folder / f"{name}.so"
    command = ["cc", "-O1", "-fPIC", "-shared", "-o", str(shim), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return ":".join(filter(None, (os.environ.get("LD_PRELOAD"), str(shim))))
