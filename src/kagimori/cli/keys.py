"""
``kagimori keys``: look at keys and turn them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime

import click

from kagimori.admin.keys import KeyView
from kagimori.cli import timeline
from kagimori.cli.command import Command, confirm, group, option, session
from kagimori.cli.output import Output
from kagimori.cli.running import cause, installed, tenant_option
from kagimori.cli.times import ago, stamp
from kagimori.keys.timeline import KeyState, KeyUse

USES = click.Choice([KeyUse.SIGNING.value, KeyUse.COOKIE.value])
COLUMNS = 40

command = group("keys")


@command.command("list", cls=Command, help="help.keys.list")
@tenant_option
@click.argument("use", required=False, type=click.Choice([u.value for u in KeyUse]))
@click.pass_context
def list_(context: click.Context, tenant: str, use: str | None) -> None:
    """
    List the keys of a tenant, and draw each one's life.
    """
    output = session(context).output
    with installed(context) as installation:
        now = installation.clock.now()
        views = [
            view
            for view in installation.run(installation.keys.list(tenant))
            if use in (None, view.use)
        ]
    if output.as_json:
        output.json(views)
        return
    for kind in KeyUse:
        chosen = [view for view in views if view.use == kind.value]
        if chosen:
            _draw(output, kind, chosen, now)
    marks = timeline.marks_for(sys.stdout.encoding)
    output.say(
        "keys.legend",
        waiting=marks.waiting,
        signing=marks.signing,
        verifying=marks.verifying,
        now=marks.now,
    )


def _draw(output: Output, use: KeyUse, views: Sequence[KeyView], now: datetime) -> None:
    marks = timeline.marks_for(sys.stdout.encoding)
    axis = timeline.axis_of(views, now, COLUMNS)
    output.line()
    output.line(output.texts(f"keys.use.{use.value}"))
    output.table(
        [
            output.texts("keys.kid"),
            output.texts("keys.algorithm"),
            output.texts("keys.state"),
            output.texts("keys.from"),
            output.texts("keys.until"),
            f"{stamp(axis.start)[:10]} … {stamp(axis.end)[:10]}",
        ],
        [
            [
                view.kid,
                view.algorithm,
                view.state,
                stamp(view.activates),
                _until(output, view, now),
                timeline.draw(view, axis, now, marks).rstrip(),
            ]
            for view in views
        ],
        state=2,
    )


def _until(output: Output, view: KeyView, now: datetime) -> str:
    texts = output.texts
    if view.state == KeyState.NEXT.value and view.activates:
        return texts("keys.until.next", when=ago(texts, view.activates - now))
    if view.state == KeyState.CURRENT.value:
        if view.retires:
            return texts("keys.until.retires", when=stamp(view.retires))
        if view.due is None:
            return texts("keys.until.rotated")
        if view.due <= now:
            return texts("keys.until.overdue", when=stamp(view.due))
        return texts("keys.until.due", when=stamp(view.due))
    if view.state == KeyState.PREVIOUS.value:
        if view.expires is None:
            return texts("keys.until.deleted")
        return texts("keys.until.expires", when=stamp(view.expires))
    return stamp(view.expires)


@command.command("rotate", cls=Command, help="help.keys.rotate")
@click.argument("use", type=USES)
@tenant_option
@option("--algorithm", metavar="A", help="option.algorithm")
@option("--default", "default", is_flag=True, help="option.default")
@option("--now", "at_once", is_flag=True, help="option.now")
@option("--emergency", is_flag=True, help="option.emergency")
@option("--replace", is_flag=True, help="option.replace")
@option("--reason", default="", help="option.reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def rotate(
    context: click.Context,
    use: str,
    tenant: str,
    algorithm: str | None,
    *,
    default: bool,
    at_once: bool,
    emergency: bool,
    replace: bool,
    reason: str,
    yes: bool,
) -> None:
    """
    Make the key that will sign next, or with ``--now`` let it sign at once.
    """
    output = session(context).output
    if emergency and not at_once:
        raise click.UsageError(output.texts("keys.rotate.emergency_alone"))
    if emergency and use == KeyUse.SIGNING.value:
        confirm(context, yes, "keys.rotate.confirm_emergency")
    with installed(context) as installation:
        outcome = installation.run(
            installation.keys.rotate(
                tenant,
                KeyUse(use),
                algorithm=algorithm,
                default=default,
                now_flag=at_once,
                emergency=emergency,
                replace=replace,
                cause=cause(reason),
            )
        )
        now = installation.clock.now()
    if output.as_json:
        output.json(outcome)
        return
    key = outcome.key
    if key.activates is not None and key.activates > now:
        output.say(
            "keys.rotate.staged",
            kid=key.kid,
            algorithm=key.algorithm,
            when=stamp(key.activates),
            wait=ago(output.texts, key.activates - now),
        )
    else:
        output.say("keys.rotate.done", kid=key.kid, algorithm=key.algorithm)
    output.say("keys.generation", generation=outcome.generation)


@command.command("cancel", cls=Command, help="help.keys.cancel")
@click.argument("use", type=USES)
@click.argument("kid", required=False)
@tenant_option
@option("--reason", default="", help="option.reason")
@click.pass_context
def cancel(
    context: click.Context, use: str, kid: str | None, tenant: str, reason: str
) -> None:
    """
    Take back a key that waits and does not sign yet.
    """
    with installed(context) as installation:
        outcome = installation.run(
            installation.keys.cancel(tenant, KeyUse(use), kid=kid, cause=cause(reason))
        )
    _tell(context, "keys.cancel.done", outcome)


@command.command("delete", cls=Command, help="help.keys.delete")
@click.argument("use", type=USES)
@click.argument("kid")
@tenant_option
@option("--force", is_flag=True, help="option.force_delete")
@option("--reason", default="", help="option.reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def delete(
    context: click.Context,
    use: str,
    kid: str,
    tenant: str,
    *,
    force: bool,
    reason: str,
    yes: bool,
) -> None:
    """
    Destroy a key that no longer signs.
    """
    confirm(context, yes, "keys.delete.confirm", kid=kid)
    with installed(context) as installation:
        outcome = installation.run(
            installation.keys.delete(
                tenant, KeyUse(use), kid, force=force, cause=cause(reason)
            )
        )
    _tell(context, "keys.delete.done", outcome)


@command.command("revoke", cls=Command, help="help.keys.revoke")
@click.argument("use", type=USES)
@click.argument("kid")
@tenant_option
@option("--reason", default="", help="option.reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def revoke(
    context: click.Context, use: str, kid: str, tenant: str, *, reason: str, yes: bool
) -> None:
    """
    Revoke a compromised key: it is replaced at once, and its tokens fail.
    """
    confirm(context, yes, "keys.revoke.confirm", kid=kid)
    with installed(context) as installation:
        outcome = installation.run(
            installation.keys.revoke(tenant, KeyUse(use), kid, cause=cause(reason))
        )
    _tell(context, "keys.revoke.done", outcome)


def _tell(context: click.Context, key: str, outcome: object) -> None:
    output = session(context).output
    if output.as_json:
        output.json(outcome)
        return
    output.say(key, kid=getattr(getattr(outcome, "key", None), "kid", ""))
    output.say("keys.generation", generation=getattr(outcome, "generation", ""))
