"""Builds a source distribution and from it a wheel for every platform, into dist/, and checks them.

    .venv-wheels/bin/python .ci/wheels.py

Linux and macOS are compiled with Zig's C compiler, which is a package of PyPI, has the symbols of every release of
glibc, musl and macOS's system library, and so needs neither containers nor other machines. glibc's is 2.28, as in
the usual containers for wheels; what is called is there from 2.26 on. zstd is compiled in. The pure wheel, for all
other platforms, has no core; MLflow itself records there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import zstd_source

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"


class Target(NamedTuple):
    """A platform.

    Args:
        zig: What Zig calls it.
        host: What Python calls it: sysconfig.get_platform().
        tag: What the wheel's name says.
    """

    zig: str
    host: str
    tag: str


TARGETS = (
    Target("x86_64-linux-gnu.2.28", "linux-x86_64", "manylinux_2_28_x86_64"),
    Target("aarch64-linux-gnu.2.28", "linux-aarch64", "manylinux_2_28_aarch64"),
    Target("x86_64-linux-musl", "linux-x86_64", "musllinux_1_2_x86_64"),
    Target("aarch64-linux-musl", "linux-aarch64", "musllinux_1_2_aarch64"),
    Target("x86_64-macos.11.0", "macosx-11.0-x86_64", "macosx_11_0_x86_64"),
    Target("aarch64-macos.11.0", "macosx-11.0-arm64", "macosx_11_0_arm64"),
)


def main() -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sdist = [sys.executable, "-m", "build", "--sdist", "--no-isolation"]
        run(*sdist, "--outdir", DIST, ROOT, quiet=True)
        (sources,) = DIST.glob("*.tar.gz")
        zstd = work / "zstd"
        zstd_source.get(zstd)
        for target in TARGETS:
            build(sources, work / target.tag, target.tag, environment_for(target, zstd))
        build(sources, work / "pure", None, {"FASTTRACE_PURE": "1"})
    check()


def environment_for(target: Target, zstd: Path) -> dict[str, str]:
    """What has setup.py compile for another platform."""
    compiler = f"{sys.executable} -m ziglang cc -target {target.zig} -fno-sanitize=undefined -g0"
    shared = "-shared -Wl,-s" if "linux" in target.zig else "-shared -undefined dynamic_lookup"
    return {
        "CC": compiler,
        "LDSHARED": f"{compiler} {shared}",
        "FASTTRACE_ZSTD": str(zstd),
        "_PYTHON_HOST_PLATFORM": target.host,
        "MACOSX_DEPLOYMENT_TARGET": "11.0",
    }


def build(sdist: Path, work: Path, tag: str | None, environment: dict[str, str]) -> None:
    """Build one wheel from the source distribution."""
    work.mkdir()
    unpack(sdist, work)
    (source,) = work.iterdir()
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    run(*pip, "--wheel-dir", work, source, **environment)
    (wheel,) = work.glob("*.whl")
    if tag is not None:
        run(
            *(sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag, wheel),
            quiet=True,
        )
        (wheel,) = work.glob("*.whl")
    shutil.move(wheel, DIST)


def check() -> None:
    """What tools say of the wheels, and of cibuildwheel's configuration, which builds the same ones elsewhere."""
    for platform in ("linux", "macos"):
        cibuildwheel = [sys.executable, "-m", "cibuildwheel", "--platform", platform]
        run(*cibuildwheel, "--print-build-identifiers", ROOT)
    wheels = sorted(DIST.glob("*.whl"))
    assert len(wheels) == len(TARGETS) + 1, wheels
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(DIST.iterdir()))
    run(sys.executable, "-m", "check_wheel_contents", *wheels)
    for wheel in wheels:
        if "abi3" in wheel.name:
            run(sys.executable, "-m", "abi3audit", "--strict", wheel)
        if "manylinux" in wheel.name:  # for musl it looks for musl's own library on this machine
            run(sys.executable, "-m", "auditwheel", "show", wheel)


def unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(folder)


def run(*command: object, quiet: bool = False, **environment: str) -> None:
    """Run a command, which must succeed."""
    subprocess.run(
        [str(part) for part in command],
        check=True,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL if quiet else None,
    )


if __name__ == "__main__":
    main()
