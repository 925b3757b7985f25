"""Prints what pyproject.toml asks for: the runtime dependencies and one extra, whose name is
the argument."""

import sys
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10
    from setuptools._vendor import tomli as tomllib

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
sys.stdout.write(
    "\n".join(project["dependencies"] + project["optional-dependencies"][sys.argv[1]]) + "\n"
)
