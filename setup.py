"""Builds the one extension module, mlflow_fasttrace._core, against the Limited API of CPython 3.10, and writes the
stubs by which type checkers and editors find MLflow's names in this package.

Environment:
    FASTTRACE_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer, little optimisation
    FASTTRACE_COVERAGE=1  counts which lines run, for gcovr; no optimisation
    FASTTRACE_WERROR=1    warnings are errors (what the tests use)
"""

import glob
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

INSTALL = (
    "install it with: apt-get install -y pkg-config libmsgpack-dev libzstd-dev "
    "(from Debian 13 and Ubuntu 24.10 on: libmsgpack-c-dev)"
)


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


def extension():
    # Packing needs msgpack-c's headers only; zstd is linked.
    msgpack_cflags, _ = pkg_config("msgpack-c", "msgpack")
    zstd_cflags, zstd_libs = pkg_config("libzstd")
    compile_args = ["-std=c11", "-Wall", "-Wextra", "-fvisibility=hidden", "-O3", "-flto=auto"]
    link_args = ["-flto=auto"]
    if os.environ.get("FASTTRACE_WERROR"):
        compile_args.append("-Werror")
    if os.environ.get("FASTTRACE_SANITIZE"):
        flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        flags += ["-fno-omit-frame-pointer", "-O1", "-g"]
        compile_args += flags
        link_args += flags
    if os.environ.get("FASTTRACE_COVERAGE"):
        # Without link-time optimisation, which would put the counts of all files into one.
        flags = ["--coverage", "-fprofile-update=atomic", "-O0", "-g", "-fno-lto"]
        compile_args += flags
        # By this a process that ends by _exit() writes its counts: .ci/counts_at_exit.c.
        link_args += [*flags, "-Wl,-u,__gcov_dump"]
    limited = not sysconfig.get_config_var("Py_GIL_DISABLED")
    return Extension(
        "mlflow_fasttrace._core",
        sources=sorted(glob.glob("ext/**/*.c", recursive=True)),
        depends=sorted(glob.glob("ext/**/*.h", recursive=True)),
        include_dirs=["ext"],
        define_macros=[("Py_LIMITED_API", "0x030a0000")] if limited else [],
        extra_compile_args=compile_args + msgpack_cflags + zstd_cflags,
        extra_link_args=link_args + zstd_libs,
        py_limited_api=limited,
    )


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


setup(
    ext_modules=[extension()],
    cmdclass={"build_py": BuildWithStubs},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
