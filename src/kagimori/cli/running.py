"""
Opens the installation that a command works on, and says who works on it.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kagimori.cli.command import option, session
from kagimori.keys.journal import Cause

if TYPE_CHECKING:
    from kagimori.admin.apis import ApiAdmin
    from kagimori.admin.clients import ClientAdmin
    from kagimori.admin.doctor import Finding
    from kagimori.admin.keys import KeyAdmin
    from kagimori.admin.tenants import TenantAdmin
    from kagimori.admin.tokens import TokenAdmin
    from kagimori.admin.users import UserAdmin
    from kagimori.clock import Clock
    from kagimori.compose import Installation
    from kagimori.oauth.requests import TenantContext

T = TypeVar("T")

DEFAULT_TENANT = "default"

tenant_option = option(
    "--tenant", default=DEFAULT_TENANT, metavar="TENANT", help="option.tenant"
)


def cause(reason: str = "") -> Cause:
    """
    Say for the audit trail who runs this command and why: the account, and the one behind sudo.
    """
    try:
        account = getpass.getuser()
    except (KeyError, OSError):
        account = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER")
    actor = f"cli:{account} ({behind})" if behind else f"cli:{account}"
    return Cause(actor, reason, f"cli-{secrets.token_hex(8)}")


class Work:
    """
    An open installation, for commands: verbs are awaited through `run`.
    """

    def __init__(self, installation: Installation, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.installation = installation

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """
        Run one verb to its end.
        """
        return self._runner.run(work)

    def context(self, tenant: str) -> TenantContext:
        """
        Return a tenant's issuer.
        """
        return self.installation.issuers.context(tenant)

    @property
    def clock(self) -> Clock:
        """
        This machine's time, corrected by the store's.
        """
        return self.installation.clock

    @property
    def keys(self) -> KeyAdmin:
        """
        The verbs for keys.
        """
        return self.installation.keys

    @property
    def tenants(self) -> TenantAdmin:
        """
        The verbs for tenants.
        """
        return self.installation.tenants

    @property
    def clients(self) -> ClientAdmin:
        """
        The verbs for clients.
        """
        return self.installation.clients

    @property
    def apis(self) -> ApiAdmin:
        """
        The verbs for APIs.
        """
        return self.installation.apis

    @property
    def users(self) -> UserAdmin:
        """
        The verbs for users.
        """
        return self.installation.users

    @property
    def tokens(self) -> TokenAdmin:
        """
        The verbs for tokens. They sign, so the tenants' keys are loaded first.
        """
        self.run(self.installation.rings.start())
        return self.installation.tokens


@contextmanager
def installed(context: click.Context) -> Iterator[Work]:
    """
    Open the installation of the data folder that the session names, and close it after.

    Raises:
        KagimoriError: there is none, or it cannot be opened.
    """
    from kagimori.compose import open_installation
    from kagimori.settings import data_folder, read_settings

    settings = read_settings(data_folder(session(context).data))
    with asyncio.Runner() as runner:

        async def open_here() -> Installation:
            # Inside the loop: what an installation holds belongs to one.
            return open_installation(settings)

        installation = runner.run(open_here())
        try:
            yield Work(installation, runner)
        finally:
            runner.run(installation.close())


def diagnosed(context: click.Context) -> tuple[Finding, ...]:
    """
    Examine the installation of the data folder that the session names.

    Raises:
        KagimoriError: there are no settings to begin with.
    """
    from kagimori.examining import examine
    from kagimori.settings import data_folder, read_settings

    settings = read_settings(data_folder(session(context).data))
    return asyncio.run(examine(settings))
