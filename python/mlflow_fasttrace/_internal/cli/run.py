"""``mlflow-fasttrace run``: a program with MLflow on the core."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from typing import NoReturn

import click

from mlflow_fasttrace._internal.base.texts import printable
from mlflow_fasttrace._internal.config import environment

#: The folder whose ``sitecustomize`` every Python imports that has it in PYTHONPATH.
_BOOTSTRAP = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bootstrap")


# Exit codes, as a shell has them.
_CANNOT_BE_EXECUTED = 126
_NOT_FOUND = 127

_FIRST_LINE_BYTES = 200


@click.command(
    epilog="Example: mlflow-fasttrace run app.py    (or: run -m package, run gunicorn app:app)",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
)
@click.argument("command", metavar="[--] SCRIPT.py|-m MODULE|COMMAND [ARGUMENT]...", nargs=-1)
@click.pass_context
def run(context: click.Context, command: tuple[str, ...]) -> None:
    """Runs a program with MLflow on the core, unchanged, and its child processes too.

    What it imports as `mlflow` records as mlflow-fasttrace does. SCRIPT.py and -m MODULE are run by
    this Python; another command (gunicorn, pytest) is run as it is. MLFLOW_FASTTRACE_DISABLE=1 leaves
    everything to MLflow itself.

    The exit code is the program's; 127 where there is no such program, 126 where it cannot be executed.
    """
    if not command or command[0] in ("-h", "--help"):
        click.echo(context.get_help())
        context.exit(0 if command else 2)
    arguments = list(command)
    program = arguments[0]
    executable = shutil.which(program)
    if _is_for_python(program):
        executable = sys.executable
        arguments.insert(0, executable)
    elif executable is None:
        if not os.path.lexists(program):
            _give_up(f"{program}: there is no such command or file", _NOT_FOUND)
        _give_up(f"{program} cannot be executed: {os.strerror(errno.EACCES)}", _CANNOT_BE_EXECUTED)
    sys.stdout.flush()
    try:
        os.execvpe(executable, arguments, _environment())
    except OSError as error:
        code = _NOT_FOUND if error.errno == errno.ENOENT else _CANNOT_BE_EXECUTED
        _give_up(f"{program} cannot be executed: {error.strerror}", code)


def _give_up(reason: str, code: int) -> NoReturn:
    click.echo(f"mlflow-fasttrace: {printable(reason)}", err=True)
    sys.exit(code)


def _environment() -> dict[str, str]:
    """The environment in which a Python puts MLflow on the core."""
    others = [folder for folder in environment.python_path() if folder != _BOOTSTRAP]
    path = os.pathsep.join([_BOOTSTRAP, *others])
    return environment.of_child(MLFLOW_FASTTRACE="1", PYTHONPATH=path)


def _is_for_python(word: str) -> bool:
    """Whether this Python runs it: an option of Python's, a Python file or folder that is there, or a file
    that says so in its first line and is no command."""
    if word.startswith("-"):
        return True
    if word.endswith((".py", ".pyz")) or os.path.isdir(word):
        return os.path.exists(word)
    return shutil.which(word) is None and _names_python(word)


def _names_python(path: str) -> bool:
    """Whether the first line of a file names Python as what runs it."""
    try:
        with open(path, "rb") as file:
            line = file.readline(_FIRST_LINE_BYTES)
    except OSError:
        return False
    return line.startswith(b"#!") and b"python" in line
