"""Builds the one extension module, mlflow_fasttrace._core, against the Limited API of CPython 3.10, and writes the
stubs by which type checkers and editors find MLflow's names in this package.

Environment:
    FASTTRACE_PURE=1      no extension: MLflow itself records. So it is on Windows, too
    FASTTRACE_ZSTD=DIR    zstd.c, zstd.h and zstd_errors.h (its one-file form) are compiled in; no zstd is linked
    FASTTRACE_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer, little optimisation
    FASTTRACE_COVERAGE=1  counts which lines run, for gcovr; no optimisation
    FASTTRACE_WERROR=1    warnings are errors (what the tests use)
"""

import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

#: msgpack-c's headers, which a source distribution has with it.
WITH_SDIST = Path("ext/msgpack-c")
#: Those of them that ext/value/wire.h needs, with what they include.
MSGPACK_HEADERS = (
    "object.h",
    "pack_define.h",
    "pack_template.h",
    "sysdep.h",
    "timestamp.h",
    "zone.h",
)

INSTALL = (
    "install it with: apt-get install -y pkg-config libmsgpack-dev libzstd-dev "
    "(from Debian 13 and Ubuntu 24.10 on: libmsgpack-c-dev)"
)


def link_time_optimisation():
    """The flag for it. Zig's compiler (.ci/wheels.py) has another one, and none for macOS."""
    if not sysconfig.get_platform().startswith("linux"):
        return []
    return ["-flto" if "ziglang" in os.environ.get("CC", "") else "-flto=auto"]


def pkg_config(*names):
    """The compile and link flags of the first of these packages that pkg-config knows."""
    for name in names:
        try:
            return [
                shlex.split(
                    subprocess.check_output(
                        ["pkg-config", option, name], text=True, stderr=subprocess.DEVNULL
                    )
                )
                for option in ("--cflags", "--libs")
            ]
        except FileNotFoundError:
            sys.exit(f"mlflow-fasttrace: pkg-config is missing; {INSTALL}")
        except subprocess.CalledProcessError:
            continue
    sys.exit(f"mlflow-fasttrace: the C library {names[0]} is missing; {INSTALL}")


#: A CPython without the GIL has no Limited API.
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")
#: Whether there is no core.
PURE = bool(os.environ.get("FASTTRACE_PURE")) or sys.platform == "win32"


def extension():
    return Extension(
        "mlflow_fasttrace._core",
        sources=sorted(glob.glob("ext/**/*.c", recursive=True)),
        depends=sorted(glob.glob("ext/**/*.h", recursive=True)),
        include_dirs=["ext"],
        define_macros=[("Py_LIMITED_API", "0x030a0000")] if LIMITED else [],
        py_limited_api=LIMITED,
    )


class BuildWithLibraries(build_ext):
    """Looks for the C libraries when the extension is compiled: the metadata and a source distribution need none."""

    def build_extension(self, ext):
        link_time = link_time_optimisation()
        ext.extra_compile_args += ["-std=c11", "-Wall", "-Wextra", "-fvisibility=hidden", "-O3"]
        ext.extra_compile_args += link_time
        ext.extra_link_args += link_time
        if WITH_SDIST.exists():
            ext.extra_compile_args += [f"-isystem{WITH_SDIST}"]
        else:
            # Packing needs msgpack-c's headers only.
            ext.extra_compile_args += pkg_config("msgpack-c", "msgpack")[0]
        if zstd := os.environ.get("FASTTRACE_ZSTD"):
            # Nothing of it is seen outside, where another library may have its own.
            ext.extra_compile_args += [
                f"-isystem{zstd}",
                "-DZSTDLIB_VISIBLE=",
                "-DZSTDERRORLIB_VISIBLE=",
            ]
            ext.sources.append(f"{zstd}/zstd.c")
        else:
            cflags, libraries = pkg_config("libzstd")
            ext.extra_compile_args += cflags
            ext.extra_link_args += libraries
        if os.environ.get("FASTTRACE_WERROR"):
            ext.extra_compile_args.append("-Werror")
        if os.environ.get("FASTTRACE_SANITIZE"):
            flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
            flags += ["-fno-omit-frame-pointer", "-O1", "-g"]
            ext.extra_compile_args += flags
            ext.extra_link_args += flags
        if os.environ.get("FASTTRACE_COVERAGE"):
            # Without link-time optimisation, which would put the counts of all files into one.
            flags = ["--coverage", "-fprofile-update=atomic", "-O0", "-g", "-fno-lto"]
            ext.extra_compile_args += flags
            # By this a process that ends by _exit() writes its counts: .ci/counts_at_exit.c.
            ext.extra_link_args += [*flags, "-Wl,-u,__gcov_dump"]
        super().build_extension(ext)


