"""Builds the one extension module, mlflow_fasttrace._core, against the Limited API of CPython 3.10.

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

from setuptools import Extension, setup

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


setup(
    ext_modules=[extension()],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
