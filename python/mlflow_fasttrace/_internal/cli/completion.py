"""``mlflow-fasttrace completion``: what switches completion on in a shell."""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class

from mlflow_fasttrace._internal.cli.output import FAILED

_COMMAND = "mlflow-fasttrace"
_VARIABLE = "_MLFLOW_FASTTRACE_COMPLETE"  # click's own, made of the command's name


@click.command(
    epilog='Example: eval "$(mlflow-fasttrace completion bash)"',
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Prints what switches completion on in a shell: of commands, options, traces and spools.

    \b
    bash, in ~/.bashrc:  eval "$(mlflow-fasttrace completion bash)"
    zsh, in ~/.zshrc:    eval "$(mlflow-fasttrace completion zsh)"
    fish:  mlflow-fasttrace completion fish > ~/.config/fish/completions/mlflow-fasttrace.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    try:
        click.echo(found(context.find_root().command, {}, _COMMAND, _VARIABLE).source())
    except (OSError, RuntimeError) as error:
        click.echo(f"{shell} cannot complete: {error}", err=True)
        sys.exit(FAILED)
