"""
``kagimori ring rotate``, ``activate``, ``cancel``: let another key protect.
"""

from __future__ import annotations

import click

from kagimori.cli.command import Command, confirm, option, session
from kagimori.cli.output import Output
from kagimori.cli.ring_opening import key_named, named, opened, ring_options
from kagimori.cli.ring_views import outcome_of
from kagimori.cli.times import ago, stamp
from kagimori.errors import KeyStateError, NotPropagatedError
from kagimori.keys.protection.outcomes import ProtectionKeyView
from kagimori.keys.protection.ring import ProtectionRing
from kagimori.keys.timeline import KeyState


@click.command("rotate", cls=Command, help="help.ring.rotate")
@ring_options
@option("--now", "at_once", is_flag=True, help="option.ring_now")
@option("--emergency", is_flag=True, help="option.ring_emergency")
@option("--replace", is_flag=True, help="option.replace")
@option("--reason", default="", help="option.ring_reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def rotate(
    context: click.Context,
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    at_once: bool,
    emergency: bool,
    replace: bool,
    reason: str,
    yes: bool,
) -> None:
    """
    Make the key that protects next, or with ``--now`` let it protect at once.
    """
    output = session(context).output
    if emergency and not at_once:
        raise click.UsageError(output.texts("keys.rotate.emergency_alone"))
    meant = named(context, ring, wrapper, application)
    with opened(context, meant) as found:
        if emergency:
            confirm(
                context, yes, "ring.confirm_emergency", ring=found.ring.location_name
            )
        made = _turned(
            found.ring,
            at_once=at_once,
            emergency=emergency,
            replace=replace,
            reason=reason,
        )
        _tell(output, found.ring, made)


def _turned(
    ring: ProtectionRing, *, at_once: bool, emergency: bool, replace: bool, reason: str
) -> ProtectionKeyView:
    if not at_once:
        return ring.rotate(reason=reason, replace=replace)
    if not replace:
        # A key that waited long enough takes over without anybody's noticing.
        try:
            return ring.activate(reason=reason)
        except NotPropagatedError:
            if not emergency:
                raise
        except KeyStateError:
            if not emergency:
                return ring.rotate(activates=ring.now(), reason=reason)
    if not emergency:
        return ring.rotate(activates=ring.now(), reason=reason, replace=True)
    return ring.rotate(immediate=True, reason=reason, replace=replace)


@click.command("activate", cls=Command, help="help.ring.activate")
@click.argument("key", required=False)
@ring_options
@option("--emergency", is_flag=True, help="option.ring_emergency_activate")
@option("--reason", default="", help="option.ring_reason")
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def activate(
    context: click.Context,
    key: str | None,
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    emergency: bool,
    reason: str,
    yes: bool,
) -> None:
    """
    Let a waiting key protect now.
    """
    meant = named(context, ring, wrapper, application)
    with opened(context, meant) as found:
        key_id = None if key is None else key_named(found.ring, key)
        if emergency:
            confirm(
                context, yes, "ring.confirm_emergency", ring=found.ring.location_name
            )
        made = found.ring.activate(key_id, emergency=emergency, reason=reason)
        _tell(session(context).output, found.ring, made)


@click.command("cancel", cls=Command, help="help.ring.cancel")
@click.argument("key", required=False)
@ring_options
@option("--reason", default="", help="option.ring_reason")
@click.pass_context
def cancel(
    context: click.Context,
    key: str | None,
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    reason: str,
) -> None:
    """
    Take back a key that waits.
    """
    output = session(context).output
    meant = named(context, ring, wrapper, application)
    with opened(context, meant) as found:
        key_id = None if key is None else key_named(found.ring, key)
        gone = found.ring.cancel(key_id, reason=reason)
        if output.as_json:
            output.json({"key": gone, "generation": found.ring.generation})
            return
        output.say("ring.cancel.done", key=gone)
        output.say("keys.generation", generation=found.ring.generation)


def _tell(output: Output, ring: ProtectionRing, key: ProtectionKeyView) -> None:
    if output.as_json:
        output.json({"key": outcome_of(key), "generation": ring.generation})
        return
    now = ring.now()
    if key.state is KeyState.NEXT:
        output.say(
            "ring.rotate.staged",
            key=key.id,
            algorithm=key.algorithm,
            when=stamp(key.timeline.activates),
            wait=ago(output.texts, key.timeline.activates - now),
        )
    else:
        output.say("ring.rotate.done", key=key.id, algorithm=key.algorithm)
    output.say("keys.generation", generation=ring.generation)
