"""
``kagimori clients``: programs that may ask for tokens, and their secrets.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from kagimori.admin.client_views import ClientView, NewClient
from kagimori.cli.command import Command, confirm, group, option, session
from kagimori.cli.running import cause, installed, tenant_option
from kagimori.cli.times import lifetime, stamp
from kagimori.oauth.client import AuthMethod, Profile

command = group("clients")


@command.command("create", cls=Command, help="help.clients.create")
@click.argument("client")
@tenant_option
@option("--name", default="", help="option.client_name")
@option(
    "--profile",
    type=click.Choice([profile.value for profile in Profile]),
    default=Profile.DEFAULT.value,
    help="option.profile",
)
@option(
    "--auth-method",
    type=click.Choice([method.value for method in AuthMethod]),
    default=AuthMethod.BASIC.value,
    help="option.auth_method",
)
@option("--grant", "grants", multiple=True, metavar="GRANT", help="option.grant")
@option("--scope", "scopes", multiple=True, metavar="SCOPE", help="option.scope")
@option("--api", "resources", multiple=True, metavar="API", help="option.api")
@option("--origin", "origins", multiple=True, metavar="URL", help="option.origin")
@option("--jwks", type=click.Path(path_type=Path), help="option.jwks")
@option("--access-token-lifetime", metavar="SPAN", help="option.lifetime")
@option("--may-introspect", is_flag=True, help="option.may_introspect")
@option("--allow-operator-grants", is_flag=True, help="option.operator_grants")
@option("--secret-stdin", is_flag=True, help="option.secret_stdin")
@option("--reason", default="", help="option.reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def create(
    context: click.Context,
    /,
    client: str,
    tenant: str,
    *,
    secret_stdin: bool,
    jwks: Path | None,
    access_token_lifetime: str | None,
    reason: str,
    yes: bool,
    **given: Any,
) -> None:
    """
    Register a client; a generated secret is shown once.
    """
    output = session(context).output
    if given["profile"] == Profile.LEGACY_2015.value:
        confirm(context, yes, "clients.create.confirm_legacy", client=client)
    asked = NewClient(
        id=client,
        name=given["name"],
        profile=Profile(given["profile"]),
        auth_method=AuthMethod(given["auth_method"]),
        grants=given["grants"],
        scopes=given["scopes"],
        resources=given["resources"],
        origins=given["origins"],
        jwks=_read_jwks(jwks),
        access_token_lifetime=lifetime(access_token_lifetime),
        may_introspect=given["may_introspect"],
        allow_operator_grants=given["allow_operator_grants"],
        secret=_read_secret(secret_stdin),
    )
    with installed(context) as installation:
        made = installation.run(
            installation.clients.create(tenant, asked, cause=cause(reason))
        )
    if output.as_json:
        output.json({"client": made.client, "secret": made.secret})
        return
    output.say("clients.created", client=client)
    if made.secret:
        _show_secret(context, made.secret)


def _read_jwks(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise click.UsageError(f"--jwks: {type(exc).__name__}: {path}") from None
    if not isinstance(found, dict):
        raise click.UsageError(f"--jwks: {path}")
    return found


def _read_secret(from_stdin: bool) -> str | None:  # noqa: FBT001 - a flag's value
    # A secret is never an argument: arguments stand in the process list and in histories (K9).
    if not from_stdin:
        return None
    text = sys.stdin.readline().rstrip("\n")
    if not text:
        raise click.UsageError("--secret-stdin")
    return text


def _show_secret(context: click.Context, secret: str) -> None:
    output = session(context).output
    output.say("clients.secret", secret=secret)
    output.notice("clients.secret_once")


@command.command("list", cls=Command, help="help.clients.list")
@tenant_option
@click.pass_context
def list_(context: click.Context, tenant: str) -> None:
    """
    List the clients of a tenant.
    """
    output = session(context).output
    with installed(context) as installation:
        found = installation.run(installation.clients.list(tenant))
    if output.as_json:
        output.json(found)
        return
    texts = output.texts
    output.table(
        [
            texts("column.id"),
            texts("column.profile"),
            texts("column.auth_method"),
            texts("column.grants"),
            texts("column.scopes"),
            texts("column.apis"),
            texts("column.state"),
        ],
        [
            [
                client.id,
                client.profile,
                client.auth_method,
                " ".join(client.grants),
                " ".join(client.scopes),
                " ".join(client.resources),
                texts("state.disabled" if client.disabled else "state.active"),
            ]
            for client in found
        ],
    )


@command.command("show", cls=Command, help="help.clients.show")
@click.argument("client")
@tenant_option
@click.pass_context
def show(context: click.Context, client: str, tenant: str) -> None:
    """
    Show one client and its secrets' ids and dates.
    """
    output = session(context).output
    with installed(context) as installation:
        found: ClientView = installation.run(installation.clients.show(tenant, client))
    if output.as_json:
        output.json(found)
        return
    texts = output.texts
    output.table(
        [
            texts("column.id"),
            texts("column.name"),
            texts("column.profile"),
            texts("column.auth_method"),
            texts("column.created"),
        ],
        [
            [
                found.id,
                found.name,
                found.profile,
                found.auth_method,
                stamp(found.created),
            ]
        ],
    )
    if found.secrets:
        output.line()
        output.table(
            [
                texts("column.secret"),
                texts("column.ends_in"),
                texts("column.created"),
                texts("column.expires"),
            ],
            [
                [secret.id, secret.last, stamp(secret.created), stamp(secret.expires)]
                for secret in found.secrets
            ],
        )


@command.command("add-secret", cls=Command, help="help.clients.add_secret")
@click.argument("client")
@tenant_option
@option("--expires-in", metavar="SPAN", help="option.expires_in")
@option("--secret-stdin", is_flag=True, help="option.secret_stdin")
@option("--reason", default="", help="option.reason")
@click.pass_context
def add_secret(
    context: click.Context,
    client: str,
    tenant: str,
    *,
    expires_in: str | None,
    secret_stdin: bool,
    reason: str,
) -> None:
    """
    Give a client one more secret, beside those it has.
    """
    output = session(context).output
    with installed(context) as installation:
        made = installation.run(
            installation.clients.add_secret(
                tenant,
                client,
                secret=_read_secret(secret_stdin),
                expires_in=lifetime(expires_in),
                cause=cause(reason),
            )
        )
    if output.as_json:
        output.json({"id": made.id, "secret": made.secret})
        return
    output.say("clients.secret_added", client=client, secret=made.id)
    if made.secret:
        _show_secret(context, made.secret)


@command.command("withdraw-secret", cls=Command, help="help.clients.withdraw_secret")
@click.argument("client")
@click.argument("secret")
@tenant_option
@option("--reason", default="", help="option.reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def withdraw_secret(
    context: click.Context,
    client: str,
    secret: str,
    tenant: str,
    *,
    reason: str,
    yes: bool,
) -> None:
    """
    Take one secret of a client away, by its id.
    """
    confirm(context, yes, "clients.withdraw.confirm", client=client, secret=secret)
    with installed(context) as installation:
        installation.run(
            installation.clients.withdraw_secret(
                tenant, client, secret, cause=cause(reason)
            )
        )
    _said(context, "clients.secret_withdrawn", client)


@command.command("disable", cls=Command, help="help.clients.disable")
@click.argument("client")
@tenant_option
@option("--reason", default="", help="option.reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def disable(
    context: click.Context, client: str, tenant: str, *, reason: str, yes: bool
) -> None:
    """
    Let a client get nothing until it is enabled again.
    """
    confirm(context, yes, "clients.disable.confirm", client=client)
    with installed(context) as installation:
        installation.run(
            installation.clients.disable(tenant, client, cause=cause(reason))
        )
    _said(context, "clients.disabled", client)


@command.command("enable", cls=Command, help="help.clients.enable")
@click.argument("client")
@tenant_option
@option("--reason", default="", help="option.reason")
@click.pass_context
def enable(context: click.Context, client: str, tenant: str, reason: str) -> None:
    """
    Let a disabled client work again.
    """
    with installed(context) as installation:
        installation.run(
            installation.clients.enable(tenant, client, cause=cause(reason))
        )
    _said(context, "clients.enabled", client)


@command.command("delete", cls=Command, help="help.clients.delete")
@click.argument("client")
@tenant_option
@option("--reason", default="", help="option.reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def delete(
    context: click.Context, client: str, tenant: str, *, reason: str, yes: bool
) -> None:
    """
    Delete a client and revoke what was issued to it.
    """
    confirm(context, yes, "clients.delete.confirm", client=client)
    with installed(context) as installation:
        installation.run(
            installation.clients.delete(tenant, client, cause=cause(reason))
        )
    _said(context, "clients.deleted", client)


def _said(context: click.Context, key: str, client: str) -> None:
    output = session(context).output
    if output.as_json:
        output.json({"id": client})
        return
    output.say(key, client=client)
