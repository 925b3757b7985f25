"""Puts the Pythons that the distribution does not have yet into .pythons/: Debian's packages of its unstable
release, unpacked, not installed.

They come by apt with a configuration of their own, so that the system's packages stay as they are. The programs
get the path of their own C library, so that they run beside the system's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".pythons"
VERSIONS = ("3.14", "3.15")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def main() -> None:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            print(
                f"{program} is missing: put Python {' and '.join(VERSIONS)} on the PATH, or go without"
            )
            return
    if shutil.which("patchelf") is None:
        run("apt-get", "install", "-y", "-qq", "patchelf")
    shutil.rmtree(FOLDER, ignore_errors=True)
    with tempfile.TemporaryDirectory() as work:
        download(Path(work))
        for package in sorted(Path(work).glob("cache/archives/*.deb")):
            run("dpkg-deb", "-x", package, FOLDER)
    loaders = sorted(FOLDER.glob("usr/lib*/ld-linux-*.so.*"))
    libraries = next(FOLDER.glob("usr/lib/*/libc.so.6")).parent
    for version in VERSIONS:
        program = FOLDER / "usr/bin" / f"python{version}"
        # RPATH, which unlike RUNPATH also counts for what extension modules need.
        run(
            *("patchelf", "--set-interpreter", loaders[0]),
            *("--force-rpath", "--set-rpath", libraries, program),
        )
        run(program, "-c", "import sqlite3, ssl, sys, venv, zlib; print(sys.version)")


def download(work: Path) -> None:
    """Download the packages with all that they need, whatever is installed here."""
    (work / "state/lists/partial").mkdir(parents=True)
    (work / "cache/archives/partial").mkdir(parents=True)
    (work / "status").touch()
    (work / "sources").write_text(f"deb [signed-by={KEYRING}] {debians_place()} sid main\n")
    configuration = work / "apt.conf"
    configuration.write_text(
        f'Dir::State "{work}/state";\n'
        f'Dir::State::status "{work}/status";\n'
        f'Dir::Cache "{work}/cache";\n'
        f'Dir::Etc::sourcelist "{work}/sources";\n'
        'Dir::Etc::sourceparts "-";\n'
        'APT::Install-Recommends "false";\n'
        'APT::Sandbox::User "root";\n'
    )
    packages = [f"python{version}{part}" for version in VERSIONS for part in ("", "-venv")]
    for arguments in (["update"], ["-y", "--download-only", "install", *packages]):
        run("env", f"APT_CONFIG={configuration}", "apt-get", "-qq", *arguments)


def debians_place() -> str:
    """Where this system has Debian's packages from."""
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(targets, capture_output=True, text=True, check=True).stdout
    places = [place for place in listed.splitlines() if "security" not in place]
    if not places:
        sys.exit("apt-get knows no place of Debian's packages: run apt-get update")
    return places[0]


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main()
