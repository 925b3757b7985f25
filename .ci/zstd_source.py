"""Puts the sources of zstd, in its one-file form, into a folder, for FASTTRACE_ZSTD of setup.py. They come with the
sources of the package zstandard.

    python .ci/zstd_source.py FOLDER
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ZSTANDARD = "0.25.0"
SHA256 = "7713e1179d162cf5c7906da876ec2ccb9c3a9dcbdffef0cc7f70c3667a205f0b"


def get(folder: Path) -> None:
    """Download the sources, which must be those that are expected."""
    with tempfile.TemporaryDirectory() as work:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        pip += ["--no-binary", "zstandard", "--dest", work]
        subprocess.run([*pip, f"zstandard=={ZSTANDARD}"], check=True)
        archive = Path(work, f"zstandard-{ZSTANDARD}.tar.gz")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != SHA256:
            sys.exit(f"{archive.name} is not what it was: SHA-256 {digest}")
        with tarfile.open(archive) as tar:
            tar.extractall(work)
        shutil.copytree(Path(work, f"zstandard-{ZSTANDARD}", "zstd"), folder, dirs_exist_ok=True)


if __name__ == "__main__":
    get(Path(sys.argv[1]))
