"""
``kagimori tenants``: issuers with keys of their own.
"""

from __future__ import annotations

import click

from kagimori.cli.command import Command, confirm, group, option, session
from kagimori.cli.running import cause, installed
from kagimori.cli.times import stamp
from kagimori.oauth.tenant import Tenant

command = group("tenants")


@command.command("create", cls=Command, help="help.tenants.create")
@click.argument("tenant")
@option("--name", default="", help="option.tenant_name")
@option("--host", default=None, metavar="HOST", help="option.host")
@option("--reason", default="", help="option.reason")
@click.pass_context
def create(
    context: click.Context, tenant: str, name: str, host: str | None, reason: str
) -> None:
    """
    Make a tenant, its signing keys and its cookie key in one step.
    """
    output = session(context).output
    with installed(context) as installation:
        made = installation.run(
            installation.tenants.create(
                tenant, name=name, host=host, cause=cause(reason)
            )
        )
    if output.as_json:
        output.json(_view(made))
        return
    output.say("tenants.created", tenant=made.id)
    output.say("tenants.keys_hint", tenant=made.id)


@command.command("list", cls=Command, help="help.tenants.list")
@click.pass_context
def list_(context: click.Context) -> None:
    """
    List all tenants.
    """
    output = session(context).output
    with installed(context) as installation:
        found = installation.run(installation.tenants.list())
    if output.as_json:
        output.json([_view(tenant) for tenant in found])
        return
    texts = output.texts
    output.table(
        [
            texts("column.id"),
            texts("column.name"),
            texts("column.host"),
            texts("column.state"),
            texts("column.created"),
        ],
        [
            [
                tenant.id,
                tenant.name,
                tenant.host or "–",
                texts("state.disabled" if tenant.disabled else "state.active"),
                stamp(tenant.created),
            ]
            for tenant in found
        ],
    )


@command.command("disable", cls=Command, help="help.tenants.disable")
@click.argument("tenant")
@option("--reason", default="", help="option.reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def disable(context: click.Context, tenant: str, *, reason: str, yes: bool) -> None:
    """
    Let a tenant answer nothing until it is enabled again.
    """
    confirm(context, yes, "tenants.disable.confirm", tenant=tenant)
    with installed(context) as installation:
        installation.run(installation.tenants.disable(tenant, cause=cause(reason)))
    _said(context, "tenants.disabled", tenant)


@command.command("enable", cls=Command, help="help.tenants.enable")
@click.argument("tenant")
@option("--reason", default="", help="option.reason")
@click.pass_context
def enable(context: click.Context, tenant: str, reason: str) -> None:
    """
    Let a disabled tenant answer again.
    """
    with installed(context) as installation:
        installation.run(installation.tenants.enable(tenant, cause=cause(reason)))
    _said(context, "tenants.enabled", tenant)


@command.command("delete", cls=Command, help="help.tenants.delete")
@click.argument("tenant")
@option("--force", is_flag=True, help="option.force_tenant")
@option("--reason", default="", help="option.reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def delete(
    context: click.Context, tenant: str, *, force: bool, reason: str, yes: bool
) -> None:
    """
    Delete a tenant with everything in it.
    """
    confirm(context, yes, "tenants.delete.confirm", tenant=tenant)
    with installed(context) as installation:
        installation.run(
            installation.tenants.delete(tenant, force=force, cause=cause(reason))
        )
    _said(context, "tenants.deleted", tenant)


def _view(tenant: Tenant) -> dict[str, object]:
    return {
        "id": tenant.id,
        "name": tenant.name,
        "host": tenant.host,
        "created": tenant.created,
        "disabled": tenant.disabled,
    }


def _said(context: click.Context, key: str, tenant: str) -> None:
    output = session(context).output
    if output.as_json:
        output.json({"id": tenant})
        return
    output.say(key, tenant=tenant)
