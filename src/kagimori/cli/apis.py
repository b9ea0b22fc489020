"""
``kagimori apis``: the APIs that access tokens are made for.
"""

from __future__ import annotations

import click

from kagimori.admin.apis import NewApi
from kagimori.cli.command import Command, confirm, group, option, session
from kagimori.cli.running import cause, installed, tenant_option
from kagimori.cli.times import lifetime, stamp

command = group("apis")


@command.command("create", cls=Command, help="help.apis.create")
@click.argument("api")
@tenant_option
@option("--identifier", required=True, metavar="URI", help="option.identifier")
@option("--name", default="", help="option.api_name")
@option("--scope", "scopes", multiple=True, metavar="SCOPE", help="option.api_scope")
@option("--algorithm", metavar="A", help="option.api_algorithm")
@option("--access-token-lifetime", metavar="SPAN", help="option.lifetime")
@option(
    "--client", "clients", multiple=True, metavar="CLIENT", help="option.api_client"
)
@option("--reason", default="", help="option.reason")
@click.pass_context
def create(
    context: click.Context,
    api: str,
    tenant: str,
    *,
    identifier: str,
    name: str,
    scopes: tuple[str, ...],
    algorithm: str | None,
    access_token_lifetime: str | None,
    clients: tuple[str, ...],
    reason: str,
) -> None:
    """
    Make an API that clients can ask tokens for.
    """
    output = session(context).output
    asked = NewApi(
        id=api,
        identifier=identifier,
        name=name,
        scopes=scopes,
        signing_algorithm=algorithm,
        access_token_lifetime=lifetime(access_token_lifetime),
        clients=clients,
    )
    with installed(context) as installation:
        made = installation.run(
            installation.apis.create(tenant, asked, cause=cause(reason))
        )
    if output.as_json:
        output.json(made)
        return
    output.say("apis.created", api=api, identifier=identifier)


@command.command("list", cls=Command, help="help.apis.list")
@tenant_option
@click.pass_context
def list_(context: click.Context, tenant: str) -> None:
    """
    List the APIs of a tenant.
    """
    output = session(context).output
    with installed(context) as installation:
        found = installation.run(installation.apis.list(tenant))
    if output.as_json:
        output.json(found)
        return
    texts = output.texts
    output.table(
        [
            texts("column.id"),
            texts("column.identifier"),
            texts("column.scopes"),
            texts("keys.algorithm"),
            texts("column.state"),
            texts("column.created"),
        ],
        [
            [
                api.id,
                api.identifier,
                " ".join(api.scopes),
                api.signing_algorithm or texts("apis.default_algorithm"),
                texts("state.disabled" if api.disabled else "state.active"),
                stamp(api.created),
            ]
            for api in found
        ],
    )


@command.command("delete", cls=Command, help="help.apis.delete")
@click.argument("api")
@tenant_option
@option("--reason", default="", help="option.reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def delete(
    context: click.Context, api: str, tenant: str, *, reason: str, yes: bool
) -> None:
    """
    Delete an API; no token is made for it any more.
    """
    output = session(context).output
    confirm(context, yes, "apis.delete.confirm", api=api)
    with installed(context) as installation:
        installation.run(installation.apis.delete(tenant, api, cause=cause(reason)))
    if output.as_json:
        output.json({"id": api})
        return
    output.say("apis.deleted", api=api)
