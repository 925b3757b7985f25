"""``mlflow-fasttrace run``: a program with MLflow on the core."""

from __future__ import annotations

import os
import shutil
import sys

import click

from mlflow_fasttrace._internal.config import environment

#: The folder whose ``sitecustomize`` every Python imports that has it in PYTHONPATH.
_BOOTSTRAP = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bootstrap")


@click.command(
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
    """
    if not command or command[0] in ("-h", "--help"):
        click.echo(context.get_help())
        context.exit(0 if command else 2)
    arguments = list(command)
    if _is_command(arguments[0]):
        executable = shutil.which(arguments[0]) or arguments[0]
    else:
        executable = sys.executable
        arguments.insert(0, sys.executable)
    sys.stdout.flush()
    try:
        os.execvpe(executable, arguments, _environment())
    except OSError as error:
        raise click.ClickException(f"{executable} cannot be run: {error.strerror}") from None


def _environment() -> dict[str, str]:
    """The environment in which a Python puts MLflow on the core."""
    others = [folder for folder in environment.python_path() if folder != _BOOTSTRAP]
    path = os.pathsep.join([_BOOTSTRAP, *others])
    return environment.of_child(MLFLOW_FASTTRACE="1", PYTHONPATH=path)


def _is_command(word: str) -> bool:
    """Whether a word is a command of its own: no option of Python's, no Python file or folder."""
    if word.startswith("-") or word.endswith((".py", ".pyz")) or os.path.isdir(word):
        return False
    return shutil.which(word) is not None
