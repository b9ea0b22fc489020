"""
``kagimori completion SHELL``: the script that completes commands in a shell.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from kagimori.cli.command import Command, session

SHELLS = ("bash", "zsh", "fish")


@click.command("completion", cls=Command, help="help.completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """
    Print the script of a shell.
    """
    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - SHELLS are all known to click
        raise click.UsageError(shell)
    program = context.find_root().command
    script = kind(program, {}, "kagimori", "_KAGIMORI_COMPLETE").source()
    session(context).output.line(script)
