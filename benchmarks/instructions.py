"""Instructions of a traced call: valgrind counts them for N calls and for 2 N, the difference is divided
by N. The figure does not depend on the machine's load.

    python benchmarks/instructions.py [--calls 10000] [CASE ...]

The traces of the calls lie in a ring that is large enough for all of them; nothing delivers them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

PROGRAM = """
import sys
import mlflow_fasttrace as mlflow

calls = int(sys.argv[1])


@mlflow.trace
def noop():
    return None


@mlflow.trace
def two(a, b):
    return a


chat = [{{"role": "user", "content": "word " * 160}} for _ in range(4)]


@mlflow.trace
def talk(messages):
    return messages[0]


def scope():
    with mlflow.start_span("s") as span:
        span.set_inputs({{"a": 1}})
        span.set_outputs([1, 2])
        span.set_attribute("k", "v")


@mlflow.trace
def items():
    for n in range({items}):
        yield n


def work():
    {statement}


with mlflow.start_span("root"):
    work()
    for _ in range(calls):
        work()
"""

#: By name: what is called, and how many of it one call makes.
CASES = {
    "noop": ("noop()", 1),
    "two arguments": ("two(1, b='x')", 1),
    "chat": ("talk(chat)", 1),
    "start_span": ("scope()", 1),
    "root": ("pass", 1),
    "item": ("list(items())", 100),
}


def count(program: str, calls: int, folder: str) -> int:
    result = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            sys.executable,
            "-c",
            program,
            str(calls),
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONHASHSEED": "0",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "MLFLOW_FASTTRACE_SPOOL_DIR": os.path.join(folder, "spool"),
            "MLFLOW_FASTTRACE_SENDER": "none",
            "MLFLOW_FASTTRACE_RING_BYTES": str(256 << 20),
        },
    )
    found = re.search(r"Collected : (\d+)", result.stderr)
    if result.returncode != 0 or found is None:
        sys.exit(result.stderr)
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is missing: apt-get install -y valgrind")
    with tempfile.TemporaryDirectory(prefix="fasttrace-instructions-") as folder:
        for name in options.cases:
            statement, parts = CASES[name]
            program = PROGRAM.format(statement=statement, items=parts)
            if name == "root":
                program = program.replace('with mlflow.start_span("root"):', "if True:").replace(
                    "    pass\n", "    noop()\n"
                )
            calls = max(options.calls // parts, 1)
            once, twice = count(program, calls, folder), count(program, 2 * calls, folder)
            print(f"{name:<16}{(twice - once) / (calls * parts):10,.0f} instructions", flush=True)


if __name__ == "__main__":
    main()
