"""
``kagimori version``: what is installed.
"""

from __future__ import annotations

import platform
import sqlite3
from importlib import metadata

import click

import kagimori
from kagimori.cli.command import Command, session


@click.command("version", cls=Command, help="help.version")
@click.pass_context
def command(context: click.Context) -> None:
    """
    Say what is installed.
    """
    output = session(context).output
    found = {
        "kagimori": kagimori.__version__,
        "python": platform.python_version(),
        "cryptography": metadata.version("cryptography"),
        "sqlite": sqlite3.sqlite_version,
    }
    if output.as_json:
        output.json(found)
        return
    for name, version in found.items():
        output.line(f"{name} {version}")
