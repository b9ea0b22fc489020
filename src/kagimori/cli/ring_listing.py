"""
``kagimori ring init`` and ``list``: make a ring, and look at one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime

import click

from kagimori.cli import timeline
from kagimori.cli.command import Command, option, session
from kagimori.cli.output import Output
from kagimori.cli.ring_opening import Opened, named, opened, ring_options
from kagimori.cli.ring_views import DrawnLife, RingKeyView, outcome_of
from kagimori.cli.times import ago, stamp
from kagimori.errors import RefusedError, RingMissingError
from kagimori.events import NullSink
from kagimori.keys.timeline import KeyState

COLUMNS = 40


@click.command("init", cls=Command, help="help.ring.init")
@ring_options
@option("--algorithm", metavar="A", help="option.ring_algorithm")
@click.pass_context
def init(
    context: click.Context,
    ring: str | None,
    wrapper: str | None,
    application: str | None,
    *,
    algorithm: str | None,
) -> None:
    """
    Make a ring with its first key, where there is none.
    """
    from kagimori.opening import open_ring

    output = session(context).output
    meant = named(context, ring, wrapper, application)
    if meant.is_servers:
        raise click.UsageError(output.texts("ring.init.no_ring"))
    discriminator = meant.discriminator(needed=True)
    try:
        open_ring(
            meant.location,
            application=discriminator,
            wrapper=meant.wrapper,
            create=False,
            read_only=True,
            events=NullSink(),
        ).close()
    except RingMissingError:
        pass
    else:
        raise RefusedError(
            output.texts("ring.init.there"), hint=output.texts("ring.init.there_hint")
        )
    made = open_ring(
        meant.location,
        application=discriminator,
        wrapper=meant.wrapper,
        algorithm=algorithm,
        events=NullSink(),
    )
    try:
        if made.lost_at_restart:
            output.warn(made.lost_at_restart)
        if made.is_clear:
            output.warn(output.texts("ring.init.clear"))
        (key,) = made.keys()[-1:]
        if output.as_json:
            output.json(
                {
                    "ring": made.location_name,
                    "wrapper": made.wrapper_name,
                    "key": outcome_of(key),
                }
            )
            return
        output.say("ring.init.made", ring=made.location_name)
        output.say(
            "ring.init.key",
            key=key.id,
            algorithm=key.algorithm,
            wrapper=made.wrapper_name,
            due=stamp(key.timeline.due),
        )
    finally:
        made.close()


@click.command("list", cls=Command, help="help.ring.list")
@ring_options
@click.pass_context
def list_(
    context: click.Context,
    ring: str | None,
    wrapper: str | None,
    application: str | None,
) -> None:
    """
    List the keys of a ring, draw their lives, say what guards them and what .NET would do.
    """
    output = session(context).output
    meant = named(context, ring, wrapper, application)
    with opened(context, meant) as found:
        _show(output, found)


def _show(output: Output, found: Opened) -> None:
    from kagimori.keys.protection.dotnet_choice import forecast

    ring = found.ring
    now = ring.now()
    guarded = {each.key_id: each for each in ring.inventory()}
    views = [outcome_of(key, guarded.get(key.id)) for key in ring.keys(now)]
    told = forecast(ring, now)
    if output.as_json:
        output.json(
            {
                "ring": ring.location_name,
                "wrapper": ring.wrapper_name,
                "application": ring.application,
                "generation": ring.generation,
                "keys": views,
                "dotnet": {
                    "default": told.choice.default,
                    "fallback": told.choice.fallback,
                    "generates": told.choice.generates,
                    "to_come": told.to_come.activates if told.to_come else None,
                },
            }
        )
        return
    output.say(
        "ring.list.head", ring=ring.location_name, generation=str(ring.generation)
    )
    output.line()
    _lives(output, views, now)
    output.line()
    _guards(output, views)
    output.line()
    if told.choice.default is not None:
        same = told.choice.default == ring.current_key_id
        key = "ring.dotnet.same" if same else "ring.dotnet.other"
        output.say(key, key=told.choice.default)
    elif told.choice.fallback is not None:
        output.say("ring.dotnet.fallback", key=told.choice.fallback)
    else:
        output.say("ring.dotnet.none")
        return
    if told.to_come is not None:
        output.say("ring.dotnet.to_come", when=stamp(told.to_come.activates))


def _lives(output: Output, views: Sequence[RingKeyView], now: datetime) -> None:
    texts = output.texts
    marks = timeline.marks_for(sys.stdout.encoding)
    lives = [DrawnLife.of(view) for view in views]
    axis = timeline.axis_of(lives, now, COLUMNS)
    output.table(
        [
            texts("column.id"),
            texts("keys.state"),
            texts("keys.from"),
            texts("keys.until"),
            f"{stamp(axis.start)[:10]} … {stamp(axis.end)[:10]}",
        ],
        [
            [
                view.id,
                view.state,
                stamp(view.activates),
                _until(output, view, now),
                timeline.draw(life, axis, now, marks).rstrip(),
            ]
            for view, life in zip(views, lives, strict=True)
        ],
        state=1,
    )
    output.say(
        "ring.legend",
        waiting=marks.waiting,
        protecting=marks.signing,
        opening=marks.verifying,
        now=marks.now,
    )


def _until(output: Output, view: RingKeyView, now: datetime) -> str:
    texts = output.texts
    if view.state == KeyState.NEXT.value:
        return texts("keys.until.next", when=ago(texts, view.activates - now))
    if view.state == KeyState.REVOKED.value:
        return texts("ring.until.revoked", when=stamp(view.revoked))
    if view.state == KeyState.PREVIOUS.value:
        return texts("keys.until.deleted")
    if view.retires is not None:
        return texts("keys.until.retires", when=stamp(view.retires))
    if view.due is not None and view.due <= now:
        return texts("keys.until.overdue", when=stamp(view.due))
    return texts("keys.until.due", when=stamp(view.due))


def _guards(output: Output, views: Sequence[RingKeyView]) -> None:
    texts = output.texts
    rows = []
    for view in views:
        # .NET's null envelope hides nothing.
        hides = [each for each in view.wrapped_by if each != "NullXmlDecryptor"]
        wrapped = ", ".join(hides) or texts("ring.guard.clear")
        version = view.wrapping_key or texts("ring.guard.unsaid")
        if view.is_newest is False:
            version = texts("ring.guard.older", version=version)
        second = view.recovery_key or view.recovery_by or texts("ring.guard.no_second")
        rows.append([view.id, view.algorithm, wrapped, version, second, view.reason])
    output.table(
        [
            texts("column.id"),
            texts("keys.algorithm"),
            texts("ring.column.wrapped_by"),
            texts("ring.column.wrapping_key"),
            texts("ring.column.second"),
            texts("ring.column.reason"),
        ],
        rows,
    )
