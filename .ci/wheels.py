"""Builds a source distribution and from it a wheel for every platform, into dist/, and checks them.

    .venv-wheels/bin/python .ci/wheels.py

Linux and macOS are compiled with Zig's C compiler, which is a package of PyPI, has the symbols of every release of
glibc, musl and macOS's system library, and so needs neither containers nor other machines. glibc's is 2.28, as in
the usual containers for wheels; what is called is there from 2.26 on. zstd is compiled in: its one-file form comes
with the sources of the package zstandard. The pure wheel, for all other platforms, has no core; MLflow itself records there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"

ZSTANDARD = "0.25.0"
ZSTANDARD_SHA256 = "7713e1179d162cf5c7906da876ec2ccb9c3a9dcbdffef0cc7f70c3667a205f0b"
ZSTD = "1.5.7"


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
        zstd = zstd_source(work)
        for target in TARGETS:
            build(sources, work / target.tag, target.tag, environment_for(target, zstd))
        build(sources, work / "pure", None, {"FASTTRACE_PURE": "1"})
    check()


def zstd_source(work: Path) -> Path:
    """The folder of zstd's one-file form."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*pip, "--no-binary", ":all:", "--dest", work, f"zstandard=={ZSTANDARD}")
    archive = work / f"zstandard-{ZSTANDARD}.tar.gz"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != ZSTANDARD_SHA256:
        sys.exit(f"{archive.name} is not what it was: SHA-256 {digest}")
    unpack(archive, work)
    return work / f"zstandard-{ZSTANDARD}/zstd"


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
    """Build one wheel from the source distribution, with a list of what is in it."""
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
    run(sys.executable, "-m", "wheel", "unpack", "--dest", work / "open", wheel, quiet=True)
    (tree,) = (work / "open").iterdir()
    (info,) = tree.glob("*.dist-info")
    (info / "sboms").mkdir()
    version = info.name.removesuffix(".dist-info").rpartition("-")[2]
    (info / "sboms/mlflow-fasttrace.cdx.json").write_text(
        bill_of_materials(version, tag is not None)
    )
    run(sys.executable, "-m", "wheel", "pack", "--dest-dir", DIST, tree, quiet=True)


def bill_of_materials(version: str, with_core: bool) -> str:
    """CycloneDX, of what is compiled in (PEP 770)."""
    compiled_in = [
        ("zstd", ZSTD, "BSD-3-Clause", f"pkg:github/facebook/zstd@v{ZSTD}"),
        ("msgpack-c", None, "BSL-1.0", "pkg:github/msgpack/msgpack-c"),
    ]
    components = [
        {
            "type": "library",
            "name": name,
            **({} if number is None else {"version": number}),
            "licenses": [{"license": {"id": license}}],
            "purl": purl,
        }
        for name, number, license, purl in (compiled_in if with_core else [])
    ]
    root = {
        "type": "library",
        "name": "mlflow-fasttrace",
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "purl": f"pkg:pypi/mlflow-fasttrace@{version}",
    }
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": components,
    }
    return json.dumps(document, indent=2) + "\n"


def check() -> None:
    """What tools say of the wheels."""
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
