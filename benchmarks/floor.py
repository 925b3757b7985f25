"""Builds floor.c, which is measured beside everything else."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path


def build(folder: Path) -> None:
    """Puts the module ``floor_core`` into a folder."""
    command = ["cc", "-O3", "-shared", "-fPIC", "-I", sysconfig.get_paths()["include"]]
    source, target = Path(__file__).with_suffix(".c"), folder / "floor_core.abi3.so"
    subprocess.run([*command, str(source), "-o", str(target)], check=True)
