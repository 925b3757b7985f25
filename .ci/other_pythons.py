"""Puts Pythons that the distribution does not have into .pythons/: Debian's packages, unpacked, not installed.

    .pythons/newer      3.14 and 3.15, of the unstable release
    .pythons/aarch64    the stable release's Python for that processor, which qemu-user runs
    .pythons/free       its 3.13 without the GIL, compiled from its sources, since nobody packages it

They come by apt with a configuration of their own, so that the system's packages stay as they are. The programs
get the path of their own C library, so that they run beside the system's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".pythons"
NEWER = ("3.14", "3.15")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def main() -> None:
    by_apt = shutil.which("apt-get") and os.getuid() == 0
    if not by_apt or not Path(KEYRING).exists():
        print(
            "Tests on other Pythons are skipped: these are Debian's packages, got by apt-get, as root."
        )
        return
    run(
        *("apt-get", "install", "-y", "-qq", "--no-install-recommends", "patchelf", "qemu-user"),
        *("gcc", "libffi-dev", "libssl-dev", "make", "xz-utils", "zlib1g-dev"),
    )
    shutil.rmtree(FOLDER, ignore_errors=True)
    newer = unpack(
        "newer",
        "sid",
        "amd64",
        [f"python{version}{part}" for version in NEWER for part in ("", "-venv")],
    )
    loaders = sorted(newer.glob("usr/lib*/ld-linux-*.so.*"))
    libraries = next(newer.glob("usr/lib/*/libc.so.6")).parent
    for version in NEWER:
        program = newer / "usr/bin" / f"python{version}"
        # RPATH, which unlike RUNPATH also counts for what extension modules need.
        run(
            *("patchelf", "--set-interpreter", loaders[0]),
            *("--force-rpath", "--set-rpath", libraries, program),
        )
        run(program, "-c", "import sqlite3, ssl, sys, venv, zlib; print(sys.version)")
    foreign = unpack("aarch64", "stable", "arm64", ["python3"])
    run(
        "qemu-aarch64",
        "-L",
        foreign,
        foreign / "usr/bin/python3",
        "-c",
        "import sys; print(sys.version)",
    )
    without_gil()


def unpack(name: str, release: str, architecture: str, packages: list[str]) -> Path:
    """Unpack packages with all that they need, whatever is installed here.

    Args:
        name: The folder's, below .pythons.
        release: Of Debian.
        architecture: What Debian calls it.
        packages: Their names.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        apt_get = apt_for(work, "deb", release, architecture)
        run(*apt_get, "-y", "--download-only", "install", *packages)
        (FOLDER / name).mkdir(parents=True)
        for package in sorted(work.glob("cache/archives/*.deb")):
            run("dpkg-deb", "-x", package, FOLDER / name)
    if not (FOLDER / name / "lib").exists():
        # As the package of the base system has it; programs name their loader by it.
        (FOLDER / name / "lib").symlink_to("usr/lib")
    return FOLDER / name


def without_gil() -> None:
    """Compile the stable release's Python without the GIL."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        apt_get = apt_for(work, "deb-src", "stable", "amd64")
        run(*apt_get, "--download-only", "--tar-only", "source", "python3.13", cwd=work)
        (sources,) = work.glob("*.orig.tar.*")
        run("tar", "xf", sources, cwd=work)
        (tree,) = work.glob("Python-*")
        configure = ["./configure", "-q", "--disable-gil", "--disable-test-modules"]
        run(*configure, "--without-ensurepip", f"--prefix={FOLDER}/free", cwd=tree)
        run("make", "-s", f"-j{os.cpu_count()}", "install", cwd=tree)
    run(FOLDER / "free/bin/python3.13", "-c", "import ctypes, ssl, sys, zlib; print(sys.version)")


def apt_for(work: Path, kind: str, release: str, architecture: str) -> list[str | Path]:
    """An apt-get of its own.

    Args:
        work: Where it keeps everything.
        kind: What it knows: packages (deb) or sources (deb-src).
        release: Of Debian.
        architecture: What Debian calls it.

    Returns:
        The beginning of its command.
    """
    (work / "state/lists/partial").mkdir(parents=True)
    (work / "cache/archives/partial").mkdir(parents=True)
    (work / "status").touch()
    (work / "sources").write_text(
        f"{kind} [signed-by={KEYRING}] {debians_place()} {release} main\n"
    )
    configuration = work / "apt.conf"
    configuration.write_text(
        f'Dir::State "{work}/state";\n'
        f'Dir::State::status "{work}/status";\n'
        f'Dir::Cache "{work}/cache";\n'
        f'Dir::Etc::sourcelist "{work}/sources";\n'
        'Dir::Etc::sourceparts "-";\n'
        f'APT::Architecture "{architecture}";\n'
        f'APT::Architectures {{ "{architecture}"; }};\n'
        'APT::Install-Recommends "false";\n'
        'APT::Sandbox::User "root";\n'
    )
    apt_get: list[str | Path] = ["env", f"APT_CONFIG={configuration}", "apt-get", "-qq"]
    run(*apt_get, "update")
    return apt_get


def debians_place() -> str:
    """Where this system has Debian's packages from."""
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(targets, capture_output=True, text=True, check=True).stdout
    places = [place for place in listed.splitlines() if "security" not in place]
    if not places:
        sys.exit("apt-get knows no place of Debian's packages: run apt-get update")
    return places[0]


def run(*command: object, cwd: Path | None = None) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=cwd)


if __name__ == "__main__":
    main()
