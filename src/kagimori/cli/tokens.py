"""
``kagimori tokens``: issue one as an operator, look at one, revoke what is out there.
"""

from __future__ import annotations

import sys

import click

from kagimori.cli.command import Command, confirm, group, option, session
from kagimori.cli.running import cause, installed, tenant_option
from kagimori.cli.times import stamp
from kagimori.errors import ConfigError

command = group("tokens")


@command.command("issue", cls=Command, help="help.tokens.issue")
@tenant_option
@option("--client", required=True, help="option.issue_client")
@option("--user", required=True, help="option.issue_user")
@option("--scope", default=None, help="option.issue_scope")
@option("--reason", default="", help="option.reason")
@click.pass_context
def issue(
    context: click.Context,
    tenant: str,
    *,
    client: str,
    user: str,
    scope: str | None,
    reason: str,
) -> None:
    """
    Start a refresh token family for a user at a client that allows it.
    """
    output = session(context).output
    with installed(context) as installation:
        answer = installation.run(
            installation.tokens.issue(
                installation.context(tenant),
                client=client,
                username=user,
                scope=scope,
                cause=cause(reason),
            )
        )
    # The answer is the token answer itself, on both faces: it is made to be piped.
    output.json(answer)


def _token_of(argument: str | None) -> str:
    # Preferably from standard input: arguments stand in the process list (K9).
    if argument not in (None, "-"):
        return str(argument).strip()
    text = sys.stdin.readline().strip()
    if not text:
        raise ConfigError("No token was given.", hint="Pipe it in, or name it.")
    return text


@command.command("inspect", cls=Command, help="help.tokens.inspect")
@click.argument("token", required=False)
@tenant_option
@click.pass_context
def inspect(context: click.Context, token: str | None, tenant: str) -> None:
    """
    Say what a token is and whether it works, without using it.
    """
    output = session(context).output
    text = _token_of(token)
    with installed(context) as installation:
        found = installation.run(
            installation.tokens.inspect(installation.context(tenant), text)
        )
    if output.as_json:
        output.json(found)
        return
    texts = output.texts
    verdict = texts("tokens.active" if found.active else "tokens.inactive")
    output.line(output.style(verdict, "good" if found.active else "error"))
    if found.reason:
        output.say("tokens.reason", reason=found.reason)
    rows = [[name, str(value)] for name, value in found.facts.items()]
    if rows:
        output.table([texts("column.field"), texts("column.value")], rows)


@command.command("list", cls=Command, help="help.tokens.list")
@tenant_option
@option("--user", default=None, help="option.of_user")
@option("--client", default=None, help="option.of_client")
@click.pass_context
def list_(
    context: click.Context, tenant: str, user: str | None, client: str | None
) -> None:
    """
    List refresh token families of a user or a client.
    """
    output = session(context).output
    with installed(context) as installation:
        found = installation.run(
            installation.tokens.list(tenant, username=user, client=client)
        )
    if output.as_json:
        output.json(found)
        return
    texts = output.texts
    output.table(
        [
            texts("column.family"),
            texts("column.user"),
            texts("column.client"),
            texts("column.generation"),
            texts("column.last_used"),
            texts("column.ends"),
            texts("column.state"),
        ],
        [
            [
                family.id,
                family.user,
                family.client,
                str(family.generation),
                stamp(family.last_used),
                stamp(family.ends),
                family.state,
            ]
            for family in found
        ],
    )


@command.command("revoke", cls=Command, help="help.tokens.revoke")
@click.argument("token", required=False)
@tenant_option
@option("--family", default=None, help="option.of_family")
@option("--user", default=None, help="option.of_user")
@option("--client", default=None, help="option.of_client")
@option("--reason", default="", help="option.reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def revoke(
    context: click.Context,
    token: str | None,
    tenant: str,
    *,
    family: str | None,
    user: str | None,
    client: str | None,
    reason: str,
    yes: bool,
) -> None:
    """
    Revoke one token (from standard input), a family, or all of a user or client.
    """
    output = session(context).output
    named = [value for value in (family, user, client) if value]
    if (token is not None and named) or (len(named) > 1 and family):
        raise click.UsageError(output.texts("tokens.revoke.one"))
    if named:
        confirm(context, yes, "tokens.revoke.confirm", what=", ".join(named))
    text = None if named else _token_of(token)
    with installed(context) as installation:
        count = installation.run(
            installation.tokens.revoke(
                installation.context(tenant),
                token=text,
                family=family,
                username=user,
                client=client,
                cause=cause(reason),
            )
        )
    if output.as_json:
        output.json({"revoked": count})
        return
    output.say("tokens.revoked", count=count)
