"""
``kagimori users``: those whom tokens speak of.
"""

from __future__ import annotations

import sys

import click

from kagimori.cli.command import Command, confirm, group, option, session
from kagimori.cli.running import cause, installed, tenant_option
from kagimori.cli.times import stamp
from kagimori.errors import ConfigError

command = group("users")


def _read_password(context: click.Context, *, from_stdin: bool) -> str | None:
    # Never an argument: arguments stand in the process list and in histories (K9).
    if from_stdin:
        text = sys.stdin.readline().rstrip("\n")
        if not text:
            raise click.UsageError("--password-stdin")
        return text
    if sys.stdin.isatty():
        question = session(context).texts("users.password")
        typed: str = click.prompt(
            question, hide_input=True, confirmation_prompt=True, err=True, default=""
        )
        return typed or None
    return None


@command.command("create", cls=Command, help="help.users.create")
@click.argument("username")
@tenant_option
@option("--name", default="", help="option.user_name")
@option("--password-stdin", is_flag=True, help="option.password_stdin")
@option("--reason", default="", help="option.reason")
@click.pass_context
def create(
    context: click.Context,
    username: str,
    tenant: str,
    *,
    name: str,
    password_stdin: bool,
    reason: str,
) -> None:
    """
    Make a user, with a password or without.
    """
    output = session(context).output
    password = _read_password(context, from_stdin=password_stdin)
    with installed(context) as installation:
        made = installation.run(
            installation.users.create(
                tenant,
                username,
                name=name,
                password=password,
                cause=cause(reason),
            )
        )
    if output.as_json:
        output.json(made)
        return
    output.say("users.created", username=username, id=made.id)


@command.command("list", cls=Command, help="help.users.list")
@tenant_option
@click.pass_context
def list_(context: click.Context, tenant: str) -> None:
    """
    List the users of a tenant.
    """
    output = session(context).output
    with installed(context) as installation:
        found = installation.run(installation.users.list(tenant))
    if output.as_json:
        output.json(found)
        return
    texts = output.texts
    output.table(
        [
            texts("column.username"),
            texts("column.id"),
            texts("column.name"),
            texts("column.state"),
            texts("column.created"),
        ],
        [
            [
                user.username,
                user.id,
                user.name,
                texts("state.disabled" if user.disabled else "state.active"),
                stamp(user.created),
            ]
            for user in found
        ],
    )


@command.command("password", cls=Command, help="help.users.password")
@click.argument("username")
@tenant_option
@option("--password-stdin", is_flag=True, help="option.password_stdin")
@option("--keep-sessions", is_flag=True, help="option.keep_sessions")
@option("--reason", default="", help="option.reason")
@click.pass_context
def password(
    context: click.Context,
    username: str,
    tenant: str,
    *,
    password_stdin: bool,
    keep_sessions: bool,
    reason: str,
) -> None:
    """
    Set a user's password, and end what was signed in with the old one.
    """
    chosen = _read_password(context, from_stdin=password_stdin)
    if chosen is None:
        raise ConfigError(
            "No password was given.", hint="Type it, or pipe it to --password-stdin."
        )
    with installed(context) as installation:
        ended = installation.run(
            installation.users.set_password(
                tenant,
                username,
                chosen,
                keep_sessions=keep_sessions,
                cause=cause(reason),
            )
        )
    _said(context, "users.password_set", username, families=ended)


@command.command("disable", cls=Command, help="help.users.disable")
@click.argument("username")
@tenant_option
@option("--reason", default="", help="option.reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def disable(
    context: click.Context, username: str, tenant: str, *, reason: str, yes: bool
) -> None:
    """
    End a user's sign-ins and let none begin.
    """
    confirm(context, yes, "users.disable.confirm", username=username)
    with installed(context) as installation:
        ended = installation.run(
            installation.users.disable(tenant, username, cause=cause(reason))
        )
    _said(context, "users.disabled", username, families=ended)


@command.command("enable", cls=Command, help="help.users.enable")
@click.argument("username")
@tenant_option
@option("--reason", default="", help="option.reason")
@click.pass_context
def enable(context: click.Context, username: str, tenant: str, reason: str) -> None:
    """
    Let a disabled user sign in again.
    """
    with installed(context) as installation:
        installation.run(
            installation.users.enable(tenant, username, cause=cause(reason))
        )
    _said(context, "users.enabled", username, families=0)


def _said(context: click.Context, key: str, username: str, *, families: int) -> None:
    output = session(context).output
    if output.as_json:
        output.json({"username": username, "families_revoked": families})
        return
    output.say(key, username=username, families=families)
