"""
Opens the installation that a command works on, and says who works on it.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from kagimori.cli.command import option, session
from kagimori.oauth.tenant import DEFAULT_TENANT

tenant_option = option(
    "--tenant", default=DEFAULT_TENANT, metavar="TENANT", help="option.tenant"
)


def actor() -> str:
    """
    Name the operator for the audit trail: the account, and the one behind ``sudo``.
    """
    try:
        account = getpass.getuser()
    except (KeyError, OSError):
        account = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER")
    return f"cli:{account} ({behind})" if behind else f"cli:{account}"


@contextmanager
def installed(context: click.Context) -> Iterator[Any]:
    """
    Open the installation of the data folder that the session names, and close it after.
    """
    raise NotImplementedError(session(context).data)
