"""
``kagimori ring revoke``, ``delete``, ``compromise``: end keys, after saying what that cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click

from kagimori.cli.command import Command, confirm, option, session
from kagimori.cli.output import Output
from kagimori.cli.ring_opening import (
    Opened,
    key_named,
    named,
    opened,
    ring_options,
    views_of,
)
from kagimori.cli.ring_reprotect import reprotection_of
from kagimori.cli.ring_views import outcome_of
from kagimori.cli.times import stamp
from kagimori.keys.protection.outcomes import Ended, ProtectionKeyView
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.timeline import KeyState


@click.command("revoke", cls=Command, help="help.ring.revoke")
@click.argument("key", required=False)
@ring_options
@option("--before", metavar="DATE", help="option.ring_before")
@option("--reason", default="", help="option.ring_reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def revoke(
    context: click.Context,
    key: str | None,
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    before: str | None,
    reason: str,
    yes: bool,
) -> None:
    """
    Revoke a key, or all that were made before a date.
    """
    output = session(context).output
    if (key is None) == (before is None):
        raise click.UsageError(output.texts("ring.revoke.which"))
    date = None if before is None else _instant(output, before)
    meant = named(context, ring, wrapper, application)
    with opened(context, meant) as found:
        if key is not None:
            gone = [key_named(found.ring, key)]
        else:
            gone = [
                view.id
                for view in views_of(found.ring)
                if view.state is not KeyState.REVOKED
                and date is not None
                and view.timeline.created < date
            ]
        _preview(output, found, gone)
        confirm(
            context,
            yes,
            "ring.revoke.confirm",
            count=len(gone),
            ring=found.ring.location_name,
        )
        _save_first(context, found, gone, reason)
        ended = (
            found.ring.revoke_before(date, reason)
            if date is not None
            else found.ring.revoke(gone[0], reason)
        )
        _tell(output, found.ring, ended, "ring.revoke.done")


@click.command("delete", cls=Command, help="help.ring.delete")
@click.argument("key")
@ring_options
@option("--force", is_flag=True, help="option.ring_force")
@option("--reason", default="", help="option.ring_reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def delete(
    context: click.Context,
    key: str,
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    force: bool,
    reason: str,
    yes: bool,
) -> None:
    """
    Take a key out of a ring for good.
    """
    output = session(context).output
    meant = named(context, ring, wrapper, application)
    with opened(context, meant) as found:
        key_id = key_named(found.ring, key)
        if found.work is not None:
            # Not even by force: the server could not sign any more.
            found.work.run(reprotection_of(found.work).require_unneeded(key_id))
        _preview(output, found, [key_id])
        confirm(
            context,
            yes,
            "ring.delete.confirm",
            key=key_id,
            ring=found.ring.location_name,
        )
        ended = found.ring.delete(key_id, force=force, reason=reason)
        _tell(output, found.ring, ended, "ring.delete.done")


@click.command("compromise", cls=Command, help="help.ring.compromise")
@click.argument("key", required=False)
@ring_options
@option("--all", "every", is_flag=True, help="option.ring_all")
@option("--no-wait", is_flag=True, help="option.ring_no_wait")
@option("--reason", default="compromised", help="option.ring_reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def compromise(
    context: click.Context,
    key: str | None,
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    every: bool,
    no_wait: bool,
    reason: str,
    yes: bool,
) -> None:
    """
    Answer to a stolen key: revoke it, replace it, and see it through.
    """
    output = session(context).output
    if (key is None) != every:
        raise click.UsageError(output.texts("ring.compromise.which"))
    meant = named(context, ring, wrapper, application)
    with opened(context, meant) as found:
        held = found.ring
        gone = (
            [view.id for view in views_of(held) if view.state is not KeyState.REVOKED]
            if key is None
            else [key_named(held, key)]
        )
        _preview(output, found, gone)
        confirm(
            context,
            yes,
            "ring.compromise.confirm",
            count=len(gone),
            ring=held.location_name,
        )
        saved = _save_first(context, found, gone, reason, wait=not no_wait)
        waits = {"wait": _at_once} if no_wait else {}
        if key is None and not saved:
            ended = held.compromise(None, reason, **waits)
        else:
            # A new key protects already what a server keeps: only those before it go.
            for each in gone[:-1]:
                held.compromise(each, reason, wait=_at_once)
            ended = held.compromise(gone[-1], reason, **waits)
        done = "ring.compromise.done_unseen" if no_wait else "ring.compromise.done"
        _tell(output, held, ended, done)
        if not output.as_json:
            output.say("ring.compromise.dotnet")


def _at_once(_: timedelta) -> None:
    """
    Do not wait.
    """


def _save_first(
    context: click.Context,
    found: Opened,
    gone: Sequence[str],
    reason: str,
    *,
    wait: bool = True,
) -> bool:
    """
    Before keys of a server's ring are revoked, move what they guard; say whether it did.
    """
    if found.work is None or not gone:
        return False
    from kagimori.cli.running import cause

    work = found.work
    moved = work.run(
        reprotection_of(work).before_revoking(gone, cause(reason), waits=wait)
    )
    output = session(context).output
    output.notice(
        "ring.reprotect.saved",
        keys=moved.keys,
        sign_ins=moved.sign_ins,
        turned=moved.turned,
    )
    return True


def _preview(output: Output, found: Opened, gone: Sequence[str]) -> None:
    """
    Say what ending keys cuts, on standard error, so that a pipe sees the outcome only.
    """
    ring = found.ring
    views = {view.id: view for view in views_of(ring)}
    for key_id in gone:
        view = views.get(key_id)
        if view is None:
            output.notice("ring.cut.unreadable", key=key_id)
            continue
        output.notice(_cut(view), **_span(view, ring.now()))
        if view.last_named is not None:
            output.notice("ring.cut.named", when=stamp(view.last_named))
    if found.work is not None and gone:
        output.notice("ring.cut.servers")
    if any(
        key_id in views and views[key_id].state is KeyState.CURRENT for key_id in gone
    ):
        output.notice("ring.cut.current")


def _cut(view: ProtectionKeyView) -> str:
    if view.state is KeyState.NEXT:
        return "ring.cut.never"
    return "ring.cut.revoked" if view.state is KeyState.REVOKED else "ring.cut.span"


def _span(view: ProtectionKeyView, now: datetime) -> dict[str, str]:
    times = view.timeline
    return {
        "key": view.id,
        "state": view.state.value,
        "since": stamp(times.activates),
        "until": stamp(min(times.retires or now, now)),
    }


def _tell(output: Output, ring: ProtectionRing, ended: Ended, key: str) -> None:
    if output.as_json:
        output.json(
            {
                "cuts": [
                    {
                        "key": cut.key_id,
                        "state": cut.state.value,
                        "since": cut.since,
                        "until": cut.until,
                    }
                    for cut in ended.cuts
                ],
                "replacement": outcome_of(ended.replacement)
                if ended.replacement
                else None,
                "generation": ended.generation,
            }
        )
        return
    output.say(key, count=len(ended.cuts))
    if ended.replacement is not None:
        output.say("ring.ended.replacement", key=ended.replacement.id)
    output.say("keys.generation", generation=ended.generation)


def _instant(output: Output, text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(output.texts("ring.revoke.date", text=text)) from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
