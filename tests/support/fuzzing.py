"""The fuzzing of the core's readers: builds tests/fuzz/fuzz.c and runs its targets.

    .venv/bin/python tests/support/fuzzing.py SECONDS [TARGET ...]

runs each target for so many seconds, two at a time. An input that makes one fail is left in its folder
of tests/fuzz/corpus, where it is tried first from then on: commit it with what mends it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
FUZZ = ROOT / "tests/fuzz"
BUILD = ROOT / "build/fuzz"

#: The inputs that are saved, a folder a target. What a run finds besides is in build/fuzz/corpus.
CORPUS = FUZZ / "corpus"

TARGETS = ("record", "decode", "json_text", "otlp", "segment", "ring")

_CLANG = ("clang", "-std=c11", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")


def can_build() -> bool:
    """Whether there is what instrumented programs are built with."""
    library = Path(sysconfig.get_config_var("LIBDIR")) / sysconfig.get_config_var("LDLIBRARY")
    if shutil.which("clang") is None or ".so" not in library.name or not library.exists():
        return False
    command = ["clang", "-print-runtime-dir"]
    runtime = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return any(Path(runtime).glob("*fuzzer*"))


def compile_with_core(program: Path, source: Path, *flags: str) -> Path:
    """Builds a program of a C file, the core and Python, all but Python with those flags; not where
    it is newer than all of them."""
    sources = [source, *sorted((ROOT / "ext").rglob("*.c"))]
    headers = (ROOT / "ext").rglob("*.h")
    newest = max(file.stat().st_mtime for file in (*sources, *headers, Path(__file__)))
    if program.exists() and program.stat().st_mtime > newest:
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    packages = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libzstd"], capture_output=True, text=True, check=True
    ).stdout.split()
    folder = sysconfig.get_config_var("LIBDIR")
    python = f"-lpython{sysconfig.get_config_var('LDVERSION')}"
    subprocess.run(
        [*_CLANG, *flags, f"-I{ROOT / 'ext'}", f"-I{sysconfig.get_path('include')}"]
        + [*map(str, sources), "-o", str(program)]
        + [f"-L{folder}", f"-Wl,-rpath,{folder}", python, *packages, "-lm"],
        check=True,
    )
    return program


def build() -> Path:
    """The fuzzer of all targets."""
    return compile_with_core(
        BUILD / "fuzz",
        FUZZ / "fuzz.c",
        "-O1",
        "-fsanitize=fuzzer,address,undefined",
        "-fno-sanitize-recover=undefined",
    )


def environment(target: str, folder: Path) -> dict[str, str]:
    """The environment of a target; its files are in that folder."""
    return {
        **os.environ,
        "FUZZ_TARGET": target,
        "FUZZ_FOLDER": str(folder),
        # Python's allocator would hide what is read behind the end of a bytes object.
        "PYTHONMALLOC": "malloc",
        # Python's own modules stay allocated until its end.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def run(target: str, seconds: float) -> subprocess.CompletedProcess:
    """Runs a target: over all saved inputs, then for so many seconds on what it makes of them."""
    found = BUILD / "corpus" / target
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fasttrace-fuzz-", dir="/dev/shm") as folder:
        return subprocess.run(
            [
                BUILD / "fuzz",
                f"-max_total_time={seconds:g}",
                # Of the same program the same inputs are made; another number tries others.
                f"-seed={os.environ.get('FUZZ_SEED', '1')}",
                "-max_len=4096",
                "-rss_limit_mb=3000",
                "-timeout=20",
                "-print_final_stats=1",
                f"-artifact_prefix={CORPUS / target}/",
                found,
                CORPUS / target,
            ],
            capture_output=True,
            text=True,
            errors="replace",
            env=environment(target, Path(folder)),
            timeout=60 + 2 * seconds,
        )


def main() -> int:
    seconds, targets = float(sys.argv[1]), sys.argv[2:] or TARGETS
    build()
    failed = []
    with ThreadPoolExecutor(2) as two:
        for target, result in zip(
            targets, two.map(lambda target: run(target, seconds), targets), strict=True
        ):
            executions = [line for line in result.stderr.splitlines() if "executed_units" in line]
            print(f"{target}: exit code {result.returncode} {' '.join(executions)}", flush=True)
            if result.returncode != 0:
                print(result.stderr[-6000:])
                failed.append(target)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
