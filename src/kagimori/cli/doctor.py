"""
``kagimori doctor``: looks at everything an installation stands on, and says what to do.
"""

from __future__ import annotations

import asyncio
import sys

import click

from kagimori.admin.doctor import Finding, Verdict
from kagimori.cli.command import EXIT_FAILURE, Command, confirm, option, session
from kagimori.cli.running import diagnosed
from kagimori.cli.texts import Texts

MARKS = {Verdict.GOOD: "✓", Verdict.WARNING: "!", Verdict.BAD: "✗"}
STYLES = {Verdict.GOOD: "good", Verdict.WARNING: "warning", Verdict.BAD: "error"}


@click.command("doctor", cls=Command, help="help.doctor")
@option(
    "--accept-restored",
    type=click.Choice(["ring", "database"]),
    help="option.accept_restored",
)
@option("--yes", is_flag=True, help="option.yes")
@click.pass_context
def command(context: click.Context, *, accept_restored: str | None, yes: bool) -> None:
    """
    Check clock, database, ring, wrapping, keys and file modes.
    """
    output = session(context).output
    if accept_restored is not None:
        confirm(context, yes, "doctor.confirm_restored", part=accept_restored)
        _accept(context, accept_restored)
    findings = diagnosed(context)
    if output.as_json:
        output.json(findings)
    for finding in findings:
        mark = output.style(MARKS[finding.verdict], STYLES[finding.verdict])
        text, hint = _words(output.texts, finding)
        output.line(f"{mark} {output.texts(f'doctor.{finding.check}')}: {text}")
        if hint:
            output.line(f"  {output.texts('output.hint')} {hint}")
    if any(finding.verdict is Verdict.BAD for finding in findings):
        sys.exit(EXIT_FAILURE)


def _words(texts: Texts, finding: Finding) -> tuple[str, str]:
    said = []
    for prefix, plain in (("finding", finding.text), ("finding.hint", finding.hint)):
        key = f"{prefix}.{finding.code}"
        if not plain or not texts.has(key):
            said.append(plain)
            continue
        said.append(texts(key, **finding.params))
    return said[0], said[1]


def _accept(context: click.Context, part: str) -> None:
    from kagimori.compose import opened
    from kagimori.high_water import Part
    from kagimori.settings import data_folder, read_settings

    settings = read_settings(data_folder(session(context).data))

    async def accept() -> None:
        async with opened(settings) as installation:
            await installation.accept_restored(Part(part))

    asyncio.run(accept())