class SourcesWithHeaders(sdist):
    """Adds msgpack-c's headers to a source distribution, so that zstd is all that building it needs."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        if WITH_SDIST.exists():
            return
        folders = [flag[2:] for flag in pkg_config("msgpack-c", "msgpack")[0] if flag[:2] == "-I"]
        found = [
            path
            for path in (*folders, "/usr/include")
            if Path(path, "msgpack/pack_template.h").exists()
        ]
        if not found:
            sys.exit(f"mlflow-fasttrace: msgpack-c's headers are missing; {INSTALL}")
        to = Path(base_dir, WITH_SDIST, "msgpack")
        to.mkdir(parents=True)
        for name in MSGPACK_HEADERS:
            shutil.copy(Path(found[0], "msgpack", name), to)


#: The stub of the package itself: MLflow's own names with MLflow's own types, and what MLflow lacks.
ROOT_STUB = """\
from mlflow import *
from mlflow import (
{modules}
)
from mlflow.entities import SpanType as SpanType
from mlflow_fasttrace import otel as otel
from mlflow_fasttrace import traces as traces
from mlflow_fasttrace._internal.seams.install import install as install
from mlflow_fasttrace._internal.seams.install import is_installed as is_installed
from mlflow_fasttrace._internal.seams.install import uninstall as uninstall

__version__: str
"""


#: Modules of MLflow that have names which type checkers do not see.
WITH_GETATTR = {"entities", "genai.scorers"}


def write_stubs(folder):
    """Write the stub package (PEP 561): a folder for each module of MLflow that python/mlflow_modules.txt names,
    which takes over that module's names. It is a partial one: modules that MLflow lacks are looked for in this
    package. A file instead of a folder would do, but pyright warns of a stub that has no module."""
    modules = [
        name for name in Path("python/mlflow_modules.txt").read_text().split() if name != "otel"
    ]
    stubs = {"py.typed": "partial\n", "fluent.pyi": "from mlflow.tracing.fluent import *\n"}
    top = "\n".join(f"    {name} as {name}," for name in modules if "." not in name)
    stubs["__init__.pyi"] = ROOT_STUB.format(modules=top)
    for name in modules:
        stub = f"from mlflow.{name} import *\n"
        if name in WITH_GETATTR:
            stub += f"from mlflow.{name} import __getattr__ as __getattr__\n"
        stubs[name.replace(".", "/") + "/__init__.pyi"] = stub
    for path, text in stubs.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


class BuildWithStubs(build_py):
    """Adds the stub package to what is built; of an editable install, beside the package."""

    def run(self):
        super().run()
        write_stubs(
            Path("python" if self.editable_mode else self.build_lib, "mlflow_fasttrace-stubs")
        )


def zstd_version(folder):
    header = Path(folder, "zstd.h").read_text()
    parts = [
        re.search(rf"#define ZSTD_VERSION_{part} +(\d+)", header)[1]
        for part in ("MAJOR", "MINOR", "RELEASE")
    ]
    return ".".join(parts)


def bill_of_materials(version):
    """CycloneDX, of what is compiled into the core (PEP 770)."""

    def library(name, number, license, purl):
        versions = {} if number is None else {"version": number}
        licenses = [{"license": {"id": license}}]
        return {"type": "library", "name": name, **versions, "licenses": licenses, "purl": purl}

    components = []
    if not PURE:
        if zstd := os.environ.get("FASTTRACE_ZSTD"):
            number = zstd_version(zstd)
            purl = f"pkg:github/facebook/zstd@v{number}"
            components.append(library("zstd", number, "BSD-3-Clause", purl))
        purl = "pkg:github/msgpack/msgpack-c"
        components.append(library("msgpack-c", None, "BSL-1.0", purl))
    purl = f"pkg:pypi/mlflow-fasttrace@{version}"
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": library("mlflow-fasttrace", version, "Apache-2.0", purl)},
        "components": components,
    }
    return json.dumps(document, indent=2) + "\n"


class WheelWithBill(bdist_wheel):
    """Adds the list of what is compiled in."""

    def write_wheelfile(self, wheelfile_base, *args, **options):
        super().write_wheelfile(wheelfile_base, *args, **options)
        bill = Path(wheelfile_base, "sboms/mlflow-fasttrace.cdx.json")
        bill.parent.mkdir(exist_ok=True)
        bill.write_text(bill_of_materials(self.distribution.get_version()))


setup(
    ext_modules=[] if PURE else [extension()],
    cmdclass={
        "bdist_wheel": WheelWithBill,
        "build_ext": BuildWithLibraries,
        "build_py": BuildWithStubs,
        "sdist": SourcesWithHeaders,
    },
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if LIMITED and not PURE else {},
)
