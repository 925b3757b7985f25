"""The command ``mlflow-fasttrace``, put together of commands that have a file each.

A command's file is imported when the command is called. So ``run`` and ``doctor`` work where the C
core cannot be loaded, and ``--help`` waits for none of the libraries that commands need.
"""

from __future__ import annotations

from typing import Any

import click

from mlflow_fasttrace._internal.base.version import VERSION

#: The commands, with their lines of ``--help``.
_SUMMARIES = {
    "completion": "What switches completion on in bash, zsh or fish.",
    "doctor": "What is active, where traces go, and what runs on MLflow itself.",
    "run": "Runs a program with MLflow on the core, unchanged.",
    "send": "Delivers what waits, in the foreground.",
    "show": "One trace with all that is known of it, or those of a file.",
    "status": "What is recorded, delivered, waiting and refused.",
    "traces": "The last traces that are known here, or those to come.",
}
_NEED_NO_CORE = frozenset({"completion", "doctor", "run"})


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _SUMMARIES and cmd_name not in _NEED_NO_CORE:
            _check_core()
        return _imported(cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # rich before 13.8 lets it through, and click would exit with 1
            from mlflow_fasttrace._internal.cli.output import end_quietly

            end_quietly()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))


def _check_core() -> None:
    try:
        from mlflow_fasttrace import _core  # noqa: F401
    except ImportError as error:
        raise click.ClickException(f"the C core cannot be loaded: {error}") from None


def _imported(name: str) -> click.Command | None:
    """The command of a name, whose file is imported here; None where there is no such command."""
    if name == "completion":
        from mlflow_fasttrace._internal.cli.completion import completion

        return completion
    if name == "doctor":
        from mlflow_fasttrace._internal.cli.doctor import doctor

        return doctor
    if name == "run":
        from mlflow_fasttrace._internal.cli.run import run

        return run
    if name == "send":
        from mlflow_fasttrace._internal.cli.send import send

        return send
    if name == "show":
        from mlflow_fasttrace._internal.cli.show import show

        return show
    if name == "status":
        from mlflow_fasttrace._internal.cli.status import status

        return status
    if name == "traces":
        from mlflow_fasttrace._internal.cli.traces import traces

        return traces
    return None


@click.group(
    cls=_Commands,
    epilog="Example: mlflow-fasttrace traces --follow",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(VERSION, prog_name="mlflow-fasttrace")
def main() -> None:
    """Runs programs on mlflow-fasttrace, and shows what it has recorded on this machine and whether
    that arrives.

    Everything is read from this user's spools: MLFLOW_FASTTRACE_SPOOL_DIR, or the default folder.
    """
