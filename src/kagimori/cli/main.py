"""
The program ``kagimori``.
"""

from __future__ import annotations

import click

from kagimori.cli.command import Group, session

MODULES = {
    "serve": "kagimori.cli.serve",
    "init": "kagimori.cli.init",
    "keys": "kagimori.cli.keys",
    "ring": "kagimori.cli.ring",
    "tenants": "kagimori.cli.tenants",
    "clients": "kagimori.cli.clients",
    "apis": "kagimori.cli.apis",
    "users": "kagimori.cli.users",
    "tokens": "kagimori.cli.tokens",
    "doctor": "kagimori.cli.doctor",
    "version": "kagimori.cli.version",
    "completion": "kagimori.cli.completion",
}


@click.group(
    cls=Group,
    modules=MODULES,
    help="help.kagimori",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.pass_context
def main(context: click.Context) -> None:
    """
    Begin an invocation.
    """
    session(context)


if __name__ == "__main__":
    main()
