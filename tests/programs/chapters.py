"""Runs programs, each in a fork of this process, which has imported what takes them long.

python -m programs.chapters PROGRAM...

It prints JSON: by each program's path its exit code and what it printed.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from pathlib import Path

import mlflow.openai  # noqa: F401
import openai  # noqa: F401


def main() -> None:
    results = {}
    for program in sys.argv[1:]:
        with tempfile.TemporaryFile() as output:
            child = os.fork()
            if child == 0:
                # It returns from here, so that it ends as any program does.
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                sys.path[0] = str(Path(program).parent)
                sys.argv = [program]
                runpy.run_path(program, run_name="__main__")
                return
            _, status = os.waitpid(child, 0)
            output.seek(0)
            results[program] = (os.waitstatus_to_exitcode(status), output.read().decode())
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
