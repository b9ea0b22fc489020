"""
``kagimori ring reprotect``: what of a server's data lies under older protection keys.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from kagimori.cli.command import EXIT_FAILURE, Command, option, session
from kagimori.cli.output import Output
from kagimori.cli.running import cause, installed

if TYPE_CHECKING:
    from kagimori.admin.reprotection import Guarding, Reprotection
    from kagimori.cli.running import Work


def reprotection_of(work: Work) -> Reprotection:
    """
    Return what knows and moves the data of an open installation.
    """
    from kagimori.admin.reprotection import Reprotection

    of = work.installation
    return Reprotection(of.store, of.ring, of.keys, of.trail)


@click.command("reprotect", cls=Command, help="help.ring.reprotect")
@option("--dry-run", is_flag=True, help="option.ring_dry_run")
@option("--revoked", is_flag=True, help="option.ring_revoked")
@option("--reason", default="", help="option.ring_reason")
@click.pass_context
def reprotect(
    context: click.Context, *, dry_run: bool, revoked: bool, reason: str
) -> None:
    """
    Show what lies under which protection key, and move all of it to the current one.
    """
    output = session(context).output
    with installed(context) as work:
        data = reprotection_of(work)
        before = work.run(data.left())
        current = work.installation.ring.current_key_id
        if not output.as_json:
            _table(output, before)
        if dry_run:
            if output.as_json:
                output.json({"current": current, "left": before})
            return
        moved = work.run(data.finish(cause(reason), trusting=revoked))
        after = work.run(data.left())
    left = [each for each in after if each.key != current]
    values = sum(each.keys + each.sign_ins for each in left)
    if output.as_json:
        output.json({"current": current, "moved": moved, "left": after})
    else:
        output.line()
        output.say(
            "ring.reprotect.done",
            keys=moved.keys,
            sign_ins=moved.sign_ins,
            key=current,
        )
        if values:
            _table(output, after)
    if values:
        output.warn(output.texts("ring.reprotect.left", count=values))
        if any(each.state == "revoked" and _is_used(each) for each in left):
            output.notice("ring.reprotect.revoked")
        sys.exit(EXIT_FAILURE)


def _is_used(each: Guarding) -> bool:
    return bool(each.keys or each.sign_ins)


def _table(output: Output, found: Sequence[Guarding]) -> None:
    texts = output.texts
    output.table(
        [
            texts("ring.column.protection_key"),
            texts("keys.state"),
            texts("ring.column.keys"),
            texts("ring.column.sign_ins"),
        ],
        [
            [
                each.key,
                each.state or texts("ring.reprotect.gone"),
                str(each.keys),
                str(each.sign_ins),
            ]
            for each in found
        ],
        state=1,
    )
